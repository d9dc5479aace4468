"""What is read whole is bounded, and never read from where nothing is."""

import sys

import pytest

from projections.input_files import InputRefused, read_standard_input


def test_a_standard_input_that_is_closed_is_refused_as_an_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputRefused, match="standard input: it is closed"):
        read_standard_input(most_bytes=10)
