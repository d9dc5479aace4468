"""Moments on a command line: times, and stream versions where either may stand."""

import time
from collections.abc import Callable
from typing import Final

import click

from projections.cli.terminal import write_line
from projections.time_travel import At, When
from projections.times import TIME_HELP, NotATime, parse_time, utc_from_ms

__all__ = ["moment_argument", "moment_options", "tell_assumed_utc", "time_option"]

_NOW: Final = f"{__name__}.now_ms"
_ASSUMED_UTC: Final = f"{__name__}.assumed_utc"
_LEAST_TIME: Final = 10**9
_HELP: Final = f"{TIME_HELP[0].upper()}{TIME_HELP[1:]}."


def _read_time(context: click.Context, parameter: click.Parameter, text: str | None) -> int | None:
    try:
        return None if text is None else _read(context, parameter, text)
    except NotATime as error:
        raise click.BadParameter(f"{error}", context, parameter) from None


def _read(context: click.Context, parameter: click.Parameter, text: str) -> int:
    # All times of one command are told from the same now.
    now_ms: int = context.meta.setdefault(_NOW, time.time_ns() // 1_000_000)
    read = parse_time(text, now_ms)
    if read.assumed_utc:
        name = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.make_metavar(context)
        told: list[str] = context.meta.setdefault(_ASSUMED_UTC, [])
        told.append(f"{name} {text.strip()} names no time zone; it was taken as UTC, {utc_from_ms(read.at_ms)}")
    return read.at_ms


def _read_moment(context: click.Context, parameter: click.Parameter, text: str) -> When:
    number = text.isascii() and text.isdecimal()
    if number and len(text) <= len(str(_LEAST_TIME)) and int(text) < _LEAST_TIME:
        return int(text)
    try:
        return At(_read(context, parameter, text.removeprefix("@")))
    except NotATime as error:
        told = f"{text[:80]!r} is no moment; a version is a number below {_LEAST_TIME}, and {error}"
        raise click.BadParameter(told, context, parameter) from None


def tell_assumed_utc() -> None:
    """Say on standard error, once, which times of this command were taken as UTC."""
    context = click.get_current_context()
    for told in context.meta.pop(_ASSUMED_UTC, ()):
        write_line(f"lease-ledger: {told}", err=True)


def time_option(name: str, variable: str, what: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """An option that takes a time, which the command gets as epoch milliseconds.

    Args:
        name: Such as ``--since``.
        variable: The command's parameter.
        what: What the time is for, as the help says it.
    """
    return click.option(name, variable, metavar="TIME", callback=_read_time, help=f"{what} {_HELP}")


def moment_argument(name: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """An argument that is a stream version or a time: below a thousand million a number is a version."""
    return click.argument(name, callback=_read_moment)


def moment_options(command: click.decorators.FC) -> click.decorators.FC:
    """``--version`` and ``--at``."""
    version = click.option("--version", "version", metavar="N", type=click.IntRange(min=0), help="After this event.")
    return version(time_option("--at", "at_ms", "At this time.")(command))
