"""Token store errors: their texts, and that they cross a process boundary."""

import pickle

import pytest

from ledger.keys import LeaseKey
from ledger.store_errors import (
    KeyringUnavailable,
    TokenIOError,
    TokenPermissionDenied,
    TokensChanged,
    TokenSerializationError,
    TokensNotFound,
    TokenStoreError,
    TokenStoreUnavailable,
)

KEY = LeaseKey("dev", "openai", "work")

ERRORS = [
    (TokenIOError("disk full"), "io error: disk full"),
    (TokenSerializationError("no object"), "serialization error: no object"),
    (KeyringUnavailable("no bus"), "keyring backend unavailable: no bus"),
    (TokenPermissionDenied("mode 0644"), "permission denied: mode 0644"),
    (TokenStoreUnavailable("no route"), "backend unavailable: no route"),
    (TokensNotFound(KEY), "no credentials found for dev:openai"),
    (
        TokensChanged(KEY, None, "e2"),
        "stored tokens of dev:openai:work changed: expected no known event, found event e2",
    ),
]


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=lambda case: type(case).__name__)
def test_every_error_reads_as_it_should_and_is_a_store_error(error: TokenStoreError, text: str) -> None:
    assert isinstance(error, TokenStoreError)
    assert str(error) == text
    assert text.endswith(error.detail)


@pytest.mark.parametrize(("error", "text"), ERRORS, ids=lambda case: type(case).__name__)
def test_every_error_survives_pickling(error: TokenStoreError, text: str) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == text
    assert vars(again) == vars(error)


def test_a_lost_compare_and_swap_names_the_key_and_both_events() -> None:
    error = TokensChanged(KEY, "e1", "e2")
    assert (error.key, error.expected, error.found) == (KEY, "e1", "e2")


def test_tokens_not_found_keeps_the_whole_key() -> None:
    assert TokensNotFound(KEY).key == KEY
