"""Lease keys: one grammar, one text form, no two keys with the same text."""

import copy
import pickle

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.keys import IdentityError, LeaseKey

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
IDS = st.text(ALPHABET, min_size=1)
KEYS = st.builds(LeaseKey, IDS, IDS, st.none() | IDS)


@given(KEYS)
def test_a_key_comes_back_from_its_text_and_from_its_json(key: LeaseKey) -> None:
    assert LeaseKey.parse(str(key)) == key
    assert msgspec.json.decode(msgspec.json.encode(key), type=LeaseKey) == key
    assert pickle.loads(pickle.dumps(key)) == copy.copy(key) == key


@given(KEYS, KEYS)
def test_two_keys_share_a_text_only_if_they_are_equal(one: LeaseKey, other: LeaseKey) -> None:
    assert (str(one) == str(other)) == (one == other)
    assert (one.keyring_account == other.keyring_account) == (one == other)


@given(st.characters().filter(lambda character: character not in ALPHABET), IDS, IDS)
def test_any_character_outside_the_grammar_is_refused_wherever_it_stands(
    character: str, before: str, after: str
) -> None:
    for raw in (character, before + character, character + after, before + character + after + character):
        for parts in ((raw, "openai"), ("dev", raw), ("dev", "openai", raw)):
            with pytest.raises(IdentityError) as refusal:
                LeaseKey(*parts)
            assert (refusal.value.kind, refusal.value.character) == ("invalid_char", character)


def test_a_trailing_line_end_is_outside_the_grammar() -> None:
    with pytest.raises(IdentityError, match="invalid character"):
        LeaseKey("dev", "openai\n")


@pytest.mark.parametrize("name", [".", "..", "...", "-", "con", "null", "A" * 10_000])
def test_no_name_within_the_grammar_is_reserved_and_none_too_long(name: str) -> None:
    assert LeaseKey(name, name, name).profile == name


def test_case_matters() -> None:
    assert LeaseKey("dev", "openai") != LeaseKey("Dev", "openai")


def test_a_profile_makes_another_key() -> None:
    assert LeaseKey("dev", "openai") != LeaseKey("dev", "openai", "work")
    assert msgspec.json.encode(LeaseKey("dev", "openai")) == b'{"realm":"dev","binding":"openai"}'
    assert msgspec.json.encode(LeaseKey("dev", "openai", "work")) == (
        b'{"realm":"dev","binding":"openai","profile":"work"}'
    )


@pytest.mark.parametrize("text", ["", "dev", "a:b:c:d", "a:b:c:"])
def test_a_text_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(IdentityError) as refusal:
        LeaseKey.parse(text)
    assert refusal.value.kind == "shape"


@pytest.mark.parametrize("text", [":", ":b", "a:", "a::c", "a:b:"])
def test_an_empty_part_is_refused(text: str) -> None:
    with pytest.raises(IdentityError, match="identity slug is empty") as refusal:
        LeaseKey.parse(text)
    assert refusal.value.kind == "empty"


@pytest.mark.parametrize("part", [b"dev", 1, None])
def test_a_part_that_is_no_text_is_a_type_error(part: object) -> None:
    with pytest.raises(TypeError):
        LeaseKey(part, "openai")  # type: ignore[arg-type]


def test_keys_are_values_that_serve_in_dicts() -> None:
    key = LeaseKey("a", "a")
    assert len({key, LeaseKey("a", "a"), LeaseKey("a", "a", "a")}) == 2
    with pytest.raises(AttributeError):
        key.realm = "c"  # type: ignore[misc]


def test_an_identity_error_is_a_value_error() -> None:
    assert issubclass(IdentityError, ValueError)
