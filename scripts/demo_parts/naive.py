"""Without the ledger: each agent reads the shared token file and refreshes for itself.

This is no straw man: the file is replaced atomically, and an agent whose access token is refused first looks
whether another has written a newer one.
"""

import tempfile
import time
from pathlib import Path

import msgspec
from oauth_server.client import OAuthClient, OAuthError, TokenAnswer

from demo_parts.kills import Kills
from demo_parts.plan import WINDOW_SECONDS, Plan

__all__ = ["NaiveAccess", "first_login"]


def first_login(client: OAuthClient, folder: Path) -> None:
    """A person logs in; the tokens go into the shared file."""
    _write(_token_file(folder), client.login())


class NaiveAccess:
    """How one agent comes by an access token, with nothing but the shared file."""

    def __init__(self, plan: Plan, client: OAuthClient, agent: str) -> None:
        self._file = _token_file(Path(plan.folder))
        self._client = client
        self._kills = Kills(plan, agent)
        self._given = ""

    def token(self) -> str:
        """An access token, refreshed if it is about to expire."""
        tokens = _read(self._file)
        if tokens.expires_at - time.time() < WINDOW_SECONDS:
            tokens = self._refresh(tokens)
        self._given = tokens.access_token
        return self._given

    def token_after_refusal(self) -> str:
        """Another one, because the server refused the last."""
        tokens = _read(self._file)
        if tokens.access_token == self._given:
            tokens = self._refresh(tokens)
        self._given = tokens.access_token
        return self._given

    def close(self) -> None:
        """Nothing is held open."""

    def _refresh(self, tokens: TokenAnswer) -> TokenAnswer:
        self._kills.strike("unsent")
        try:
            answer = self._client.refresh(tokens.refresh_token)
        except OAuthError as error:
            if error.error != "invalid_grant":
                raise
            # Logged out. In real life the agent stops here until a person comes to log in again.
            answer = self._client.login()
        _write(self._file, answer)
        self._kills.strike("saved")
        return answer


def _token_file(folder: Path) -> Path:
    return folder / "tokens.json"


def _read(file: Path) -> TokenAnswer:
    return msgspec.json.decode(file.read_bytes(), type=TokenAnswer)


def _write(file: Path, tokens: TokenAnswer) -> None:
    with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
        temporary.write(msgspec.json.encode(tokens))
    Path(temporary.name).replace(file)
