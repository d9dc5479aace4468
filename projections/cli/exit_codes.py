"""The exit codes: whose fault it was that a command did not do what it was asked."""

from enum import IntEnum
from typing import Final

__all__ = ["EXIT_CODES", "Exit"]


class Exit(IntEnum):
    """The exit codes."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    STORAGE = 3
    VERIFICATION_FAILED = 4
    INTERRUPTED = 130
    PIPE_CLOSED = 141


EXIT_CODES: Final = (
    "Exit codes: 0 all is well; 1 refused, nothing changed; 2 wrong usage; 3 the ledger, its history or a store "
    "cannot be used; 4 verification found something; 130 interrupted. With --json an error is one JSON object on "
    'standard error: {"error": {"code": ..., "message": ..., "exit_code": ...}}; its code stays the same when the '
    "words change."
)
