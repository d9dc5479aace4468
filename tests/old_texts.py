"""Texts that today's commands refuse and that version 0.1.0 recorded: ledgers that hold them are still about."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ledger import execution

__all__ = ["as_version_0_1_0_recorded"]


@contextmanager
def as_version_0_1_0_recorded() -> Iterator[None]:
    """Within the block, commands take any text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "check_text", lambda _, value: value)
        patch.setattr(execution, "check_body", lambda body: body)
        yield
