"""Lease keys: the name of one credential binding, and the id of its event stream.

Realm, binding and profile share one grammar (ASCII letters, digits, ``-``, ``_``, ``.``). ``:`` lies outside
it, so ``realm:binding:profile`` is unambiguous and serves as stream id and keyring account alike.
"""

import re
from typing import Literal, Self

import msgspec

from ledger.errors import LeaseLedgerError

__all__ = ["IdentityError", "LeaseKey"]

_INVALID = re.compile(r"[^A-Za-z0-9_.-]")


class IdentityError(LeaseLedgerError, ValueError):
    """A realm, binding or profile id is outside the grammar.

    Attributes:
        kind: ``"empty"``, ``"invalid_char"``, or ``"shape"`` when a text is not two or three ids joined by ``:``.
        character: The first offending character, for ``"invalid_char"``.
    """

    def __init__(
        self, message: str, *, kind: Literal["empty", "invalid_char", "shape"], character: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.character = character


def _check(slug: object) -> None:
    if not isinstance(slug, str):
        raise TypeError(f"a realm, binding or profile id is text, not {type(slug).__name__}")
    if not slug:
        raise IdentityError("identity slug is empty", kind="empty")
    found = _INVALID.search(slug)
    if found:
        raise IdentityError(
            f"identity slug contains invalid character {found[0]!r}; "
            "must be ASCII alphanumeric or one of '-', '_', '.'",
            kind="invalid_char",
            character=found[0],
        )


class LeaseKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """Names one credential binding: a realm, a binding in it, and optionally a profile that overrides it.

    A key with a profile is a different key from the same one without. As JSON the profile is left out when
    there is none.

    Raises:
        IdentityError: A part is empty or holds a character outside the grammar.
    """

    realm: str
    binding: str
    profile: str | None = None

    def __post_init__(self) -> None:
        _check(self.realm)
        _check(self.binding)
        if self.profile is not None:
            _check(self.profile)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``realm:binding`` or ``realm:binding:profile``.

        Raises:
            IdentityError: The text is not two or three ids joined by ``:``, or one of them is outside the grammar.
        """
        parts = text.split(":")
        if len(parts) not in (2, 3):
            raise IdentityError(
                f"lease key {text!r} is not of the form realm:binding or realm:binding:profile", kind="shape"
            )
        return cls(*parts)

    def __str__(self) -> str:
        if self.profile is None:
            return f"{self.realm}:{self.binding}"
        return f"{self.realm}:{self.binding}:{self.profile}"

    @property
    def keyring_account(self) -> str:
        """The account name under which a keyring holds this key's tokens."""
        return str(self)
