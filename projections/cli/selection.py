"""The arguments and options that choose events: by lease, by kind, by time."""

import functools
from collections.abc import Callable
from typing import Any, Final

import click

from ledger.keys import LeaseKey
from projections.cli.moments import time_option
from projections.cli.session import keys_argument
from projections.export import Selection
from projections.tags import full_tag

__all__ = ["selection_options", "tag_option"]


def _read_tag(text: str) -> str:
    """A kind of event, in full.

    Raises:
        click.BadParameter: There is no such kind; the message names those there are.
    """
    try:
        return full_tag(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from error


tag_option: Final = click.option(
    "--tag",
    "tags",
    multiple=True,
    metavar="TAG",
    type=_read_tag,
    help="Only this kind, such as refreshed; may be repeated.",
)
"""``--tag TAG``, as often as one likes."""


def _selection(keys: tuple[LeaseKey, ...], since: int | None, until: int | None, tags: tuple[str, ...]) -> Selection:
    return Selection(keys or None, since, until, tags or None)


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
        time_option("--until", "until", "Only up to this time."),
        time_option("--since", "since", "Only from this time on."),
        tag_option,
        keys_argument,
    ):
        wrapped = option(wrapped)
    return wrapped
