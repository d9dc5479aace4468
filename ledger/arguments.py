"""What callers may pass to a ledger, checked before anything is decided."""

import re
import sys
from typing import Final

from ledger.events import AttemptEnd
from ledger.snapshot import MAX_U64, NEVER_EXPIRES, AuthLeaseSnapshot

__all__ = [
    "attempt_end",
    "check_body",
    "check_code",
    "check_seconds",
    "check_snapshot",
    "check_text",
    "check_u64",
    "expiry_from_argument",
    "is_code",
]

LONGEST_TEXT: Final = 1000
# A backslash before it that is itself escaped makes it plain text.
_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_CODE = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")


def check_u64(name: str, value: object) -> int:
    """An integer from 0 to 2^64-1.

    Raises:
        ValueError: It is anything else; booleans are no integers here.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_U64:
        raise ValueError(f"{name} is an integer from 0 to 2^64-1, not {value!r}")
    return value


def check_seconds(name: str, value: object) -> float | None:
    """A wait that JSON can carry, or none.

    Raises:
        ValueError: It is no number, negative, infinite or not a number at all.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise ValueError(f"{name} is a number of seconds from 0 on, not {value!r}")
    return float(value)


def expiry_from_argument(value: object, name: str = "expires_at") -> int | None:
    """Epoch seconds as a caller passes them, with ``NEVER_EXPIRES`` turned into ``None``.

    Raises:
        ValueError: It is no integer from 0 to 2^64-1.
    """
    checked = check_u64(name, value)
    return None if checked == NEVER_EXPIRES else checked


def check_text(name: str, value: str | None) -> str | None:
    """A text short enough to be read in a history, encodable, and one that every storage can show.

    Raises:
        ValueError: It is longer than 1,000 characters, or holds a lone surrogate or a NUL.
    """
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise ValueError(f"{name} is a text of at most {LONGEST_TEXT} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} holds a lone surrogate, which no UTF-8 text can") from None
    if "\0" in value:
        raise ValueError(f"{name} holds a NUL character, which no text in a database can")
    return value


def check_body(body: bytes) -> bytes:
    """An event's JSON without a NUL in any of its texts, wherever that text came from.

    JSON escapes a NUL, so each storage would take it; a view that reads the text in PostgreSQL would fail for all.

    Raises:
        ValueError: There is one.
    """
    if b"\\u0000" in body and _ESCAPED_NUL.search(body):
        raise ValueError("a text of this event holds a NUL character, which no text in a database can")
    return body


def is_code(text: str) -> bool:
    """Whether a text has the shape of an OAuth error code or a class name rather than that of free text."""
    return _CODE.fullmatch(text) is not None


def check_code(name: str, value: str | None) -> str | None:
    """An OAuth error code or an exception's class name.

    Raises:
        ValueError: It looks like free text, which may hold a secret and must not be recorded.
    """
    if value is not None and (not isinstance(value, str) or not is_code(value)):
        raise ValueError(f"{name} is an OAuth error code or an exception's class name, never free text")
    return value


def attempt_end(value: object, abandoned: bool) -> AttemptEnd | None:
    """How an attempt ended, as a caller says it; being abandoned is a way of ending, and the flag says it too.

    Raises:
        ValueError: It is no value of :class:`AttemptEnd`, or another one than ``abandoned`` says.
    """
    if value is None:
        return AttemptEnd.ABANDONED if abandoned else None
    known = next((end for end in AttemptEnd if end == value), None)
    if known is None:
        raise ValueError(f"ended is one of {', '.join(AttemptEnd)}, not {value!r}")
    if abandoned and known is not AttemptEnd.ABANDONED:
        raise ValueError(f"an attempt that is abandoned did not end {known}")
    return known


def check_snapshot(snapshot: AuthLeaseSnapshot) -> None:
    """A snapshot whose numbers an event can carry.

    Raises:
        ValueError: One of them is no integer from 0 to 2^64-1.
    """
    check_u64("snapshot.generation", snapshot.generation)
    if snapshot.expires_at is not None:
        check_u64("snapshot.expires_at", snapshot.expires_at)
    if snapshot.credential_published_at_millis is not None:
        check_u64("snapshot.credential_published_at_millis", snapshot.credential_published_at_millis)
