"""The options that choose events: by lease, by kind, by time."""

import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from ledger.keys import IdentityError, LeaseKey
from projections.export import TAGS, Selection

__all__ = ["selection_options"]

_EPOCH: Final = datetime.fromtimestamp(0, UTC)
_DATED: Final = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?", re.IGNORECASE)


def _moment(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Epoch milliseconds of a date, a date and time (UTC unless it names a zone), or epoch milliseconds."""
    if value is None or (value.isascii() and value.isdigit()):
        return None if value is None else int(value)
    try:
        if not _DATED.fullmatch(value):
            raise ValueError(value)
        at = datetime.fromisoformat(value.upper())
    except ValueError:
        raise click.BadParameter(
            f"{value!r} is no time; write 2026-01-31, 2026-01-31T12:00:00Z or epoch milliseconds.", context, parameter
        ) from None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)


def _keys(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[LeaseKey, ...] | None:
    try:
        return tuple(map(LeaseKey.parse, values)) or None
    except IdentityError as error:
        raise click.BadParameter(f"{error}.", context, parameter) from error


_OPTIONS: Final = (
    click.option("--until", callback=_moment, metavar="TIME", help="Only up to this time."),
    click.option("--since", callback=_moment, metavar="TIME", help="Only from this time on."),
    click.option(
        "--event", "tags", multiple=True, type=click.Choice(TAGS), metavar="TAG", help="Only this kind; repeatable."
    ),
    click.option("--key", "keys", multiple=True, callback=_keys, metavar="KEY", help="Only this lease; repeatable."),
)


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--key``, ``--event``, ``--since`` and ``--until``, which the command gets as one ``selection``."""

    @functools.wraps(command)
    def chosen(
        *arguments: Any,
        keys: tuple[LeaseKey, ...] | None,
        since: int | None,
        until: int | None,
        tags: tuple[str, ...],
        **options: Any,
    ) -> Any:
        return command(*arguments, selection=Selection(keys, since, until, tags or None), **options)

    wrapped: Callable[..., Any] = chosen
    for option in _OPTIONS:
        wrapped = option(wrapped)
    return wrapped
