"""Where to stop a replay: small conditions on an event and the lease after it, such as ``generation>=3``."""

import re
from collections.abc import Callable, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Final

import msgspec

from ledger.errors import LeaseLedgerError
from ledger.events import OpenAttempt
from projections.incident.steps import Step
from projections.tags import full_tag
from projections.times import NotATime, epoch_ms, parse_iso

__all__ = ["Condition", "NoSuchCondition", "parse_condition"]

Condition = Callable[[Step], bool]
"""Whether a replay should stop after a step."""

_OF_EVENT: Final = ("at", "actor", "cause", "correlation_id", "attempt", "ended", "error", "status", "reason")
_OF_STATE: Final = ("phase", "generation", "expires_at", "credential_present", "published_by")
_OF_PLACE: Final = ("tag", "key", "position", "version", "changed")

_UNIT_MS: Final = {"at": 1, "expires_at": 1000}
_WHOLE: Final = re.compile(r"-?[0-9]{1,64}")

_TERM: Final = re.compile(r"\s*([a-z_]+)\s*(<=|>=|!=|=|<|>)\s*(.*?)\s*")
_ORDER: Final[Mapping[str, Callable[[Any, Any], bool]]] = {"<=": le, ">=": ge, "<": lt, ">": gt}


class NoSuchCondition(LeaseLedgerError, ValueError):
    """A condition cannot be read; the message says how one looks."""


def parse_condition(text: str) -> Condition:
    """Read a condition: terms like ``phase=valid`` joined by ``,``, all of which have to hold.

    A term compares a field of the event (``tag``, ``actor``, ``error``, ``attempt``, ``at``, ...), of its place
    (``key``, ``position``, ``version``) or of the lease after it (``phase``, ``generation``, ``expires_at``, ...) by
    ``=``, ``!=``, ``<``, ``<=``, ``>`` or ``>=``. ``none`` is the absence of a value; a tag may be given without
    ``lease.``; ``changed=expires_at`` holds where that field changed.

    ``at`` and ``expires_at`` are compared with times: ISO 8601 with its zone, ten digits of epoch seconds or thirteen
    of milliseconds; any other number is in the field's own unit (``at`` milliseconds, ``expires_at`` seconds).

    Raises:
        NoSuchCondition: There is no such field or tag, a term is no comparison, or a time cannot be read.
    """
    terms = [_term(term) for term in text.split(",")]
    return lambda step: all(term(step) for term in terms)


def _term(text: str) -> Condition:
    matched = _TERM.fullmatch(text)
    if matched is None:
        raise NoSuchCondition(f"{text.strip()!r} is no condition; say phase=valid, tag=refreshed or generation>=3")
    field, operator, wanted = matched.groups()
    if field not in (*_OF_EVENT, *_OF_STATE, *_OF_PLACE):
        known = ", ".join(sorted((*_OF_EVENT, *_OF_STATE, *_OF_PLACE)))
        raise NoSuchCondition(f"there is no field {field!r} to stop at; there are {known}")
    if field == "tag":
        wanted = _tag(wanted)
    if operator in _ORDER:
        return _ordered(field, _ORDER[operator], wanted)
    same = eq if operator == "=" else ne
    if field in _UNIT_MS and wanted != "none":
        bound = _bound(field, wanted)
        return lambda step: same(_value(step, field), bound)
    return lambda step: same(_holds(step, field, wanted), True)


def _tag(wanted: str) -> str:
    try:
        return full_tag(wanted)
    except ValueError as error:
        raise NoSuchCondition(str(error)) from error


def _ordered(field: str, compare: Callable[[Any, Any], bool], wanted: str) -> Condition:
    bound = _bound(field, wanted)

    def holds(step: Step) -> bool:
        value = _value(step, field)
        return isinstance(value, int) and compare(value, bound)

    return holds


def _bound(field: str, wanted: str) -> int:
    is_whole = _WHOLE.fullmatch(wanted) is not None
    if field not in _UNIT_MS:
        if not is_whole:
            raise NoSuchCondition(f"{field} can be compared with a whole number, not with {wanted[:80]!r}")
        return int(wanted)
    if is_whole:
        told_apart = epoch_ms(int(wanted))
        return int(wanted) if told_apart is None else told_apart // _UNIT_MS[field]
    try:
        read = parse_iso(wanted)
    except NotATime as error:
        raise NoSuchCondition(f"{field} can be compared with a time: {str(error).removesuffix('.')}") from None
    if read.assumed_utc:
        raise NoSuchCondition(f"{field} is compared with a time that names its zone, such as 2025-01-31T12:00Z")
    return read.at_ms // _UNIT_MS[field]


def _holds(step: Step, field: str, wanted: str) -> bool:
    if field == "changed":
        return wanted in step.changed
    return _as_text(_value(step, field)) == wanted


def _value(step: Step, field: str) -> Any:
    if field in _OF_STATE:
        return getattr(step.after, field)
    if field in _OF_EVENT:
        value = getattr(step.recorded.event, field, None)
        return value.id if isinstance(value, OpenAttempt) else value
    return {
        "tag": step.recorded.event.tag,
        "key": str(step.recorded.key),
        "position": step.recorded.position,
        "version": step.recorded.version,
    }.get(field)


def _as_text(value: Any) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
