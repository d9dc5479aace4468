"""Moments on a command line: times, and stream versions where either may stand."""

import re
import time
from datetime import UTC, datetime
from typing import Final

import click

from projections.time_travel import At, When

__all__ = ["moment_options", "read_moment", "read_time"]

_AGO: Final = re.compile(r"(\d+)([smhd])")
_UNITS_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_HOW: Final = "a time looks like 2025-01-31T12:00:00Z, 1738324800000 (epoch milliseconds) or 15m (ago: s, m, h, d)"


def _time_ms(text: str) -> int | None:
    """Epoch milliseconds of a time; ``None`` when it is none."""
    if text.isdecimal():
        return int(text)
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return time.time_ns() // 1_000_000 - int(ago[1]) * _UNITS_MS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def read_time(text: str) -> int:
    """A time as epoch milliseconds. Without a time zone it is in UTC.

    Raises:
        click.BadParameter: It is none; the message says how one looks.
    """
    found = _time_ms(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no time; {_HOW}.")
    return found


def read_moment(text: str) -> When:
    """A stream version, or a time; epoch milliseconds are told from a version by a leading ``@``.

    Raises:
        click.BadParameter: It is neither; the message says how they look.
    """
    if text.isdecimal():
        return int(text)
    found = _time_ms(text.removeprefix("@"))
    if found is None:
        raise click.BadParameter(f"{text!r} is no moment; a version is a number, and {_HOW}, the number after an @.")
    return At(found)


def moment_options(command: click.decorators.FC) -> click.decorators.FC:
    """``--version`` and ``--at``."""
    version = click.option("--version", "version", metavar="N", type=click.IntRange(min=0), help="After this event.")
    at = click.option(
        "--at", "at_ms", metavar="TIME", type=read_time, help="At this time, such as 2025-01-31T12:00Z or 15m."
    )
    return version(at(command))
