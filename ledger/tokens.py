"""Persisted tokens: what a token store keeps for one lease key, and its JSON form.

Tokens come from files that people edit and other programs write, so reading assumes nothing: whatever is in
the bytes, the answer is tokens or one ``TokenSerializationError``. Neither an error nor a ``repr`` ever shows
a value of the input, since any of them may be a secret.
"""

from collections.abc import Sequence
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, Literal, final

import msgspec

from ledger.snapshot import NEVER_EXPIRES
from ledger.store_errors import TokenSerializationError

__all__ = [
    "AuthModeName",
    "PersistedAuthMode",
    "PersistedTokens",
    "persisted_auth_mode_uses_oauth_login_lifecycle",
    "persisted_token_expires_at_epoch_secs",
]

_MAX_NESTING: Final = 127
"""Objects and lists inside one another, the token object included; the reference runtime reads no deeper."""

_I64_MIN: Final = -(2**63)
_I64_MAX: Final = 2**63 - 1


class PersistedAuthMode(StrEnum):
    """How the credential was obtained, and so how it is used."""

    CHATGPT_OAUTH = "chatgpt_oauth"
    EXTERNAL_TOKENS = "external_tokens"
    CLAUDE_AI_OAUTH = "claude_ai_oauth"
    OAUTH_TO_API_KEY = "oauth_to_api_key"
    GOOGLE_OAUTH = "google_oauth"
    API_KEY = "api_key"
    STATIC_BEARER = "static_bearer"
    ADC = "adc"
    COMPUTE_ADC = "compute_adc"
    BEDROCK = "bedrock"
    VERTEX = "vertex"
    FOUNDRY = "foundry"
    EXTERNAL_AUTHORIZER = "external_authorizer"
    COMMAND = "command"


AuthModeName = Literal[
    "chatgpt_oauth",
    "external_tokens",
    "claude_ai_oauth",
    "oauth_to_api_key",
    "google_oauth",
    "api_key",
    "static_bearer",
    "adc",
    "compute_adc",
    "bedrock",
    "vertex",
    "foundry",
    "external_authorizer",
    "command",
]
"""The plain name of an auth mode, accepted wherever the mode is."""

_OAUTH_LOGIN_MODES: Final = frozenset(
    {
        PersistedAuthMode.CHATGPT_OAUTH,
        PersistedAuthMode.EXTERNAL_TOKENS,
        PersistedAuthMode.CLAUDE_AI_OAUTH,
        PersistedAuthMode.OAUTH_TO_API_KEY,
        PersistedAuthMode.GOOGLE_OAUTH,
    }
)


@final
class PersistedTokens(msgspec.Struct, frozen=True):
    """The credential stored under one lease key.

    ``repr`` and ``str`` show the auth mode, the expiry and which parts are there, never their values.

    Attributes:
        auth_mode: How the credential was obtained. Its plain name is accepted too.
        primary_secret: The access token, API key or bearer token.
        refresh_token: What a refresh spends.
        id_token: The OpenID Connect identity token.
        account_id: The provider's name for the account.
        expires_at: Epoch seconds, any signed 64-bit integer; ``None`` means never.
        last_refresh: Epoch seconds, any signed 64-bit integer.
        scopes: The granted scopes; kept as a tuple.
        metadata: Any JSON value. The lifecycle marker lives here, beside what the provider's client keeps. Do
            not change it in place: tokens are values.

    Raises:
        TypeError: A field holds a value of another type.
        ValueError: The auth mode is unknown, or a time is outside the signed 64-bit range.
    """

    auth_mode: PersistedAuthMode
    primary_secret: str | None = None
    refresh_token: str | None = None
    id_token: str | None = None
    account_id: str | None = None
    expires_at: int | None = None
    last_refresh: int | None = None
    scopes: Sequence[str] = ()
    metadata: Any = None

    if TYPE_CHECKING:
        # What may be passed is more than what is held: a plain name becomes a mode.
        def __init__(
            self,
            auth_mode: PersistedAuthMode | AuthModeName,
            primary_secret: str | None = None,
            refresh_token: str | None = None,
            id_token: str | None = None,
            account_id: str | None = None,
            expires_at: int | None = None,
            last_refresh: int | None = None,
            scopes: Sequence[str] = (),
            metadata: Any = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        if type(self.auth_mode) is not PersistedAuthMode:
            msgspec.structs.force_setattr(self, "auth_mode", _auth_mode(self.auth_mode))
        for text in (self.primary_secret, self.refresh_token, self.id_token, self.account_id):
            if text is not None and not isinstance(text, str):
                raise TypeError("secrets, tokens and the account id are text")
        for seconds in (self.expires_at, self.last_refresh):
            if seconds is not None:
                _check_seconds(seconds)
        scopes = self.scopes
        if type(scopes) is not tuple:
            if not isinstance(scopes, list):
                raise TypeError("scopes are a list or tuple of texts")
            scopes = tuple(scopes)
            msgspec.structs.force_setattr(self, "scopes", scopes)
        for scope in scopes:
            if not isinstance(scope, str):
                raise TypeError("scopes are a list or tuple of texts")

    @classmethod
    def api_key(cls, secret: str) -> "PersistedTokens":
        """Tokens that are one API key, without an expiry."""
        return PersistedTokens(PersistedAuthMode.API_KEY, primary_secret=secret)

    @classmethod
    def static_bearer(cls, secret: str) -> "PersistedTokens":
        """Tokens that are one bearer token nobody refreshes, without an expiry."""
        return PersistedTokens(PersistedAuthMode.STATIC_BEARER, primary_secret=secret)

    @classmethod
    def from_json(cls, data: bytes | str) -> "PersistedTokens":
        """Read what ``to_json`` wrote, or another program in the same form.

        Fields it does not know are ignored. Metadata comes back unchanged in value and kind: ``1.0`` stays a
        float, and an integer stays exact however large, up to 4,300 digits.

        Raises:
            TokenSerializationError: The bytes are not tokens. The text says what is wrong and where, never
                what was found there. No cause is chained, since a decoder's exception may carry the input.
        """
        try:
            text = data if isinstance(data, str) else str(data, "utf-8")
            tokens = _DECODER.decode(text)
        except UnicodeError:
            detail = "tokens are not UTF-8 text"
        except msgspec.ValidationError as error:
            detail = str(error)
            if detail.startswith("Invalid enum value"):
                detail = "Unknown auth mode - at `$.auth_mode`"
        except msgspec.DecodeError as error:
            detail = str(error)
        except RecursionError:
            detail = "tokens are nested too deeply"
        else:
            # Counting brackets is far cheaper than walking the metadata, and nearly always settles it.
            if text.count("{") + text.count("[") > _MAX_NESTING:
                _check_json(tokens.metadata)
            return tokens
        raise TokenSerializationError(detail)

    def to_json(self) -> bytes:
        """Write the tokens as one JSON object. What is absent is left out, but scopes and metadata never are.

        Raises:
            TokenSerializationError: The metadata is not JSON (a NaN, a date, a key that is no text, too
                deep), or a text is not Unicode.
        """
        wire = {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}
        wire["metadata"] = self.metadata
        try:
            written = msgspec.json.encode(wire)
        except (TypeError, ValueError, OverflowError, RecursionError):
            written = None
        if written is None:
            raise TokenSerializationError("tokens hold a value that JSON cannot carry")
        _check_json(self.metadata)
        return written

    def __repr__(self) -> str:
        return f"PersistedTokens({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [
            ("auth_mode", self.auth_mode.value),
            ("expires_at", self.expires_at),
            ("refresh_token", None if self.refresh_token is None else "<hidden>"),
        ]


_DECODER: Final = msgspec.json.Decoder(PersistedTokens)


def _auth_mode(name: object) -> PersistedAuthMode:
    known = _MODES_BY_NAME.get(name) if isinstance(name, str) else None
    if known is None:
        # Whoever swaps two arguments puts a secret here, so the value stays out of the message.
        raise ValueError("unknown auth mode")
    return known


_MODES_BY_NAME: Final[dict[str, PersistedAuthMode]] = {mode.value: mode for mode in PersistedAuthMode}


def _check_seconds(seconds: object) -> None:
    if type(seconds) is not int:
        raise TypeError("expires_at and last_refresh are integers, in epoch seconds")
    if not _I64_MIN <= seconds <= _I64_MAX:
        raise ValueError("expires_at and last_refresh are signed 64-bit integers, in epoch seconds")


def _check_json(value: object) -> None:
    """Refuse what an encoder would turn into another value (NaN, number keys, bytes), or nests too deeply."""
    level, depth = [value], 2
    while level:
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict | list | tuple) and depth > _MAX_NESTING:
                raise TokenSerializationError("tokens are nested too deeply")
            if isinstance(item, dict):
                if not all(isinstance(name, str) for name in item):
                    raise TokenSerializationError("metadata holds a key that is no text")
                inner.extend(item.values())
            elif isinstance(item, list | tuple):
                inner.extend(item)
            elif isinstance(item, float):
                if not isfinite(item):
                    raise TokenSerializationError("metadata holds a number that JSON cannot carry")
            elif item is not None and not isinstance(item, str | int):
                raise TokenSerializationError(f"metadata holds a {type(item).__name__}, which is no JSON value")
        level, depth = inner, depth + 1


def persisted_auth_mode_uses_oauth_login_lifecycle(mode: PersistedAuthMode | AuthModeName) -> bool:
    """Whether such a credential comes from an OAuth login, whose tokens carry the lifecycle marker."""
    return mode in _OAUTH_LOGIN_MODES


def persisted_token_expires_at_epoch_secs(tokens: PersistedTokens) -> int:
    """The tokens' own expiry as a lease takes it: unsigned epoch seconds.

    Tokens without an expiry never expire (``NEVER_EXPIRES``); one before 1970 counts as 0, long past as well.
    """
    if tokens.expires_at is None:
        return NEVER_EXPIRES
    return max(tokens.expires_at, 0)
