"""The lifecycle marker: who carries one, what it keeps, and what a reader makes of a damaged one."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.marker import (
    TokenLifecyclePublication,
    mark_tokens_lifecycle_published,
    mark_tokens_lifecycle_published_for_generation,
    mark_tokens_lifecycle_published_for_snapshot,
    mark_tokens_lifecycle_published_for_transition,
    marker_attempt,
    marker_event,
    tokens_lifecycle_publication,
    tokens_lifecycle_publication_with_explicit_expiry,
    tokens_lifecycle_published,
    tokens_lifecycle_published_credential_time,
    tokens_lifecycle_published_generation,
)
from ledger.snapshot import MAX_U64, NEVER_EXPIRES, AuthLeasePhase, AuthLeaseSnapshot, AuthLeaseTransition
from ledger.tokens import PersistedAuthMode, PersistedTokens, persisted_auth_mode_uses_oauth_login_lifecycle

U64 = st.integers(0, MAX_U64)
TEXT = st.text(st.characters(codec="utf-8"))
NAMES = st.sampled_from(["meerkat_auth_lifecycle", "meerkat_previous_metadata", "k"])
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "event"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner, max_size=3),
    max_leaves=8,
)
OAUTH = [mode for mode in PersistedAuthMode if persisted_auth_mode_uses_oauth_login_lifecycle(mode)]
OTHERS = [mode for mode in PersistedAuthMode if mode not in OAUTH]


def _tokens(modes: list[PersistedAuthMode]) -> st.SearchStrategy[PersistedTokens]:
    return st.builds(
        PersistedTokens,
        auth_mode=st.sampled_from(modes),
        primary_secret=st.just("s"),
        expires_at=st.none() | st.integers(-(2**63), 2**63 - 1),
        metadata=JSON,
    )


Marking = Callable[[PersistedTokens], PersistedTokens]

MARKINGS: st.SearchStrategy[Marking] = st.one_of(
    st.just(mark_tokens_lifecycle_published),
    st.builds(
        lambda generation: lambda tokens: mark_tokens_lifecycle_published_for_generation(tokens, generation), U64
    ),
    st.builds(
        lambda generation, at, event, attempt: (
            lambda tokens: mark_tokens_lifecycle_published_for_transition(
                tokens, AuthLeaseTransition(generation, at, event_id=event, attempt=attempt)
            )
        ),
        U64,
        U64,
        st.none() | TEXT,
        st.none() | TEXT,
    ),
    st.builds(
        lambda generation, at, event: (
            lambda tokens: mark_tokens_lifecycle_published_for_snapshot(
                tokens,
                AuthLeaseSnapshot(
                    AuthLeasePhase.VALID,
                    credential_present=True,
                    generation=generation,
                    credential_published_at_millis=at,
                    published_by=event,
                ),
            )
        ),
        U64,
        st.none() | U64,
        st.none() | TEXT,
    ),
)


def _oauth(metadata: Any = None, expires_at: int | None = None) -> PersistedTokens:
    return PersistedTokens(
        PersistedAuthMode.CHATGPT_OAUTH, primary_secret="s", expires_at=expires_at, metadata=metadata
    )


def _with_marker(marker: str, expires_at: int | None = None) -> PersistedTokens:
    """Tokens with a marker read from literal JSON."""
    expiry = "null" if expires_at is None else expires_at
    return PersistedTokens.from_json(
        f'{{"auth_mode":"chatgpt_oauth","expires_at":{expiry},"metadata":{{"meerkat_auth_lifecycle":{marker}}}}}'
    )


# Marking


def test_only_oauth_logins_are_marked() -> None:
    marked = {
        mode.value
        for mode in PersistedAuthMode
        if tokens_lifecycle_published(mark_tokens_lifecycle_published(PersistedTokens(mode)))
    }
    assert marked == {
        "chatgpt_oauth",
        "external_tokens",
        "claude_ai_oauth",
        "oauth_to_api_key",
        "google_oauth",
    }


@given(_tokens(OTHERS), MARKINGS)
def test_tokens_of_any_other_mode_come_back_themselves(tokens: PersistedTokens, mark: Marking) -> None:
    assert mark(tokens) is tokens


def test_existing_metadata_is_preserved() -> None:
    tokens = _oauth({"provider": "openai", "nested": {"a": [1.0, 2**70]}})
    marked = mark_tokens_lifecycle_published(tokens)
    assert marked.metadata == {
        "provider": "openai",
        "nested": {"a": [1.0, 2**70]},
        "meerkat_auth_lifecycle": {"published": True, "version": 2, "expires_at": NEVER_EXPIRES},
    }
    assert tokens.metadata == {"provider": "openai", "nested": {"a": [1.0, 2**70]}}


@pytest.mark.parametrize("previous", ["text", 0, False, 1.5, [], [1]], ids=repr)
def test_metadata_that_is_no_object_moves_aside(previous: object) -> None:
    marked = mark_tokens_lifecycle_published(_oauth(previous))
    assert set(marked.metadata) == {"meerkat_auth_lifecycle", "meerkat_previous_metadata"}
    assert json.dumps(marked.metadata["meerkat_previous_metadata"]) == json.dumps(previous)


def test_null_metadata_leaves_nothing_behind() -> None:
    assert set(mark_tokens_lifecycle_published(_oauth(None)).metadata) == {"meerkat_auth_lifecycle"}


@given(_tokens(OAUTH), MARKINGS, MARKINGS)
def test_an_older_marker_is_replaced_whole(tokens: PersistedTokens, older: Marking, mark: Marking) -> None:
    assert mark(older(tokens)) == mark(tokens)


@given(_tokens(OAUTH), MARKINGS)
def test_marking_is_idempotent(tokens: PersistedTokens, mark: Marking) -> None:
    assert mark(mark(tokens)) == mark(tokens)


@given(_tokens(OAUTH), MARKINGS)
def test_marking_changes_nothing_but_the_metadata(tokens: PersistedTokens, mark: Marking) -> None:
    before = tokens.to_json()
    marked = mark(tokens)
    assert tokens_lifecycle_published(marked)
    assert msgspec.structs.replace(marked, metadata=None) == msgspec.structs.replace(tokens, metadata=None)
    assert tokens.to_json() == before


def test_a_transition_leaves_its_generation_time_event_and_attempt() -> None:
    transition = AuthLeaseTransition(7, 1_777_000_000_123, event_id="e1", attempt="a1", version=12)
    marked = mark_tokens_lifecycle_published_for_transition(_oauth(expires_at=-5), transition)
    assert marked.metadata["meerkat_auth_lifecycle"] == {
        "published": True,
        "version": 2,
        "expires_at": 0,
        "generation": 7,
        "credential_published_at_millis": 1_777_000_000_123,
        "event": "e1",
        "attempt": "a1",
    }
    assert (marker_event(marked), marker_attempt(marked)) == ("e1", "a1")
    assert tokens_lifecycle_publication(marked) == TokenLifecyclePublication(
        generation=7,
        expires_at=0,
        credential_published_at_millis=1_777_000_000_123,
        event="e1",
        attempt="a1",
    )


def test_a_snapshot_leaves_its_generation_even_at_0_and_its_time_and_event_only_if_known() -> None:
    marked = mark_tokens_lifecycle_published_for_snapshot(_oauth(expires_at=9), AuthLeaseSnapshot())
    assert marked.metadata["meerkat_auth_lifecycle"] == {
        "published": True,
        "version": 2,
        "expires_at": 9,
        "generation": 0,
    }
    known = AuthLeaseSnapshot(expires_at=1, credential_published_at_millis=0, published_by="e1")
    marked = mark_tokens_lifecycle_published_for_snapshot(_oauth(expires_at=9), known)
    assert marked.metadata["meerkat_auth_lifecycle"] == {
        "published": True,
        "version": 2,
        "expires_at": 9,
        "generation": 0,
        "credential_published_at_millis": 0,
        "event": "e1",
    }


@pytest.mark.parametrize("generation", [-1, MAX_U64 + 1, 1.0, True])
def test_a_number_no_reader_would_count_is_refused(generation: Any) -> None:
    with pytest.raises(ValueError, match="generation"):
        mark_tokens_lifecycle_published_for_generation(_oauth(), generation)
    with pytest.raises(ValueError, match="credential_published_at_millis"):
        mark_tokens_lifecycle_published_for_transition(_oauth(), AuthLeaseTransition(1, generation))


@given(_tokens(OAUTH), U64, U64, TEXT, TEXT)
def test_a_marker_survives_the_token_file(
    tokens: PersistedTokens, generation: int, at: int, event: str, attempt: str
) -> None:
    transition = AuthLeaseTransition(generation, at, event_id=event, attempt=attempt)
    marked = mark_tokens_lifecycle_published_for_transition(tokens, transition)
    publication = tokens_lifecycle_publication(marked)
    again = PersistedTokens.from_json(marked.to_json())
    assert tokens_lifecycle_publication(again) == publication
    assert tokens_lifecycle_publication_with_explicit_expiry(again) == publication


# Reading


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        "meerkat_auth_lifecycle",
        {},
        {"meerkat_auth_lifecycle": None},
        {"meerkat_auth_lifecycle": True},
        {"meerkat_auth_lifecycle": "published"},
        {"meerkat_auth_lifecycle": [{"published": True}]},
        {"meerkat_auth_lifecycle": {}},
        {"meerkat_auth_lifecycle": {"published": False}},
        {"meerkat_auth_lifecycle": {"published": 1}},
        {"meerkat_auth_lifecycle": {"published": 1.0}},
        {"meerkat_auth_lifecycle": {"published": "true"}},
        {"nested": {"meerkat_auth_lifecycle": {"published": True}}},
    ],
    ids=repr,
)
def test_anything_but_a_marker_that_says_published_is_no_publication(metadata: Any) -> None:
    tokens = _oauth(metadata)
    assert not tokens_lifecycle_published(tokens)
    assert tokens_lifecycle_published_generation(tokens) is None
    assert tokens_lifecycle_publication(tokens) is None
    assert tokens_lifecycle_publication_with_explicit_expiry(tokens) is None
    assert marker_event(tokens) is None
    assert marker_attempt(tokens) is None


@pytest.mark.parametrize("mode", PersistedAuthMode)
@pytest.mark.parametrize("version", ["", ',"version":1', ',"version":3', ',"version":"x"'])
def test_neither_mode_nor_version_of_a_marker_is_checked(mode: PersistedAuthMode, version: str) -> None:
    tokens = PersistedTokens.from_json(
        f'{{"auth_mode":"{mode.value}",'
        f'"metadata":{{"meerkat_auth_lifecycle":{{"published":true,"generation":3{version}}}}}}}'
    )
    assert tokens_lifecycle_published(tokens)
    assert tokens_lifecycle_published_generation(tokens) == 3


COUNTS = [("0", 0), ("-0", 0), ("7", 7), ("9007199254740993", 2**53 + 1), ("18446744073709551615", MAX_U64)]
DOES_NOT_COUNT = [
    "-1",
    "18446744073709551616",
    "1.0",
    "1e3",
    "-0.0",
    "0e0",
    "true",
    "false",
    '"7"',
    "[7]",
    "null",
    "{}",
]


@pytest.mark.parametrize(("text", "number"), [*COUNTS, *((text, None) for text in DOES_NOT_COUNT)], ids=str)
def test_only_json_integers_from_0_to_2_to_the_64_minus_1_count(text: str, number: int | None) -> None:
    tokens = _with_marker(
        f'{{"published":true,"generation":{text},"expires_at":{text},"credential_published_at_millis":{text}}}',
        expires_at=42,
    )
    assert _exactly(tokens_lifecycle_published_generation(tokens), number)
    assert _exactly(tokens_lifecycle_published_credential_time(tokens), number)
    plain = tokens_lifecycle_publication(tokens)
    assert plain is not None
    assert _exactly(plain.generation, number)
    assert _exactly(plain.credential_published_at_millis, number)
    assert plain.expires_at == (42 if number is None else number)
    explicit = tokens_lifecycle_publication_with_explicit_expiry(tokens)
    assert explicit == (None if number is None else plain)


def _exactly(found: int | None, expected: int | None) -> bool:
    return found == expected and type(found) is type(expected)


@pytest.mark.parametrize(("expires_at", "answer"), [(None, NEVER_EXPIRES), (-5, 0), (0, 0), (9, 9)])
def test_a_marker_without_an_expiry_gets_the_tokens_own_unless_it_must_be_explicit(
    expires_at: int | None, answer: int
) -> None:
    tokens = _with_marker('{"published":true}', expires_at)
    assert tokens_lifecycle_publication(tokens) == TokenLifecyclePublication(None, answer, None)
    assert tokens_lifecycle_publication_with_explicit_expiry(tokens) is None


@pytest.mark.parametrize("published", ['"published":false,', '"published":null,', ""])
def test_the_time_is_read_even_from_a_marker_that_does_not_say_published(published: str) -> None:
    tokens = _with_marker(f'{{{published}"credential_published_at_millis":99}}')
    assert tokens_lifecycle_published_credential_time(tokens) == 99
    assert tokens_lifecycle_publication(tokens) is None


@pytest.mark.parametrize("text", ["null", "7", "true", '["e"]', "{}"])
def test_an_event_or_attempt_that_is_no_text_counts_as_absent(text: str) -> None:
    tokens = _with_marker(f'{{"published":true,"event":{text},"attempt":{text}}}')
    assert (marker_event(tokens), marker_attempt(tokens)) == (None, None)
    assert tokens_lifecycle_publication(tokens) == TokenLifecyclePublication(None, NEVER_EXPIRES, None)


def test_an_event_in_a_marker_that_does_not_say_published_counts_as_absent() -> None:
    tokens = _with_marker('{"published":false,"event":"e1","attempt":"a1"}')
    assert (marker_event(tokens), marker_attempt(tokens)) == (None, None)


@given(JSON)
def test_reading_never_fails_whatever_the_metadata(metadata: Any) -> None:
    tokens = _oauth({"meerkat_auth_lifecycle": metadata})
    published = tokens_lifecycle_published(tokens)
    assert published == (tokens_lifecycle_publication(tokens) is not None)
    for read in (
        tokens_lifecycle_published_generation,
        tokens_lifecycle_publication_with_explicit_expiry,
        marker_event,
        marker_attempt,
    ):
        assert published or read(tokens) is None
