"""The bytes of every event, pinned: what is written once has to be readable for ever.

A golden file is never changed. A field that is added with a default gets a new golden file beside the old one.
"""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ledger.chain import event_digest, genesis_digest, roll
from ledger.codec import RETIRED_TAGS, EventCodec
from ledger.errors import UnknownEventTag
from ledger.events import (
    EVENT_TYPES,
    AttemptEnd,
    Holder,
    LeaseAcquired,
    LeaseCredentialReleased,
    LeaseEvent,
    LeaseExpiring,
    LeaseReauthRequired,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
    OpenAttempt,
    RestoredLease,
)
from ledger.snapshot import MAX_U64, AuthLeasePhase

GOLDEN = Path(__file__).parent
STAMP: dict[str, Any] = {
    "id": "00112233445566778899aabbccddeeff",
    "at": 1_700_000_000_123,
    "actor": "agent-7@build-host pid 4242",
    "prev": "a" * 64,
}
WHY: dict[str, Any] = {"cause": "nightly check", "correlation_id": "run-81"}
HOLDER = Holder("build-host", "boot-1/pid:[4026531836]", 4242, "123456", "0123456789abcdef")
ATTEMPT = OpenAttempt("ffeeddccbbaa99887766554433221100", 60_000, HOLDER, "hmac:5f3a")

EVENTS: dict[str, LeaseEvent] = {
    "lease.acquired": LeaseAcquired(
        **STAMP, **WHY, generation=2, expires_at=1_800_000_000, published_at=1_700_000_000_123, attempt=ATTEMPT.id
    ),
    "lease.acquired.least": LeaseAcquired(**STAMP, generation=1, published_at=1),
    "lease.acquired.largest": LeaseAcquired(**STAMP, generation=MAX_U64, expires_at=MAX_U64 - 1, published_at=MAX_U64),
    "lease.expiring": LeaseExpiring(**STAMP, **WHY),
    "lease.refresh_started": LeaseRefreshStarted(
        **STAMP, **WHY, attempt=STAMP["id"], duration_ms=60_000, holder=HOLDER, fingerprint="hmac:5f3a"
    ),
    "lease.refresh_started.least": LeaseRefreshStarted(
        **STAMP, attempt=STAMP["id"], duration_ms=1, holder=Holder("h", "b", 1)
    ),
    "lease.refreshed": LeaseRefreshed(
        **STAMP,
        **WHY,
        generation=3,
        expires_at=1_800_000_600,
        published_at=1_700_000_001_000,
        refreshed_at=1_700_000_001,
        attempt=ATTEMPT.id,
        recovered=True,
    ),
    "lease.refreshed.least": LeaseRefreshed(**STAMP, generation=3, published_at=5, refreshed_at=6),
    "lease.refresh_failed": LeaseRefreshFailed(
        **STAMP,
        **WHY,
        permanent=True,
        error="invalid_grant",
        status=400,
        retry_after=2.5,
        attempt=ATTEMPT.id,
        abandoned=True,
    ),
    "lease.refresh_failed.ended": LeaseRefreshFailed(
        **STAMP, permanent=False, error="ConnectError", attempt=ATTEMPT.id, ended=AttemptEnd.NOT_SENT
    ),
    "lease.refresh_failed.least": LeaseRefreshFailed(**STAMP, permanent=False),
    "lease.reauth_required": LeaseReauthRequired(**STAMP, **WHY, reason="die Sitzung ist abgelaufen: größer als 1 h"),
    "lease.reauth_required.least": LeaseReauthRequired(**STAMP),
    "lease.released": LeaseReleased(**STAMP, **WHY),
    "lease.credential_released": LeaseCredentialReleased(**STAMP, **WHY),
    "lease.restored": LeaseRestored(
        **STAMP,
        **WHY,
        snapshot=RestoredLease(9, AuthLeasePhase.REFRESHING, 1_800_000_000, True, 1_700_000_000_123),
        published_by="0" * 32,
        attempt=ATTEMPT,
        captured_at_version=4,
        compensates=5,
    ),
    "lease.restored.least": LeaseRestored(**STAMP, snapshot=RestoredLease(0)),
}


def _golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().removesuffix(b"\n")


@pytest.fixture
def codec() -> EventCodec:
    return EventCodec()


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_is_written_as_these_very_bytes(name: str, codec: EventCodec) -> None:
    assert codec.encode(EVENTS[name]) == _golden(name)


@pytest.mark.parametrize("name", EVENTS)
def test_these_bytes_are_read_as_the_event(name: str, codec: EventCodec) -> None:
    event = codec.decode(EVENTS[name].tag, _golden(name))
    assert event == EVENTS[name]
    assert type(event) is type(EVENTS[name])
    assert codec.decode(event.tag, _golden(name).decode()) == event


@pytest.mark.parametrize("name", EVENTS)
def test_an_older_reader_ignores_a_field_it_does_not_know(name: str, codec: EventCodec) -> None:
    fields = json.loads(_golden(name))
    newer = {"added_later": {"deep": [1, None]}, **fields, "added_last": "x"}
    assert codec.decode(EVENTS[name].tag, json.dumps(newer)) == EVENTS[name]


def test_a_way_of_ending_of_a_newer_version_is_kept_as_it_stands(codec: EventCodec) -> None:
    newer = _golden("lease.refresh_failed.ended").replace(b"not_sent", b"eaten_by_proxy")
    event = codec.decode("lease.refresh_failed", newer)
    assert isinstance(event, LeaseRefreshFailed)
    assert event.ended == "eaten_by_proxy" and event.ended not in list(AttemptEnd)
    assert codec.encode(event) == newer


def test_every_tag_has_golden_bytes_and_every_golden_file_a_tag() -> None:
    assert {event.tag for event in EVENTS.values()} == {event_type.tag for event_type in EVENT_TYPES}
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(EVENTS)
    assert all(name.startswith(event.tag) for name, event in EVENTS.items())


def test_a_tag_of_a_newer_version_stops_the_reader(codec: EventCodec) -> None:
    with pytest.raises(UnknownEventTag, match="written by a newer version") as unknown:
        codec.decode("lease.teleported", _golden("lease.released"))
    assert unknown.value.tag == "lease.teleported"


@pytest.mark.parametrize("body", [b"{}", b"[]", b"", b"\xff", b'{"id":1}'])
def test_bytes_that_are_no_event_are_never_half_an_event(body: bytes, codec: EventCodec) -> None:
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        codec.decode("lease.released", body)


def _rename_to_until(fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    fields["until"] = fields.pop("end")
    return "lease.obtained", fields


def _obtained_to_acquired(fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    fields["expires_at"] = fields.pop("until")
    return "lease.acquired", fields


def test_a_retired_tag_is_read_through_its_upcasters_one_after_the_other() -> None:
    codec = EventCodec(upcasters={"lease.taken": _rename_to_until, "lease.obtained": _obtained_to_acquired})
    old = json.dumps({**STAMP, "generation": 1, "end": 500, "published_at": 7}).encode()
    expected = LeaseAcquired(**STAMP, generation=1, expires_at=500, published_at=7)
    assert codec.decode("lease.taken", old) == expected


def test_no_current_tag_is_also_a_retired_one() -> None:
    assert not {event_type.tag for event_type in EVENT_TYPES} & set(RETIRED_TAGS)


def test_the_digests_of_the_chain_are_pinned() -> None:
    genesis = genesis_digest("ledger-1", "dev:openai:work")
    digest = event_digest("ledger-1", "dev:openai:work", 1, "lease.acquired", _golden("lease.acquired"))
    assert genesis == "3898a5a9f057487cf9f303cd73279addf819b0953dddd2f61a1c6b0222d1a408"
    assert digest == "8b50655f921f05037db3cd34cc9ad2a8483a583a63feb94fa66a63a89c3791d3"
    assert roll(genesis, 1, digest) == "8b1947ae85cd543a89f535e4ea081e7eb6605bccb62e645e14a2b46ed528ce68"


@pytest.mark.parametrize(
    "other",
    [
        ("ledger-2", "dev:openai:work", 1, "lease.released", b"{}"),
        ("ledger-1", "dev:openai:home", 1, "lease.released", b"{}"),
        ("ledger-1", "dev:openai:work", 2, "lease.released", b"{}"),
        ("ledger-1", "dev:openai:work", 1, "lease.expiring", b"{}"),
        ("ledger-1", "dev:openai:work", 1, "lease.released", b"{ }"),
        ("ledger-1", "dev:openai:wor", 1, "klease.released", b"{}"),
    ],
)
def test_a_digest_covers_ledger_key_version_tag_and_bytes(other: tuple[str, str, int, str, bytes]) -> None:
    assert event_digest("ledger-1", "dev:openai:work", 1, "lease.released", b"{}") != event_digest(*other)
