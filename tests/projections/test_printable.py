"""Whatever was recorded is shown, and does nothing to who looks at it."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.printable import encodable, printable, printable_json, to_printable_json

# All that Python's own strategies may leave out, surrogates included.
ANY_TEXT = st.text(st.characters() | st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zp", "Co", "Mn"]))

HIDDEN = [
    "\x00",
    "\x07",
    "\x08",
    "\t",
    "\n",
    "\r",
    "\x1b",
    "\x7f",
    "\x80",
    "\x85",
    "\x9b",
    "\x9f",
    "\u00ad",
    "\u034f",
    "\u061c",
    "\u115f",
    "\u180e",
    "\u200b",
    "\u200d",
    "\u200e",
    "\u200f",
    "\u2028",
    "\u2029",
    "\u202a",
    "\u202e",
    "\u2060",
    "\u2066",
    "\u2069",
    "\u2800",
    "\u3164",
    "\ufe0f",
    "\ufeff",
    "\uffa0",
    "\udcff",
    "\U000e0041",
    "\U000e0100",
]


@pytest.mark.parametrize("character", HIDDEN, ids=ascii)
def test_what_hides_or_commands_is_an_escape(character: str) -> None:
    shown = printable(f"a{character}b")
    assert shown.isascii() and shown.isprintable() and shown[0] == "a" and shown[-1] == "b"
    document = to_printable_json({"text": f"a{character}b"})
    assert document.isascii() and document.isprintable()
    assert json.loads(document) == {"text": f"a{character}b"}


@pytest.mark.parametrize("text", ["plain", "café", "агент", "日本", "✓ 😀", "e\u0301", "C:\\new", "'\""])
def test_what_can_be_seen_stays_as_it_is(text: str) -> None:
    assert printable(text) == text
    assert json.loads(to_printable_json([text])) == [text]
    assert text.isascii() or text in to_printable_json([text])


@given(ANY_TEXT)
def test_no_text_shows_what_a_terminal_obeys(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"}
    assert printable(shown) == shown


@given(ANY_TEXT, st.booleans())
def test_json_holds_the_true_text_in_characters_that_can_be_seen(text: str, ascii_only: bool) -> None:
    document = to_printable_json({"of": [text]}, ascii_only=ascii_only)
    assert json.loads(document) == {"of": [text]}
    assert document.isprintable()
    assert document.isascii() or not ascii_only


def test_json_that_is_laid_out_keeps_its_lines() -> None:
    assert printable_json('{\n  "a": "\u202e"\n}') == '{\n  "a": "\\u202e"\n}'


@given(ANY_TEXT, st.sampled_from(["ascii", "latin-1", "cp1252", "koi8-r", "utf-8", "shift_jis"]))
def test_any_text_fits_any_encoding(text: str, encoding: str) -> None:
    fitting = encodable(text, encoding)
    assert fitting.encode(encoding).decode(encoding) == fitting
    assert encodable("plain", encoding) == "plain"
