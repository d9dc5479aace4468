"""Tokens as stores write them: their JSON, with the key they belong to as one more field."""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from ledger.keys import IdentityError, LeaseKey
from ledger.tokens import PersistedTokens

__all__ = ["keys_named_in", "tokens_with_key"]

_NAMED: Final = re.compile(rb'"lease_key"\s*:\s*"([A-Za-z0-9_.:-]+)"')


def tokens_with_key(key: LeaseKey, tokens: PersistedTokens) -> bytes:
    """The tokens as one JSON object that begins with ``"lease_key": "dev:openai:work"``, for people.

    First, because it tells whose tokens these were even when the rest is damaged.

    Raises:
        TokenSerializationError: These tokens cannot be written as JSON.
    """
    return b'{"lease_key":' + msgspec.json.encode(str(key)) + b"," + tokens.to_json()[1:]


def keys_named_in(data: bytes) -> Iterator[LeaseKey]:
    """The keys that stored bytes, damaged or not, name as theirs: mostly one; none if others wrote them."""
    for text in _NAMED.findall(data):
        try:
            yield LeaseKey.parse(text.decode())
        except IdentityError:
            continue
