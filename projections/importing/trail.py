"""The reference runtime's audit trail: what one line of it says about a lease.

The runtime writes its tracing output as JSON lines. Those with the target ``meerkat::auth::audit`` and a lease key are
accepted transitions: the lease, the action, the phase before and the phase after. Nothing else about a lease is in
them.
"""

import re
from enum import Enum
from typing import Any, Final

import msgspec

from ledger.keys import IdentityError, LeaseKey
from ledger.phases import BY_EVENT, TRANSITIONS, Transition
from ledger.snapshot import AuthLeasePhase
from projections.times import NotATime, parse_iso

__all__ = ["TARGET", "Aside", "TrailLine", "UnusableLine", "read_line"]

TARGET: Final = "meerkat::auth::audit"

_RELEASED: Final = AuthLeasePhase.RELEASED
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII)
_PHASES: Final = {phase.value.replace("_", ""): phase for phase in AuthLeasePhase}
_ACTIONS: Final = {
    "acquire_lease": Transition.ACQUIRE,
    "mark_expiring": Transition.MARK_EXPIRING,
    "begin_refresh": Transition.BEGIN_REFRESH,
    "complete_refresh": Transition.COMPLETE_REFRESH,
    "refresh_failed_transient": Transition.REFRESH_FAILED_TRANSIENT,
    "refresh_failed_permanent": Transition.REFRESH_FAILED_PERMANENT,
    "mark_reauth_required": Transition.MARK_REAUTH_REQUIRED,
    "release_lease": Transition.RELEASE,
    "release_credential_lifecycle": Transition.RELEASE_CREDENTIAL,
    "clear_credential_lifecycle": Transition.RELEASE_CREDENTIAL,
    "restore_auth_lifecycle_snapshot": Transition.RESTORE,
    "restore_authority_snapshot": Transition.RESTORE,
    "restore_credential_lifecycle_snapshot": Transition.RESTORE,
    "rollback_release_lease": Transition.RESTORE,
}


class UnusableLine(ValueError):
    """A line cannot be used; the message says why."""


class Aside(Enum):
    """A sound line that is about something else than a lease's transitions."""

    BLANK = "blank"
    OTHER_TARGET = "other target"
    LOGIN_FLOW = "login flow"
    OTHER_RECORD = "other audit record"


class TrailLine(msgspec.Struct, frozen=True):
    """One transition, as the trail tells it. ``released`` as a phase means that the key holds no lease."""

    at_ms: int
    key: LeaseKey
    action: str
    transition: Transition
    from_phase: AuthLeasePhase
    to_phase: AuthLeasePhase


def read_line(line: bytes) -> TrailLine | Aside:
    """What a line says.

    Raises:
        UnusableLine: It cannot be read, or tells of a transition that leases do not have.
    """
    if not line.strip():
        return Aside.BLANK
    try:
        record = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UnusableLine(f"it is no JSON ({error})") from None
    if not isinstance(record, dict):
        raise UnusableLine("it is no JSON object")
    if record.get("target") != TARGET:
        return Aside.OTHER_TARGET
    fields = record.get("fields")
    if not isinstance(fields, dict):
        raise UnusableLine("it has no fields")
    if fields.keys().isdisjoint(("lease_key", "from_phase", "to_phase")):
        return Aside.OTHER_RECORD
    action = _text(fields, "action")
    if "_oauth_" in action:
        return Aside.LOGIN_FLOW
    found = TrailLine(
        _time(record.get("timestamp")),
        _key(fields),
        action,
        _transition(action, fields),
        _phase(fields, "from_phase"),
        _phase(fields, "to_phase"),
    )
    _check_table(found)
    return found


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise UnusableLine(f"its {name} is {'missing' if value is None else 'no text'}")
    return value


def _time(value: object) -> int:
    if not isinstance(value, str) or not _TIMESTAMP.fullmatch(value):
        raise UnusableLine("its timestamp is no RFC 3339 date and time")
    try:
        at_ms = parse_iso(value).at_ms
    except NotATime:
        raise UnusableLine("its timestamp is no date of the calendar") from None
    if at_ms < 0:
        raise UnusableLine("its timestamp lies before 1970")
    return at_ms


def _key(fields: dict[str, Any]) -> LeaseKey:
    profile = fields.get("profile")
    try:
        key = LeaseKey.parse(_text(fields, "lease_key"))
        parts = LeaseKey(
            _text(fields, "realm"), _text(fields, "binding"), None if profile is None else _text(fields, "profile")
        )
    except IdentityError as error:
        raise UnusableLine(f"its lease key cannot be read ({error})") from None
    if key != parts:
        raise UnusableLine(f"its lease_key {key} contradicts its realm, binding and profile {parts}")
    return key


def _phase(fields: dict[str, Any], name: str) -> AuthLeasePhase:
    text = _text(fields, name)
    phase = _PHASES.get(text.lower().replace("_", ""))
    if phase is None:
        raise UnusableLine(f"its {name} {text[:40]!r} is no phase of a lease")
    return phase


def _transition(action: str, fields: dict[str, Any]) -> Transition:
    if action == "refresh_failed":
        # Later versions of the runtime have one action, and only the phase after tells which kind it was.
        permanent = _phase(fields, "to_phase") is AuthLeasePhase.REAUTH_REQUIRED
        return Transition.REFRESH_FAILED_PERMANENT if permanent else Transition.REFRESH_FAILED_TRANSIENT
    if action not in _ACTIONS:
        raise UnusableLine(f"its action {action[:60]!r} is no transition of a lease")
    return _ACTIONS[action]


def _check_table(line: TrailLine) -> None:
    allowed = TRANSITIONS[line.transition]
    before = None if line.from_phase is _RELEASED else line.from_phase
    if before not in allowed:
        raise UnusableLine(f"{line.action} does not start from {line.from_phase}")
    target = allowed[before]
    if target is BY_EVENT:
        return
    leads_to = {target or _RELEASED}
    if line.action == "clear_credential_lifecycle":
        leads_to = {AuthLeasePhase.REAUTH_REQUIRED}
    if line.transition is Transition.RELEASE_CREDENTIAL:
        leads_to.add(_RELEASED)
    if line.to_phase not in leads_to:
        raise UnusableLine(f"{line.action} does not lead from {line.from_phase} to {line.to_phase}")
