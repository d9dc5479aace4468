"""What a person means by a time. Whatever has two readings is refused, with both of them named.

* ``2026-01-31T12:00:00.5+02:00``: ISO 8601, to the millisecond; what is finer is cut off. ``T`` may be a space, the
  seconds and their fraction may be missing. Also in the basic form, ``20260131T100000Z``.
* Without a zone it is UTC, and :attr:`ReadTime.assumed_utc` says that this was assumed. A date alone is its midnight.
* ``1769860800``: ten digits are epoch seconds, thirteen epoch milliseconds (both from 2001 to 2286, so that no number
  is plausible as both); ``0`` is 1970 either way. A fraction is allowed. Any other number is ambiguous.
* ``now``; ``2h ago``, or ``2h`` for short: seconds, minutes, hours, days or weeks (``s m h d w``) before now.
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Final, NamedTuple

from projections.times.showing import utc_text

__all__ = ["TIME_HELP", "NotATime", "ReadTime", "epoch_ms", "parse_iso", "parse_time"]

TIME_HELP: Final = (
    "a time looks like 2025-01-31T12:00+02:00 (UTC when it names no zone), 1738324800 (epoch seconds, or "
    "milliseconds), now, or 15m ago (s, m, h, d, w)"
)
"""How a time may be written, for errors, and for the help of an option that takes one."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1)
_LONGEST: Final = 64
_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SECONDS: Final = range(10**9, 10**10)
_MILLISECONDS: Final = range(10**12, 10**13)

_AGO: Final = re.compile(r"([0-9]+) ?([smhdw])(?: ago)?")
_NUMBER: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?")
_ZONE: Final = r"(?P<zone> ?(?:Z|UTC)| ?[+-][0-9]{2}(?::?[0-9]{2})?)?"
_EXTENDED: Final = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    rf"{_ZONE})?",
    re.IGNORECASE,
)
_BASIC: Final = re.compile(
    r"(?P<year>[0-9]{4})(?P<month>[0-9]{2})(?P<day>[0-9]{2})"
    r"T(?P<hour>[0-9]{2})(?P<minute>[0-9]{2})(?:(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?"
    rf"{_ZONE}",
    re.IGNORECASE,
)


_PARTS: Final = ("year", "month", "day", "hour", "minute", "second")


class NotATime(ValueError):
    """A text is no time, or could be two; the message says why, in one line."""


class ReadTime(NamedTuple):
    """A time as it was understood.

    Attributes:
        at_ms: Epoch milliseconds.
        assumed_utc: Whether it named no zone, so that UTC was assumed.
    """

    at_ms: int
    assumed_utc: bool = False


def parse_time(text: str, now_ms: int) -> ReadTime:
    """Read a time in any of the forms above. Blanks around it do not count.

    Args:
        text: What was written.
        now_ms: What ``now`` and ``ago`` mean, epoch milliseconds.

    Raises:
        NotATime: It is none, lies outside the calendar, or has two readings.
    """
    said = text.strip(" \t\r\n")
    if len(said) > _LONGEST:
        raise NotATime(f"{said[:_LONGEST]!r}... is no time: it is too long; {TIME_HELP}.")
    if said == "now":
        return ReadTime(now_ms)
    ago = _AGO.fullmatch(said)
    if ago is not None:
        return ReadTime(_before(now_ms, int(ago[1]) * _UNITS_MS[ago[2]], said))
    number = _NUMBER.fullmatch(said)
    if number is not None:
        return ReadTime(_from_epoch(int(number[1]), number[2], said))
    return parse_iso(said)


def parse_iso(text: str) -> ReadTime:
    """Read an ISO 8601 date, or date and time.

    Raises:
        NotATime: It is none, or no time of the calendar.
    """
    found = _EXTENDED.fullmatch(text) or _BASIC.fullmatch(text)
    if found is None:
        raise NotATime(f"{text[:_LONGEST]!r} is no time; {TIME_HELP}.")
    if found["second"] == "60":
        raise NotATime(f"{text!r} is no time: epoch time has no leap seconds; write :59, or the next :00.")
    zone = found["zone"]
    year, month, day, hour, minute, second = (int(found[name] or 0) for name in _PARTS)
    try:
        at = datetime(year, month, day, hour, minute, second, tzinfo=_zone(zone))
    except ValueError as error:
        raise NotATime(f"{text!r} is no time of the calendar: {error}.") from None
    return ReadTime((at - _EPOCH) // timedelta(seconds=1) * 1000 + _thousandths(found["fraction"]), zone is None)


def _thousandths(fraction: str | None) -> int:
    return int((fraction or "")[:3].ljust(3, "0"))


def _zone(text: str | None) -> timezone:
    named = (text or "").strip().upper()
    if named in ("", "Z", "UTC"):
        return UTC
    digits = named[1:].replace(":", "").ljust(4, "0")
    hours, minutes = int(digits[:2]), int(digits[2:])
    if hours > 23 or minutes > 59:
        raise ValueError(f"{named} is no zone")
    offset = timedelta(hours=hours, minutes=minutes)
    return timezone(-offset if named[0] == "-" else offset)


def _before(now_ms: int, duration_ms: int, text: str) -> int:
    at_ms = now_ms - duration_ms
    if at_ms < _FIRST_MS:
        raise NotATime(f"{text!r} is no time of the calendar: it lies before the year 1.")
    return at_ms


def epoch_ms(number: int) -> int | None:
    """A number as epoch milliseconds, if its digits tell seconds from milliseconds; else ``None``."""
    if number in _SECONDS:
        return number * 1000
    return number if number in _MILLISECONDS or number == 0 else None


def _from_epoch(whole: int, fraction: str | None, text: str) -> int:
    told_apart = epoch_ms(whole)
    if told_apart is not None and (whole or not int(fraction or 0)):
        return told_apart + (_thousandths(fraction) if whole in _SECONDS else 0)
    raise NotATime(f"{text!r} {_readings(whole, text)}; write it as a date.")


def _readings(whole: int, text: str) -> str:
    in_seconds, in_milliseconds = utc_text(whole * 1000), utc_text(whole)
    if in_milliseconds is None:
        return "is no time: no calendar reaches that far, neither in seconds nor in milliseconds"
    seconds = f"{in_seconds or 'beyond the calendar'} in epoch seconds"
    named_day = f", or the day {text[:4]}-{text[4:6]}-{text[6:]}" if _is_day(text) else ""
    return f"is ambiguous: {seconds}, {in_milliseconds} in epoch milliseconds{named_day}"


def _is_day(text: str) -> bool:
    try:
        parse_iso(f"{text}T0000Z")
    except NotATime:
        return False
    return True
