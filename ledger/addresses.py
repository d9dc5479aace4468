"""Addresses of databases, as people may see them.

A password may stand in an address, and an address that cannot be read may hold it anywhere. So only what certainly is
no password is shown: what stands where host, port and database belong, in an address whose form is beyond doubt.
"""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

__all__ = ["is_well_formed", "split_address", "without_password", "without_passwords"]

_FORM: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://"
    r"(?:(?P<user>[^\s:@/?#\[\]]*)(?::[^\s@/?#\[\]]*)?@)?"
    r"(?P<hosts>(?:\[[0-9a-f:.%]*\]|[^\s:@/?#\[\],]*)(?::[0-9]*)?(?:,(?:\[[0-9a-f:.%]*\]|[^\s:@/?#\[\],]*)(?::[0-9]*)?)*)"
    r"(?P<path>(?:/[^@?#]*)?)"
    r"(?P<rest>(?:\?[^@#]*)?)",
    re.IGNORECASE,
)
_WORD: Final = re.compile(r"\S+")


def is_well_formed(url: str) -> bool:
    """Whether each part of an address is beyond doubt: an unescaped ``/``, ``?``, ``#`` or ``@`` is in none."""
    return _FORM.fullmatch(url) is not None


def without_password(url: str) -> str:
    """An address for people: no password and no options, for those may hold one; little more than its scheme when
    where the password ends cannot be told. Never raises."""
    found = _FORM.fullmatch(url)
    if found is None:
        scheme, marked, _ = url.partition(":")
        return f"{scheme}://***" if marked and scheme.isascii() and scheme.isalnum() else "***"
    user = f"{found['user']}@" if found["user"] else ""
    return f"{found['scheme']}://{user}{found['hosts']}{found['path']}"


def without_passwords(text: str) -> str:
    """A text with every word in it that may be an address and hold a password written as :func:`without_password`
    does."""
    return _WORD.sub(lambda word: _shown(word[0]), text)


def _shown(word: str) -> str:
    bare = word.lstrip("'\"(")
    if ":/" in bare:
        hides = "@" in bare or "?" in bare or not is_well_formed(bare)
        return f"{word[: len(word) - len(bare)]}{without_password(bare)}" if hides else word
    return "***" if 0 <= bare.find(":") < bare.rfind("@") else word


def split_address(url: str) -> SplitResult:
    """``urllib``'s parts of an address.

    Raises:
        ValueError: It has none. The text, unlike that of ``urllib``, does not quote it.
    """
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError(
            f"unreadable address {without_password(url)}: write % / ? # @ [ ] of a name or password as %25 %2F %3F ..."
        ) from None
