"""What a command that failed says on standard error: one line for people, or one JSON object for programs."""

import contextlib
import traceback
from typing import Final

import click
import msgspec

from ledger.addresses import without_passwords
from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from projections.cli.error_codes import kind_of
from projections.cli.exit_codes import Exit
from projections.cli.terminal import write_json, write_line
from projections.known_keys import UnknownKey
from projections.printable import printable

__all__ = ["Failed", "Failure", "fail"]

_LONGEST: Final = 2_000


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a command failed.

    Attributes:
        code: What kind of error, by a word that stays the same; :data:`projections.cli.error_codes.ERRORS` lists them.
        message: The same in words, for people.
        exit_code: The exit code of the command.
        key: The lease key it is about, where there is one.
        suggestions: For an unknown key, those that may have been meant.
    """

    code: str
    message: str
    exit_code: int
    key: str | None = None
    suggestions: tuple[str, ...] = ()


class Failed(msgspec.Struct, frozen=True):
    """What stands on standard error under ``--json`` when a command failed."""

    error: Failure


def fail(error: BaseException, *, as_json: bool) -> int:
    """Say what went wrong, and return the exit code.

    Args:
        error: What ended the command.
        as_json: Whether a program reads it. People are told nothing about an interrupt, for they made it.
    """
    kind = kind_of(error)
    # Nobody may be there to hear it.
    with contextlib.suppress(OSError):
        if as_json:
            write_json(Failed(_failure(error)), err=True)
        elif kind.exit is not Exit.INTERRUPTED:
            write_line(f"lease-ledger: {_shown(error)}", err=True)
    return kind.exit


def _failure(error: BaseException) -> Failure:
    kind = kind_of(error)
    key = getattr(error, "key", None)
    return Failure(
        kind.code,
        _shown(error),
        int(kind.exit),
        str(key) if isinstance(key, LeaseKey) else None,
        error.suggestions if isinstance(error, UnknownKey) else (),
    )


def _shown(error: BaseException) -> str:
    text = printable(_text(error))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 200]} ... {text[-190:]}"


def _text(error: BaseException) -> str:
    if isinstance(error, click.ClickException):
        return without_passwords(_usage_text(error))
    if isinstance(error, LeaseLedgerError):
        # Their texts are made to be shown, and hold no secret.
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    if isinstance(error, MemoryError):
        return "there is not enough memory for this; ask for less"
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    # The text of an unforeseen error may quote a secret, so only its place is told.
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} at {place.filename}:{place.lineno}; please report it"


def _usage_text(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message()} See '{error.ctx.command_path} --help'."
    return error.format_message()
