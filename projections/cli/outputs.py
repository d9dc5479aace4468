"""The file that a command writes, or standard output for ``-``."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import click

from projections.cli.session import Session
from projections.cli.terminal import is_terminal, write_line
from projections.output_files import OutputRefused, OwnKind, checked_target, nothing_of_ours, output_file
from projections.printable import printable_json

__all__ = ["FILE", "force_option", "is_standard", "new_file", "written"]

FILE: Final = click.Path(path_type=Path, allow_dash=True)
"""The type of an argument that names a file to write or read; ``-`` is standard output or input."""

force_option: Final = click.option(
    "--force", is_flag=True, help="Replace another file that is there; a ledger, an audit file or tokens never."
)
"""``--force``: the one name of it in all commands."""


def is_standard(file: Path) -> bool:
    """Whether standard output, or input, is meant."""
    return str(file) == "-"


@contextlib.contextmanager
def written(session: Session, file: Path, *, own_kind: OwnKind = nothing_of_ours, force: bool) -> Iterator[BinaryIO]:
    """What the block writes becomes the file, whole or not at all.

    Raises:
        OutputRefused: Something is there that is not to be replaced, or the file would lie among the tokens.
        OSError: Writing failed.
    """
    if is_standard(file):
        with _standard_output() as shown:
            yield shown
        return
    new_file(session, file)
    with output_file(file, own_kind=own_kind, overwrite=force) as out:
        yield out


@contextlib.contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    if not is_terminal():
        given = sys.stdout.buffer
        # Unbuffered (PYTHONUNBUFFERED), it may write a part of what it is given, and say nothing.
        if isinstance(given, io.RawIOBase):
            whole = io.BufferedWriter(given)
            try:
                yield whole
                whole.flush()
            finally:
                with contextlib.suppress(OSError):
                    whole.detach()
            return
        yield given
        given.flush()
        return
    page = io.BytesIO()
    yield page
    for line in page.getvalue().decode().removesuffix("\n").split("\n"):
        write_line(printable_json(line))


def new_file(session: Session, file: Path) -> Path:
    """The absolute path of a file to make, which may not lie in the session's token folder.

    Raises:
        OutputRefused: It would lie there, there is no such folder, or its name belongs to a ledger beside it.
    """
    target = checked_target(file)
    tokens = session.store
    if tokens and "://" not in tokens and target.is_relative_to(Path(tokens).resolve()):
        raise OutputRefused(str(file), "the token folder holds tokens and nothing else; name another folder")
    return target
