"""How a command ends: one line on standard error that says what is wrong, and an exit code that says whose fault."""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from projections.cli.exit_codes import EXIT_CODES, Exit
from projections.cli.failing import fail
from projections.cli.signals import ending_when_told

__all__ = ["EXIT_CODES", "Exit", "QuietGroup"]


class QuietGroup(click.Group):
    """A group of commands that never shows a traceback, and every error as one line or one JSON object."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """Run a command; ends the process unless ``standalone_mode`` is off."""
        given = sys.argv[1:] if args is None else list(args)
        with ending_when_told() as told:
            code = self._run(given, *rest, **extra)
            _give_up_unwritten_output()
        told.die()
        if not standalone_mode:
            return code
        sys.exit(code)

    def _run(self, args: list[str], *rest: Any, **extra: Any) -> int:
        as_json = _asks_for_json(args)
        if sys.stdout is None:
            return fail(OSError(errno.EBADF, "it is closed, and nothing was done", "standard output"), as_json=as_json)
        run: Any = super().main
        try:
            result = run(args, *rest, standalone_mode=False, **extra)
            if not sys.stdout.closed:
                sys.stdout.flush()
        except BrokenPipeError:
            return _pipe_closed()
        except click.exceptions.NoArgsIsHelpError as error:
            return _which_command(error, as_json)
        except (click.Abort, KeyboardInterrupt):
            return fail(KeyboardInterrupt(), as_json=as_json)
        except Exception as error:
            return fail(error, as_json=as_json)
        return result if isinstance(result, int) else Exit.OK

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an interrupt leaves no line behind."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            # click would write an empty line first.
            raise click.Abort from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise click.exceptions.Exit(_pipe_closed()) from None
            raise


def _asks_for_json(args: Sequence[str]) -> bool:
    options = args[: args.index("--")] if "--" in args else args
    return "--json" in options


def _which_command(error: click.exceptions.NoArgsIsHelpError, as_json: bool) -> int:
    if as_json:
        return fail(click.UsageError("which command?", error.ctx), as_json=True)
    click.echo(error.format_message(), err=True)
    return Exit.USAGE


def _pipe_closed() -> int:
    _give_up_output()
    return Exit.PIPE_CLOSED


def _give_up_unwritten_output() -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError):
        _give_up_output()


def _give_up_output() -> None:
    # What is still buffered would be tried again, and complained about, when the process ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
