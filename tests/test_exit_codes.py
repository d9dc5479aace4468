"""Each kind of error ends a command with the exit code that says whose fault it was."""

import click
import pytest

from ledger import (
    IdentityError,
    KeyringUnavailable,
    LeaseKey,
    LeaseTransitionError,
    LedgerStorageError,
    PersistedAuthMode,
    PersistedTokens,
    ReauthRequired,
    TokenClearFailed,
    TokenIOError,
    TokensChanged,
    TokensNotSaved,
)
from projections.cli.exits import Exit, QuietGroup

KEY = LeaseKey("dev", "openai")

CODES: list[tuple[Exception, Exit]] = [
    (LeaseTransitionError("release(dev:openai)", "guard_rejected", "it is over"), Exit.REFUSED),
    (ReauthRequired(KEY, "refused for good"), Exit.REFUSED),
    (TokensChanged(KEY, None, "e2"), Exit.REFUSED),
    (IdentityError("identity slug is empty", kind="empty"), Exit.USAGE),
    (LedgerStorageError("the disk is full"), Exit.STORAGE),
    (TokenIOError("the disk is full"), Exit.STORAGE),
    (KeyringUnavailable("no bus"), Exit.STORAGE),
    (TokenClearFailed(TokenIOError("the disk is full")), Exit.STORAGE),
    (TokensNotSaved(KEY, PersistedTokens(PersistedAuthMode.EXTERNAL_TOKENS)), Exit.STORAGE),
]


@pytest.mark.parametrize(("error", "code"), CODES, ids=lambda case: type(case).__name__)
def test_an_error_ends_the_command_with_its_text_and_its_code(
    error: Exception, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    @click.group(cls=QuietGroup)
    def cli() -> None: ...

    @cli.command()
    def fail() -> None:
        raise error

    assert cli.main(["fail"], standalone_mode=False) == code
    assert capsys.readouterr().err == f"lease-ledger: {error}\n"
