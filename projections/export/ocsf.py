"""OCSF 1.8.0: events of the Identity & Access Management category, one JSON object a line.

A login is Authentication/Logon, a refresh Authentication/Other with an activity name, a release Authentication/Logoff.
What happens to a lease without anybody authenticating is Entity Management, of the lease as the entity. What the
standard has no attribute for is in ``unmapped``, integers beyond 2^53-1 as strings of their digits.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final, NamedTuple

from ledger.events import (
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
)
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from projections.export.json_text import json_line
from projections.export.jsonl import event_fields

__all__ = ["OCSF_VERSION", "lines", "row"]

OCSF_VERSION: Final = "1.8.0"

_GREATEST_LONG: Final = 2**63 - 1
_AUTHENTICATION: Final = 3002
_ENTITY_MANAGEMENT: Final = 3004
_CLASS_NAMES: Final = {_AUTHENTICATION: "Authentication", _ENTITY_MANAGEMENT: "Entity Management"}
_INFORMATIONAL, _LOW, _MEDIUM = (1, "Informational"), (2, "Low"), (3, "Medium")
_SUCCESS, _FAILURE, _OPEN = (1, "Success"), (2, "Failure"), (99, "Started")
_MAPPED: Final = frozenset({"id", "at", "actor", "correlation_id", "error", "cause", "reason"})


class _Activity(NamedTuple):
    """How an event is classed."""

    class_uid: int
    activity_id: int
    activity_name: str
    status: tuple[int, str] = _SUCCESS
    severity: tuple[int, str] = _INFORMATIONAL


_ACTIVITIES: Final[dict[type[LeaseEvent], _Activity]] = {
    LeaseAcquired: _Activity(_AUTHENTICATION, 1, "Logon"),
    LeaseRefreshStarted: _Activity(_AUTHENTICATION, 99, "Token Refresh", _OPEN),
    LeaseRefreshed: _Activity(_AUTHENTICATION, 99, "Token Refresh"),
    LeaseRefreshFailed: _Activity(_AUTHENTICATION, 99, "Token Refresh", _FAILURE, _LOW),
    LeaseReleased: _Activity(_AUTHENTICATION, 2, "Logoff"),
    LeaseCredentialReleased: _Activity(_AUTHENTICATION, 2, "Logoff"),
    LeaseExpiring: _Activity(_ENTITY_MANAGEMENT, 3, "Update"),
    LeaseReauthRequired: _Activity(_ENTITY_MANAGEMENT, 12, "Suspend", _SUCCESS, _MEDIUM),
    LeaseRestored: _Activity(_ENTITY_MANAGEMENT, 13, "Resume"),
}


@cache
def _product() -> dict[str, Any]:
    product = {"name": "lease-ledger", "vendor_name": "lease-ledger"}
    try:
        return {**product, "version": version("lease-ledger")}
    except PackageNotFoundError:
        return product


def _activity(event: LeaseEvent) -> _Activity:
    activity = _ACTIVITIES[type(event)]
    if isinstance(event, LeaseRefreshFailed) and event.permanent:
        return activity._replace(severity=_MEDIUM)
    return activity


def _classification(event: LeaseEvent) -> dict[str, Any]:
    class_uid, activity_id, activity_name, status, severity = _activity(event)
    class_name = _CLASS_NAMES[class_uid]
    return {
        "category_uid": 3,
        "category_name": "Identity & Access Management",
        "class_uid": class_uid,
        "class_name": class_name,
        "activity_id": activity_id,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity_id,
        "type_name": f"{class_name}: {'Other' if activity_id == 99 else activity_name}",
        "severity_id": severity[0],
        "severity": severity[1],
        "status_id": status[0],
        "status": status[1],
    }


def _metadata(recorded: RecordedEvent, ledger: LeaseLedger) -> dict[str, Any]:
    found = {
        "version": OCSF_VERSION,
        "product": _product(),
        "uid": recorded.event.id,
        "sequence": recorded.position,
        "log_name": ledger.ledger_id,
        "event_code": recorded.event.tag,
    }
    if recorded.event.correlation_id is not None:
        found["correlation_uid"] = recorded.event.correlation_id
    return found


def _subject(recorded: RecordedEvent, class_uid: int) -> dict[str, Any]:
    key = recorded.key
    if class_uid == _ENTITY_MANAGEMENT:
        return {"entity": {"uid": str(key), "name": str(key), "type": "auth lease", "version": str(recorded.version)}}
    user = {"uid": str(key), "name": key.profile or key.binding, "domain": key.realm, "type_id": 99, "type": "Binding"}
    return {
        "user": user,
        "service": {"name": key.binding, "uid": f"{key.realm}:{key.binding}"},
        "auth_protocol_id": 6,
        "auth_protocol": "OAUTH 2.0",
    }


def row(recorded: RecordedEvent, ledger: LeaseLedger) -> dict[str, Any]:
    """One event as an OCSF object."""
    event = recorded.event
    classification = _classification(event)
    unmapped = {name: value for name, value in event_fields(recorded).items() if name not in _MAPPED}
    found: dict[str, Any] = {
        **classification,
        # An instant beyond the standard's 64-bit long is one of a broken clock; its digits are in unmapped.
        "time": max(-_GREATEST_LONG, min(event.at, _GREATEST_LONG)),
        "message": f"{event.tag} {recorded.key}",
        "metadata": _metadata(recorded, ledger),
        "actor": {"app_name": event.actor},
        **_subject(recorded, classification["class_uid"]),
        "unmapped": {"key": str(recorded.key), "stream_version": recorded.version, **unmapped},
    }
    if abs(event.at) > _GREATEST_LONG:
        found["unmapped"]["at"] = str(event.at)
    if isinstance(event, LeaseRefreshFailed) and event.error is not None:
        found["status_code"] = event.error
    detail = event.reason if isinstance(event, LeaseReauthRequired) else None
    if detail or event.cause:
        found["status_detail"] = detail or event.cause
    if detail and event.cause:
        found["unmapped"]["cause"] = event.cause
    return found


def lines(events: Iterable[RecordedEvent], ledger: LeaseLedger) -> Iterator[str]:
    """The events as lines of OCSF objects."""
    for recorded in events:
        yield json_line(row(recorded, ledger))
