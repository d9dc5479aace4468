"""The arguments and options that choose events: by lease, by kind, by time."""

import functools
from collections.abc import Callable
from typing import Any

import click

from ledger.keys import LeaseKey
from projections.cli.moments import read_time
from projections.cli.session import keys_argument
from projections.export import Selection

__all__ = ["selection_options"]


def _selection(keys: tuple[LeaseKey, ...], since: int | None, until: int | None, tags: tuple[str, ...]) -> Selection:
    full = tuple(tag if tag.startswith("lease.") else f"lease.{tag}" for tag in tags)
    try:
        return Selection(keys or None, since, until, full or None)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error


def selection_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``[KEY]...``, ``--tag``, ``--since`` and ``--until``, which the command gets as one ``selection``."""

    @functools.wraps(command)
    def chosen(
        *arguments: Any,
        keys: tuple[LeaseKey, ...],
        since: int | None,
        until: int | None,
        tags: tuple[str, ...],
        **options: Any,
    ) -> Any:
        return command(*arguments, selection=_selection(keys, since, until, tags), **options)

    wrapped: Callable[..., Any] = chosen
    for option in (
        click.option("--until", metavar="TIME", type=read_time, help="Only up to this time."),
        click.option("--since", metavar="TIME", type=read_time, help="Only from this time on, such as 2h (ago)."),
        click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only this kind; may be repeated."),
        keys_argument,
    ):
        wrapped = option(wrapped)
    return wrapped
