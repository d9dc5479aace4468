"""The options that choose an incident, from a ledger or a saved file, and those that change its history."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import click

from ledger.commands import Acquire, Command, MarkExpiring, MarkReauthRequired, Release
from ledger.keys import IdentityError, LeaseKey
from projections.cli.moments import time_option
from projections.cli.outputs import FILE, is_standard
from projections.cli.session import Session
from projections.incident import Change, Incident, Insertion
from projections.incident.bundle import LONGEST_BYTES
from projections.input_files import read_standard_input

__all__ = [
    "Choice",
    "change_from",
    "change_options",
    "choice_options",
    "chosen_incident",
    "file_option",
    "loaded_incident",
]

_INSERTABLE: Final[dict[str, Callable[[], Command]]] = {
    "login": lambda: Acquire(None),
    "expiring": MarkExpiring,
    "reauth": MarkReauthRequired,
    "logout": Release,
}


_POSITION: Final = re.compile(r"[0-9]{1,19}")


class Choice(NamedTuple):
    """Which incident.

    Attributes:
        since: Epoch milliseconds.
        until: Epoch milliseconds.
        correlation_id: What its events are filed under.
        attempt: A refresh attempt.
    """

    since: int | None
    until: int | None
    correlation_id: str | None
    attempt: str | None


def choice_options(command: click.decorators.FC) -> click.decorators.FC:
    """``--since``, ``--until``, ``--correlation-id`` and ``--attempt``."""
    for option in (
        click.option("--attempt", metavar="ID", help="A refresh attempt, with what had published what it spent."),
        click.option("--correlation-id", metavar="ID", help="From the first to the last event filed under this."),
        time_option("--until", "until", "Only up to this time."),
        time_option("--since", "since", "Only from this time on."),
    ):
        command = option(command)
    return command


def change_options(command: click.decorators.FC) -> click.decorators.FC:
    """``--without``, ``--move``, ``--refuse`` and ``--insert``."""
    for option in (
        click.option(
            "--insert",
            "inserted",
            nargs=3,
            multiple=True,
            metavar="POSITION KEY WHAT",
            help=f"What if this had come after that position? One of {', '.join(_INSERTABLE)}.",
        ),
        click.option("--refuse", "refused", multiple=True, metavar="ATTEMPT", help="What if it had been refused?"),
        click.option(
            "--move",
            "moved",
            nargs=2,
            multiple=True,
            type=int,
            metavar="POSITION AFTER",
            help="Had it come after that?",
        ),
        click.option("--without", multiple=True, type=int, metavar="POSITION", help="What if it had not happened?"),
    ):
        command = option(command)
    return command


def chosen_incident(session: Session, keys: tuple[LeaseKey, ...], choice: Choice, file: Path | None) -> Incident:
    """The incident from a saved file, or chosen in the session's ledger.

    Raises:
        click.UsageError: A file and a choice were both given.
        BundleRefused: The file is not what was saved.
        InputRefused: The file cannot be read.
        NothingSelected: No event answers the choice.
        LedgerStorageError: The ledger cannot be read.
    """
    if file is None:
        with session.ledger(keys=keys) as ledger:
            return Incident.select(ledger, keys, **choice._asdict())
    if keys or any(value is not None for value in choice):
        raise click.UsageError("a saved incident was chosen already: give a file, or keys and times.")
    return loaded_incident(file)


def loaded_incident(file: Path) -> Incident:
    """A saved incident, from a file or, for ``-``, from standard input.

    Raises:
        BundleRefused: It is not what was saved.
        InputRefused: There is no such file, it is no regular one or too long, or it cannot be read.
    """
    if not is_standard(file):
        return Incident.load(file)
    return Incident.of_bytes(read_standard_input(most_bytes=LONGEST_BYTES))


def change_from(
    without: tuple[int, ...],
    moved: tuple[tuple[int, int], ...],
    refused: tuple[str, ...],
    inserted: tuple[tuple[str, str, str], ...],
) -> Change | None:
    """The change of history that the options ask for; ``None`` for none.

    Raises:
        click.UsageError: An insertion cannot be read.
    """
    if not any((without, moved, refused, inserted)):
        return None
    return Change(without, moved, [_insertion(*one) for one in inserted], refused)


def _insertion(position: str, key: str, what: str) -> Insertion:
    if not _POSITION.fullmatch(position) or what not in _INSERTABLE:
        raise click.UsageError(
            f"--insert takes a position, a key and one of {', '.join(_INSERTABLE)}, not {position} {key} {what}."
        )
    try:
        return Insertion(int(position), LeaseKey.parse(key), _INSERTABLE[what]())
    except IdentityError as error:
        raise click.UsageError(f"{error}.") from error


def file_option(**attributes: Any) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """``--incident FILE``."""
    return click.option("--incident", "file", metavar="FILE", type=FILE, **attributes)
