"""How a command ends: one line on standard error that says what is wrong, and an exit code that says whose fault."""

import errno
import os
import sys
import traceback
from enum import IntEnum
from typing import Any

import click

from ledger.errors import CorruptHistory, LeaseLedgerError, LedgerStorageError, UnknownEventTag
from ledger.keys import IdentityError
from ledger.lifecycle import TokenLifecycleClearError
from ledger.refresh_errors import TokensNotSaved
from ledger.store_errors import TokensChanged, TokenStoreError
from projections.cli.text import printable

__all__ = ["EXIT_CODES", "Exit", "QuietGroup"]


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    STORAGE = 3
    VERIFICATION_FAILED = 4
    INTERRUPTED = 130
    PIPE_CLOSED = 141


EXIT_CODES = (
    "Exit codes: 0 all is well; 1 refused, nothing changed; 2 wrong usage; 3 the ledger, its history or a store "
    "cannot be used; 4 verification found something; 130 interrupted."
)

_STORAGE = (
    LedgerStorageError,
    CorruptHistory,
    UnknownEventTag,
    TokenStoreError,
    TokenLifecycleClearError,
    TokensNotSaved,
)


class QuietGroup(click.Group):
    """A group of commands that never shows a traceback, and every error as one line."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command; ends the process unless ``standalone_mode`` is off."""
        code = self._run(*args, **extra)
        if not standalone_mode:
            return code
        sys.exit(code)

    def _run(self, *args: Any, **extra: Any) -> int:
        run: Any = super().main
        try:
            result = run(*args, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (click.Abort, KeyboardInterrupt):
            return Exit.INTERRUPTED
        except BrokenPipeError:
            return _pipe_closed()
        except click.ClickException as error:
            return _fail(_usage_text(error), error.exit_code)
        except Exception as error:
            return _fail(_text(error), _code(error))
        return result if isinstance(result, int) else Exit.OK

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interrupt leaves no line behind."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(Exit.INTERRUPTED) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise click.exceptions.Exit(_pipe_closed()) from None
            raise


def _fail(text: str, code: int) -> int:
    click.echo(f"lease-ledger: {printable(text)}", err=True)
    return code


def _pipe_closed() -> int:
    # Whoever read the output has gone. What is still buffered must not be tried again when the process ends.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.PIPE_CLOSED


def _usage_text(error: click.ClickException) -> str:
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message()} See '{error.ctx.command_path} --help'."
    return error.format_message()


def _code(error: Exception) -> Exit:
    if isinstance(error, IdentityError):
        return Exit.USAGE
    # A store in use by others is no broken store.
    if isinstance(error, _STORAGE) and not isinstance(error, TokensChanged):
        return Exit.STORAGE
    if isinstance(error, LeaseLedgerError):
        return Exit.REFUSED
    return Exit.STORAGE


def _text(error: Exception) -> str:
    if isinstance(error, LeaseLedgerError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}"
    # The text of an unforeseen error may quote a secret, so only its place is told.
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"unexpected {type(error).__name__} at {place.filename}:{place.lineno}; please report it"
