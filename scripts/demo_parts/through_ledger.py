"""With the ledger: ``Credentials.fresh`` decides who refreshes, and everybody else shares the outcome."""

import time
from pathlib import Path

from oauth_server.client import OAuthClient, OAuthError, TokenAnswer

from demo_parts.kills import Kills
from demo_parts.plan import WINDOW_SECONDS, Plan
from ledger import (
    Credentials,
    FileTokenStore,
    LeaseKey,
    LeaseLedger,
    PersistedAuthMode,
    PersistedTokens,
    ReauthRequired,
    RefreshError,
)
from ledger.stores.base import ANY, Expectation

__all__ = ["KEY", "LedgerAccess", "database_url", "first_login", "token_folder"]

KEY = LeaseKey("dev", "demo")

LEEWAY_SECONDS = WINDOW_SECONDS
"""This server ends the old access token the moment it is refreshed, so nobody goes on with it meanwhile."""

_REFRESH_DEADLINE_SECONDS = 2
_HTTP_TIMEOUT_SECONDS = 1.5
"""Shorter than the deadline: who is late gives up before another takes over."""

_PERMANENT = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})


def database_url(folder: Path) -> str:
    """Where the ledger of a half lies."""
    return f"sqlite:///{folder / 'auth.db'}"


def token_folder(folder: Path) -> Path:
    """Where its tokens lie."""
    return folder / "tokens"


def first_login(client: OAuthClient, folder: Path) -> None:
    """A person logs in, through the ledger."""
    with LeaseLedger.open(database_url(folder), actor="person") as ledger:
        credentials = Credentials(ledger, FileTokenStore(token_folder(folder)))
        credentials.login(KEY, _persisted(client.login()))


class DyingStore(FileTokenStore):
    """A token store whose process may die right after a save, before anything else can happen."""

    def __init__(self, root: Path, kills: Kills) -> None:
        super().__init__(root)
        self._kills = kills

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        """Save, and die there if it is time."""
        super().save(key, tokens, expect=expect)
        self._kills.strike("saved")


class LedgerAccess:
    """How one agent comes by an access token, with the ledger."""

    def __init__(self, plan: Plan, client: OAuthClient, agent: str) -> None:
        folder = Path(plan.folder)
        self._client = client
        self._kills = Kills(plan, agent)
        self._ledger = LeaseLedger.open(database_url(folder), actor=agent)
        store = DyingStore(token_folder(folder), self._kills)
        self._credentials = Credentials(self._ledger, store, refresh_deadline=_REFRESH_DEADLINE_SECONDS)
        self._given: PersistedTokens | None = None

    def token(self) -> str:
        """An access token good for use now."""
        return self._fresh(rejected=None)

    def token_after_refusal(self) -> str:
        """Another one, because the server refused the last."""
        return self._fresh(rejected=self._given)

    def close(self) -> None:
        """Close the ledger."""
        self._ledger.close()

    def _fresh(self, rejected: PersistedTokens | None) -> str:
        try:
            tokens = self._credentials.fresh(
                KEY, self._refresh, window=WINDOW_SECONDS, leeway=LEEWAY_SECONDS, rejected=rejected
            )
        except ReauthRequired:
            # Logged out: the same forced login as without the ledger, and counted just the same.
            tokens = _persisted(self._client.login())
            self._credentials.login(KEY, tokens)
        self._given = tokens
        return tokens.primary_secret or ""

    def _refresh(self, tokens: PersistedTokens) -> PersistedTokens:
        self._kills.strike("unsent")
        try:
            return _persisted(self._client.refresh(tokens.refresh_token or "", timeout=_HTTP_TIMEOUT_SECONDS))
        except OAuthError as error:
            raise RefreshError(
                permanent=error.error in _PERMANENT,
                error=error.error,
                status=error.status,
                retry_after=error.retry_after,
            ) from error


def _persisted(answer: TokenAnswer) -> PersistedTokens:
    return PersistedTokens(
        PersistedAuthMode.EXTERNAL_TOKENS,
        primary_secret=answer.access_token,
        refresh_token=answer.refresh_token,
        expires_at=answer.expires_at,
        last_refresh=int(time.time()),
        scopes=answer.scopes,
    )
