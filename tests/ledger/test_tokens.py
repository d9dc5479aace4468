"""Persisted tokens: any bytes in, tokens or one error that quotes nothing out."""

import contextlib
import copy
import io
import json
import math
import pickle
import sys
from types import FrameType
from typing import Any

import msgspec
import pytest
import rich.console
import rich.pretty
from hypothesis import example, given
from hypothesis import strategies as st

from ledger.snapshot import NEVER_EXPIRES
from ledger.store_errors import TokenSerializationError
from ledger.tokens import (
    PersistedAuthMode,
    PersistedTokens,
    persisted_auth_mode_uses_oauth_login_lifecycle,
    persisted_token_expires_at_epoch_secs,
)

I64 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(st.characters(codec="utf-8"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)
TOKENS = st.builds(
    PersistedTokens,
    auth_mode=st.sampled_from(PersistedAuthMode),
    primary_secret=st.none() | TEXT,
    refresh_token=st.none() | TEXT,
    id_token=st.none() | TEXT,
    account_id=st.none() | TEXT,
    expires_at=st.none() | I64,
    last_refresh=st.none() | I64,
    scopes=st.lists(TEXT, max_size=3),
    metadata=JSON,
)
TOKEN_LIKE = st.fixed_dictionaries(
    {"auth_mode": st.sampled_from([mode.value for mode in PersistedAuthMode]) | JSON},
    optional={name: st.none() | TEXT | I64 | st.lists(TEXT) | JSON for name in PersistedTokens.__struct_fields__[1:]},
)


def _with_metadata(text: str) -> str:
    return f'{{"auth_mode":"api_key","metadata":{text}}}'


def _kinds(value: object) -> str:
    # As text, since to Python 1 == 1.0 == True.
    return json.dumps(value, sort_keys=True)


# Reading and writing


def test_the_smallest_token_file_is_an_auth_mode() -> None:
    tokens = PersistedTokens.from_json('{"auth_mode":"adc"}')
    assert tokens == PersistedTokens(PersistedAuthMode.ADC)
    assert tokens.to_json() == b'{"auth_mode":"adc","scopes":[],"metadata":null}'


def test_what_is_there_is_written_in_full() -> None:
    tokens = PersistedTokens(
        auth_mode=PersistedAuthMode.CHATGPT_OAUTH,
        primary_secret="access",
        refresh_token="refresh",
        id_token="id",
        account_id="account",
        expires_at=-1,
        last_refresh=2**63 - 1,
        scopes=["openid", "email"],
        metadata={"provider": "openai"},
    )
    assert tokens.to_json() == (
        b'{"auth_mode":"chatgpt_oauth","primary_secret":"access","refresh_token":"refresh","id_token":"id",'
        b'"account_id":"account","expires_at":-1,"last_refresh":9223372036854775807,'
        b'"scopes":["openid","email"],"metadata":{"provider":"openai"}}'
    )


def test_an_empty_text_and_a_zero_are_there_and_not_absent() -> None:
    tokens = PersistedTokens(PersistedAuthMode.API_KEY, primary_secret="", expires_at=0)
    assert msgspec.json.decode(tokens.to_json()) == {
        "auth_mode": "api_key",
        "primary_secret": "",
        "expires_at": 0,
        "scopes": [],
        "metadata": None,
    }


@pytest.mark.parametrize("mode", PersistedAuthMode)
def test_every_auth_mode_is_read_by_its_name(mode: PersistedAuthMode) -> None:
    assert PersistedTokens.from_json(f'{{"auth_mode":"{mode.value}"}}').auth_mode is mode


def test_an_api_key_and_a_static_bearer_are_one_secret_without_an_expiry() -> None:
    assert PersistedTokens.api_key("k") == PersistedTokens(PersistedAuthMode.API_KEY, primary_secret="k")
    assert PersistedTokens.static_bearer("b") == PersistedTokens(PersistedAuthMode.STATIC_BEARER, primary_secret="b")


def test_null_stands_for_an_absent_field() -> None:
    absent = '{"auth_mode":"command","primary_secret":null,"refresh_token":null,"expires_at":null}'
    assert PersistedTokens.from_json(absent) == PersistedTokens(PersistedAuthMode.COMMAND)


def test_fields_of_a_newer_writer_are_ignored() -> None:
    tokens = PersistedTokens.from_json('{"auth_mode":"api_key","new":{"a":[1e400]},"primary_secret":"s"}')
    assert tokens == PersistedTokens.api_key("s")


@given(TOKENS)
def test_tokens_come_back_as_they_were_written(tokens: PersistedTokens) -> None:
    written = tokens.to_json()
    again = PersistedTokens.from_json(written)
    assert again == tokens
    assert PersistedTokens.from_json(written.decode()) == tokens
    assert again.to_json() == written
    assert _kinds(again.metadata) == _kinds(tokens.metadata)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0", 1.0),
        ("1e3", 1000.0),
        ("1E+3", 1000.0),
        ("-0.0", -0.0),
        ("-0", 0),
        ("0.1", 0.1),
        ("5e-324", 5e-324),
        ("18446744073709551616", 2**64),
        ("-9223372036854775809", -(2**63) - 1),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("9007199254740993", 9007199254740993),
        (r'"\ud83d\ude00\u0000"', "\U0001f600\0"),
        ("true", True),
        ("[[],{}]", [[], {}]),
    ],
)
def test_metadata_survives_in_value_and_kind(text: str, value: object) -> None:
    tokens = PersistedTokens.from_json(_with_metadata(text))
    assert _kinds(tokens.metadata) == _kinds(value)
    assert _kinds(json.loads(tokens.to_json())["metadata"]) == _kinds(value)


@pytest.mark.parametrize("depth", [1, 50, 126])
def test_metadata_nested_as_deep_as_the_reference_runtime_reads_survives(depth: int) -> None:
    text = "[" * depth + "7" + "]" * depth
    tokens = PersistedTokens.from_json(_with_metadata(text))
    assert json.dumps(json.loads(tokens.to_json())["metadata"]) == text


@pytest.mark.parametrize("depth", [127, 500, 5_000, 200_000])
@pytest.mark.parametrize(("open_", "close"), [("[", "]"), ('{"a":', "}")])
def test_metadata_nested_deeper_is_refused_however_deep(depth: int, open_: str, close: str) -> None:
    for innermost in ("7", "[]"):
        levels = depth if innermost == "7" else depth - 1
        with pytest.raises(TokenSerializationError):
            PersistedTokens.from_json(_with_metadata(open_ * levels + innermost + close * levels))


def test_wide_metadata_is_not_taken_for_deep() -> None:
    tokens = PersistedTokens.from_json(_with_metadata("[" + ",".join(["[]"] * 1000) + "]"))
    assert tokens.metadata == [[]] * 1000


def test_an_integer_of_thousands_of_digits_survives_or_is_refused() -> None:
    longest = "9" * 4300
    tokens = PersistedTokens.from_json(_with_metadata(longest))
    assert json.loads(tokens.to_json())["metadata"] == int(longest)
    with pytest.raises(TokenSerializationError):
        PersistedTokens.from_json(_with_metadata("9" * 4301))


def test_an_integer_the_interpreter_will_not_print_is_refused_on_write() -> None:
    tokens = PersistedTokens(PersistedAuthMode.API_KEY, metadata=10**5000)
    with pytest.raises(TokenSerializationError):
        tokens.to_json()


# What cannot be tokens


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"7",
        b"{",
        b'{"auth_mode":"api_key"} trailing',
        b'{"auth_mode":null}',
        b'{"auth_mode":"API_KEY"}',
        b'{"auth_mode":["api_key"]}',
        b'\xef\xbb\xbf{"auth_mode":"api_key"}',
        b'{"auth_mode":"api_key","\xff":1}',
        b'{"auth_mode":"api_key","primary_secret":"\xff"}',
        b'{"auth_mode":"api_key","metadata":"\xed\xa0\x80"}',
        '{"auth_mode":"api_key","metadata":"\ud800"}',
        rb'{"auth_mode":"api_key","metadata":"\ud800"}',
        b'{"auth_mode":"api_key","primary_secret":1}',
        b'{"auth_mode":"api_key","expires_at":9223372036854775808}',
        b'{"auth_mode":"api_key","expires_at":-9223372036854775809}',
        b'{"auth_mode":"api_key","last_refresh":18446744073709551616}',
        b'{"auth_mode":"api_key","expires_at":1.0}',
        b'{"auth_mode":"api_key","expires_at":1e3}',
        b'{"auth_mode":"api_key","expires_at":true}',
        b'{"auth_mode":"api_key","expires_at":"1"}',
        b'{"auth_mode":"api_key","expires_at":"2026-04-28T12:00:00Z"}',
        b'{"auth_mode":"api_key","expires_at":' + b"9" * 5000 + b"}",
        b'{"auth_mode":"api_key","scopes":null}',
        b'{"auth_mode":"api_key","scopes":"openid"}',
        b'{"auth_mode":"api_key","scopes":[1]}',
        b'{"auth_mode":"api_key","metadata":NaN}',
        b'{"auth_mode":"api_key","metadata":Infinity}',
        b'{"auth_mode":"api_key","metadata":1e400}',
        b'{"auth_mode":"api_key","metadata":-1e400}',
        b'{"auth_mode":"api_key","metadata":01}',
    ],
)
def test_what_cannot_be_tokens_is_a_serialization_error(data: bytes | str) -> None:
    with pytest.raises(TokenSerializationError, match=r"^serialization error: ."):
        PersistedTokens.from_json(data)


@given(
    st.binary()
    | st.text()
    | JSON.map(json.dumps)
    | TOKEN_LIKE.map(json.dumps)
    | st.tuples(TOKENS, st.integers(0, 400)).map(lambda cut: cut[0].to_json()[: cut[1]])
)
@example("{" * 300_000)
def test_no_input_ends_in_anything_but_tokens_or_the_one_error(data: bytes | str) -> None:
    try:
        tokens = PersistedTokens.from_json(data)
    except TokenSerializationError:
        return
    written = tokens.to_json()
    assert PersistedTokens.from_json(written).to_json() == written


CANARY = "canary-5f1d"


@pytest.mark.parametrize(
    "text",
    [
        '{"auth_mode":"CANARY"}',
        '{"auth_mode":"CANARY - at `$.auth_mode`"}',
        '{"auth_mode":{"CANARY":1}}',
        '{"auth_mode":"api_key","primary_secret":["CANARY"]}',
        '{"auth_mode":"api_key","expires_at":"CANARY"}',
        '{"auth_mode":"api_key","scopes":["a",{"CANARY":"CANARY"}]}',
        '{"auth_mode":"api_key","scopes":"CANARY"}',
        '{"auth_mode":"api_key","metadata":{"CANARY":{"CANARY":1e400}}}',
        '{"auth_mode":"api_key","metadata":{"CANARY":NaN}}',
        '{"auth_mode":"api_key","metadata":"CANARY\ud800"}',
        '{"auth_mode":"api_key","metadata":{"CANARY":' + "[" * 200 + "]" * 200 + "}}",
        'CANARY{"auth_mode":"api_key"}',
        '{"auth_mode":"api_key","primary_secret":"CANARY',
        '{"auth_mode":"api_key"} CANARY',
    ],
)
def test_an_error_on_reading_quotes_nothing_and_chains_nothing(text: str) -> None:
    for data in (text, text.encode("utf-8", "surrogatepass")):
        text_or_bytes = (
            data.replace("CANARY", CANARY) if isinstance(data, str) else (data.replace(b"CANARY", CANARY.encode()))
        )
        with pytest.raises(TokenSerializationError) as refusal:
            PersistedTokens.from_json(text_or_bytes)
        assert CANARY not in f"{refusal.value} {refusal.value!r} {refusal.value.args}"
        assert refusal.value.__cause__ is None
        assert refusal.value.__context__ is None


@pytest.mark.parametrize("data", [b'{"auth_mode":"\xff"}', '{"auth_mode":"\ud800"}'])
def test_bytes_and_text_that_are_no_unicode_are_called_so(data: bytes | str) -> None:
    with pytest.raises(TokenSerializationError, match="tokens are not UTF-8 text"):
        PersistedTokens.from_json(data)


def test_an_error_on_reading_says_where() -> None:
    with pytest.raises(TokenSerializationError) as refusal:
        PersistedTokens.from_json('{"auth_mode":"api_key","scopes":["a",1]}')
    assert str(refusal.value) == "serialization error: Expected `str`, got `int` - at `$.scopes[1]`"


@pytest.mark.parametrize(
    "metadata",
    [
        math.nan,
        {"a": [math.inf]},
        -math.inf,
        {1: "a"},
        {"a": {1.5: "b"}},
        {None: 1},
        b"bytes",
        {"a", "b"},
        object(),
        "\ud800",
        {"\ud800": 1},
    ],
)
def test_metadata_that_json_cannot_carry_is_refused_on_write_and_never_altered(metadata: Any) -> None:
    tokens = PersistedTokens(PersistedAuthMode.API_KEY, primary_secret=CANARY, metadata=metadata)
    with pytest.raises(TokenSerializationError) as refusal:
        tokens.to_json()
    assert CANARY not in str(refusal.value)
    assert refusal.value.__context__ is None


def test_metadata_that_holds_itself_is_refused_on_write() -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless["b"] = endless
    with pytest.raises(TokenSerializationError):
        PersistedTokens(PersistedAuthMode.API_KEY, metadata=endless).to_json()


def test_a_secret_that_is_no_unicode_is_refused_on_write_without_being_quoted() -> None:
    with pytest.raises(TokenSerializationError) as refusal:
        PersistedTokens.api_key(f"{CANARY}\ud800").to_json()
    assert CANARY not in str(refusal.value)
    assert refusal.value.__context__ is None


def test_tokens_nested_too_deep_to_be_read_again_are_refused_on_write() -> None:
    metadata: Any = 7
    for _ in range(126):
        metadata = [metadata]
    written = PersistedTokens(PersistedAuthMode.API_KEY, metadata=metadata).to_json()
    assert PersistedTokens.from_json(written).metadata == metadata
    with pytest.raises(TokenSerializationError, match="nested too deeply"):
        PersistedTokens(PersistedAuthMode.API_KEY, metadata=[metadata]).to_json()


def test_reading_deep_in_a_call_stack_still_ends_in_the_one_error() -> None:
    text = _with_metadata("[" * 120 + "]" * 120)

    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
        else:
            with contextlib.suppress(TokenSerializationError):
                PersistedTokens.from_json(text)

    frame: FrameType | None = sys._getframe()
    used = 0
    while frame is not None:
        frame, used = frame.f_back, used + 1
    descend(sys.getrecursionlimit() - used - 60)


# Construction


def test_a_plain_name_and_a_list_are_taken_for_mode_and_scopes() -> None:
    tokens = PersistedTokens("google_oauth", scopes=["a"])
    assert tokens.auth_mode is PersistedAuthMode.GOOGLE_OAUTH
    assert tokens.scopes == ("a",)
    assert tokens == PersistedTokens(PersistedAuthMode.GOOGLE_OAUTH, scopes=("a",))


def test_a_list_of_scopes_changed_later_changes_no_tokens() -> None:
    scopes = ["a"]
    tokens = PersistedTokens(PersistedAuthMode.GOOGLE_OAUTH, scopes=scopes)
    scopes.append("b")
    assert tokens.scopes == ("a",)


@pytest.mark.parametrize("secs", [-(2**63), -1, 0, 2**63 - 1])
def test_a_time_is_any_signed_64_bit_integer(secs: int) -> None:
    tokens = PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, expires_at=secs, last_refresh=secs)
    assert PersistedTokens.from_json(tokens.to_json()) == tokens


@pytest.mark.parametrize("field", ["expires_at", "last_refresh"])
@pytest.mark.parametrize(
    ("value", "error"),
    [(2**63, ValueError), (-(2**63) - 1, ValueError), (1.0, TypeError), (True, TypeError), ("1", TypeError)],
)
def test_any_other_time_is_refused(field: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, **{field: value})


@pytest.mark.parametrize("field", ["primary_secret", "refresh_token", "id_token", "account_id", "scopes"])
def test_a_text_of_another_type_is_refused(field: str) -> None:
    with pytest.raises(TypeError):
        PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, **{field: b"bytes"})  # type: ignore[arg-type]


@pytest.mark.parametrize("scopes", ["openid email", ["openid", 1]])
def test_scopes_are_texts_and_not_one_text(scopes: Any) -> None:
    with pytest.raises(TypeError):
        PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, scopes=scopes)


def test_a_secret_passed_as_the_auth_mode_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="unknown auth mode") as refusal:
        PersistedTokens(CANARY)  # type: ignore[arg-type]
    assert CANARY not in str(refusal.value)


def test_tokens_are_values() -> None:
    tokens = PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, primary_secret="s", metadata={"a": [1]})
    with pytest.raises(AttributeError):
        tokens.primary_secret = "t"  # type: ignore[misc]
    assert copy.deepcopy(tokens) == pickle.loads(pickle.dumps(tokens)) == tokens


# What may be shown


def _shown(tokens: PersistedTokens) -> str:
    console = rich.console.Console(file=io.StringIO(), width=10_000)
    console.print(tokens)
    console.print([tokens])
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    return f"{tokens!r} {tokens} {[tokens]} {rich.pretty.pretty_repr(tokens)} {printed}"


def test_no_secret_is_ever_shown() -> None:
    tokens = PersistedTokens(
        PersistedAuthMode.CHATGPT_OAUTH,
        primary_secret=f"{CANARY}-1",
        refresh_token=f"{CANARY}-2",
        id_token=f"{CANARY}-3",
        account_id=f"{CANARY}-4",
        scopes=[f"{CANARY}-5"],
        metadata={f"{CANARY}-6": f"{CANARY}-7"},
    )
    assert CANARY not in _shown(tokens)


@given(TOKENS)
def test_what_is_shown_depends_on_no_value_that_may_be_secret(tokens: PersistedTokens) -> None:
    others = PersistedTokens(
        tokens.auth_mode,
        refresh_token=None if tokens.refresh_token is None else CANARY,
        expires_at=tokens.expires_at,
    )
    assert repr(tokens) == repr(others)
    assert str(tokens) == str(others)


def test_mode_expiry_and_the_presence_of_a_refresh_token_are_shown() -> None:
    tokens = PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, refresh_token="r", expires_at=1_900_000_000)
    assert repr(tokens) == (
        "PersistedTokens(auth_mode='chatgpt_oauth', expires_at=1900000000, refresh_token='<hidden>')"
    )
    assert repr(PersistedTokens.api_key("k")) == (
        "PersistedTokens(auth_mode='api_key', expires_at=None, refresh_token=None)"
    )


# What a lease takes from tokens


def test_non_expiring_tokens_give_an_unbounded_expiry() -> None:
    assert persisted_token_expires_at_epoch_secs(PersistedTokens.api_key("k")) == NEVER_EXPIRES


@pytest.mark.parametrize(("expires_at", "unsigned"), [(-(2**63), 0), (-1, 0), (0, 0), (1, 1), (2**63 - 1, 2**63 - 1)])
def test_an_expiry_before_1970_counts_as_0(expires_at: int, unsigned: int) -> None:
    tokens = PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, expires_at=expires_at)
    assert persisted_token_expires_at_epoch_secs(tokens) == unsigned


def test_five_of_the_fourteen_auth_modes_come_from_an_oauth_login() -> None:
    assert len(PersistedAuthMode) == 14
    assert {mode.value for mode in PersistedAuthMode if persisted_auth_mode_uses_oauth_login_lifecycle(mode)} == {
        "chatgpt_oauth",
        "external_tokens",
        "claude_ai_oauth",
        "oauth_to_api_key",
        "google_oauth",
    }
