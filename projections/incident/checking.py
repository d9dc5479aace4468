"""Opening a saved incident: nothing of it is used before all of it was checked."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from ledger.chain import event_digest, genesis_digest
from ledger.codec import UNREADABLE, EventCodec
from ledger.errors import CorruptHistory, LeaseLedgerError, UnknownEventTag
from ledger.keys import IdentityError, LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.state import EMPTY_STATE, LeaseState, evolve
from projections.incident.bundle import FORMAT, Bundle, BundledEvent, encode, seal

__all__ = ["BundleFinding", "BundleRefused", "check", "check_against", "decode"]

_OFFSET: Final = re.compile(r"\(byte (\d+)\)")
_PATH: Final = re.compile(r"\$\.events\[(\d+)\]")


class BundleFinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with a bundle.

    Attributes:
        detail: What is wrong, in words.
        position: Log position of the event at fault, when one is.
        key: Its lease, or the lease whose edge is at fault.
        version: Its place in the stream.
    """

    detail: str
    position: int | None = None
    key: str | None = None
    version: int | None = None

    def __str__(self) -> str:
        if self.version is not None:
            return f"event {self.version} of {self.key} (position {self.position}): {self.detail}"
        return self.detail if self.key is None else f"{self.key}: {self.detail}"


class BundleRefused(LeaseLedgerError):
    """A bundle is not what was saved. Nothing of it was used.

    Attributes:
        findings: What is wrong with it; at least one.
    """

    def __init__(self, findings: tuple[BundleFinding, ...]) -> None:
        super().__init__(findings)
        self.findings = findings

    def __str__(self) -> str:
        more = len(self.findings) - 1
        return f"the incident bundle was changed: {self.findings[0]}" + (f"; and {more} more" if more else "")


def decode(data: bytes) -> Bundle:
    """Read a bundle and check everything in it.

    Raises:
        BundleRefused: It is not what was saved.
    """
    try:
        bundle = msgspec.json.decode(data, type=Bundle)
    except UNREADABLE as error:
        raise BundleRefused((_unreadable(data, str(error)),)) from error
    findings = tuple(check(bundle, data))
    if findings:
        raise BundleRefused(findings)
    return bundle


def check(bundle: Bundle, data: bytes | None = None) -> Iterator[BundleFinding]:
    """Everything that is wrong with a bundle.

    Args:
        bundle: The bundle.
        data: The bytes it was read from, which have to be those it was saved as.
    """
    if bundle.format != FORMAT:
        yield BundleFinding(f"it says to be {bundle.format!r}, and this version reads {FORMAT!r}")
    named = False
    for finding in _check_streams(bundle):
        named = True
        yield finding
    if seal(bundle).digest != bundle.digest:
        where = "" if named else ", outside its events: its header, its edges or the digest itself"
        yield BundleFinding(f"it does not add up to its own digest; something was changed{where}")
    elif data is not None and encode(bundle) != data:
        yield BundleFinding("its bytes are not those it was saved as, though they say the same")


def _check_streams(bundle: Bundle) -> Iterator[BundleFinding]:
    codec, position = EventCodec(), 0
    digests: dict[str, str] = {}
    states: dict[str, LeaseState | None] = {}
    for stream in bundle.streams:
        digests[stream.key], states[stream.key] = stream.before.digest, stream.before.state
        yield from _check_start(bundle, stream.key)
    for event in bundle.events:
        if event.key not in digests:
            yield _about(event, "its lease is none of the bundle's")
            continue
        if event.position <= position:
            yield _about(event, f"it follows position {position}")
        position = event.position
        yield from _check_event(bundle.ledger_id, event, digests[event.key])
        digests[event.key] = event.digest
        state, finding = _after(codec, event, states[event.key])
        states[event.key] = state
        if finding is not None:
            yield finding
    for stream in bundle.streams:
        state = states[stream.key]
        if state is not None and (state, digests[stream.key]) != (stream.after.state, stream.after.digest):
            yield BundleFinding("its events do not lead from the lease before them to the lease after", key=stream.key)


def _check_start(bundle: Bundle, key: str) -> Iterator[BundleFinding]:
    (before,) = (stream.before for stream in bundle.streams if stream.key == key)
    try:
        LeaseKey.parse(key)
    except IdentityError as error:
        yield BundleFinding(str(error), key=key)
    if before.version != before.state.version:
        yield BundleFinding("the lease before its events is of another version", key=key)
    genesis = before.version == 0
    if genesis and (before.state, before.digest) != (EMPTY_STATE, genesis_digest(bundle.ledger_id, key)):
        yield BundleFinding("before its first event there is something already, or the ledger is another", key=key)


def _check_event(ledger_id: str, event: BundledEvent, prev: str) -> Iterator[BundleFinding]:
    if event_digest(ledger_id, event.key, event.version, event.tag, event.body.encode()) != event.digest:
        yield _about(event, "it is not the event its digest was made of")
    if event.prev != prev:
        yield _about(event, "it does not follow from the event before it")


def _after(
    codec: EventCodec, event: BundledEvent, state: LeaseState | None
) -> tuple[LeaseState | None, BundleFinding | None]:
    """The state after an event, as long as there is one to go on from."""
    try:
        decoded = codec.decode(event.tag, event.body)
    except (UnknownEventTag, *UNREADABLE) as error:
        return None, _about(event, str(error))
    if decoded.prev != event.prev:
        return None, _about(event, "it names another event before it than the bundle does")
    if state is None:
        return None, None
    if event.version != state.version + 1:
        return None, _about(event, f"it follows version {state.version}")
    try:
        return evolve(state, decoded, event.key), None
    except CorruptHistory as error:
        return None, _about(event, error.detail)


def _about(event: BundledEvent, detail: str) -> BundleFinding:
    return BundleFinding(detail, event.position, event.key, event.version)


def _unreadable(data: bytes, error: str) -> BundleFinding:
    """Which event a reading error is about, as far as the bytes still tell."""
    path, offset = _PATH.search(error), _OFFSET.search(error)
    number: int | None = None
    if path is not None:
        number = int(path[1])
    elif offset is not None:
        number = data[: int(offset[1])].count(b'"position":') - 1
    positions = re.findall(rb'"position": *(\d+)', data)
    if number is None or not 0 <= number < len(positions):
        return BundleFinding(f"it cannot be read: {error}")
    return BundleFinding(f"it cannot be read at or near the event at position {int(positions[number])}: {error}")


def check_against(bundle: Bundle, ledger: LeaseLedger) -> Iterator[BundleFinding]:
    """Everything in which a bundle differs from the ledger it says to be from.

    Raises:
        LedgerStorageError: The ledger cannot be read.
    """
    if bundle.ledger_id != ledger.ledger_id:
        yield BundleFinding(f"it is from ledger {bundle.ledger_id}, and this one is {ledger.ledger_id}")
        return
    for event in bundle.events:
        row = next(iter(ledger.recorder.rows(event.key, event.version - 1, event.version)), None)
        if row is None or (row.position, row.tag, row.body) != (event.position, event.tag, event.body.encode()):
            yield _about(event, "the ledger holds another event there")
    for stream in bundle.streams:
        for edge in (stream.before, stream.after):
            if ledger.state(LeaseKey.parse(stream.key), edge.version) != edge.state:
                yield BundleFinding(
                    f"the ledger says something else about it at version {edge.version}", key=stream.key
                )
