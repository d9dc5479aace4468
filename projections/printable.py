"""Text that is safe to show: whatever was recorded is seen, but it never moves a cursor, changes a colour or hides.

Escaped is what is no visible character: control characters (C0, DEL, C1), line and paragraph separators, what turns
the direction of text, what has no width, unassigned and private code points, and halves of surrogate pairs.
"""

import json
import re
from typing import Any, Final

import msgspec

__all__ = ["encodable", "printable", "printable_json", "to_printable_json"]

# Python calls these printable, yet they show as nothing: Unicode's default ignorables, and the blank braille cell.
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_BEYOND_ASCII: Final = re.compile("[^\x00-\x7e]")


def printable(text: str) -> str:
    """The text with everything that is no visible character written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if _is_seen(character) else _escaped(character) for character in text)


def encodable(text: str, encoding: str) -> str:
    """The text with every character that the encoding lacks written as an escape."""
    return text.encode(encoding, "backslashreplace").decode(encoding)


def printable_json(document: str, *, ascii_only: bool = False) -> str:
    r"""The same JSON, as any reader of JSON sees it, with what is no visible character written as ``\uXXXX``.

    Args:
        document: JSON text. Line breaks between its values stay.
        ascii_only: Whether everything beyond ASCII is escaped, for a stream in another encoding than UTF-8.
    """
    if document.isascii() and "\x7f" not in document:
        return document
    return _BEYOND_ASCII.sub(
        lambda found: _json_escaped(found[0]) if ascii_only or not _is_seen(found[0]) else found[0], document
    )


def to_printable_json(value: Any, *, ascii_only: bool = False) -> str:
    """A value as one line of JSON that is safe to show; of a file name that is no text, the odd bytes are escaped."""
    try:
        document = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":"))
    return printable_json(document, ascii_only=ascii_only)


def _is_seen(character: str) -> bool:
    return character.isprintable() and _UNSEEN.match(character) is None


def _escaped(character: str) -> str:
    return ascii(character)[1:-1]


def _json_escaped(character: str) -> str:
    return json.dumps(character)[1:-1]
