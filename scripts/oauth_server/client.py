"""What an agent says to the authorization server: log in, refresh, revoke, and use the resource."""

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import httpx

from oauth_server.running import REDIRECT_URI, ServerInfo

__all__ = ["OAuthClient", "OAuthError", "TokenAnswer"]


@dataclass(frozen=True)
class TokenAnswer:
    """What the token endpoint gave.

    Attributes:
        expires_at: Epoch seconds, counted from before the request was sent and rounded down: never later than
            the server's own.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_at: int
    scopes: list[str]


class OAuthError(Exception):
    """The server refused.

    Attributes:
        status: The HTTP status.
        error: The OAuth error code, such as ``invalid_grant``, when the answer has one.
        retry_after: Seconds the server asks to be left alone, when it says so.
    """

    def __init__(self, status: int, error: str | None, retry_after: int | None) -> None:
        super().__init__(f"{error or 'no OAuth error'} (HTTP {status})")
        self.status = status
        self.error = error
        self.retry_after = retry_after


class OAuthClient:
    """A public client of one server. One per process or thread group; a context manager."""

    def __init__(self, server: ServerInfo, *, timeout: float = 30) -> None:
        self._server = server
        # Loopback needs no proxy, whatever the environment says.
        self._http = httpx.Client(base_url=server.url, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def login(self) -> TokenAnswer:
        """Log the person in: password, authorization code with PKCE, first tokens."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=")
        code = self._authorize(challenge.decode())
        return self._token(
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": REDIRECT_URI,
                "code_verifier": verifier,
            }
        )

    def refresh(
        self, refresh_token: str, *, timeout: float | None = None, headers: dict[str, str] | None = None
    ) -> TokenAnswer:
        """Spend a refresh token.

        Args:
            refresh_token: It is spent even when the answer is lost.
            timeout: Seconds for this request, when they are not the client's.
            headers: May ask the server for a fault.

        Raises:
            OAuthError: The server refused.
        """
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self._token(form, timeout=timeout, headers=headers)

    def revoke(self, refresh_token: str) -> None:
        """Tell the server that this login is over."""
        form = {
            "token": refresh_token,
            "token_type_hint": "refresh_token",
            "client_id": self._server.client_id,
        }
        _checked(self._http.post("/revoke", data=form))

    def resource(self, access_token: str) -> int:
        """Use the protected resource; returns the HTTP status."""
        return self._http.get("/resource", headers={"Authorization": f"Bearer {access_token}"}).status_code

    def stats(self) -> dict[str, Any]:
        """What the server has counted."""
        counts: dict[str, Any] = _checked(self._http.get("/stats")).json()
        return counts

    def reset_stats(self) -> None:
        """Let the server count from nothing."""
        _checked(self._http.post("/stats/reset"))

    def _authorize(self, challenge: str) -> str:
        """What the browser does: log in, ask for authorization, be sent back with a code."""
        state = secrets.token_urlsafe(16)
        question = {
            "response_type": "code",
            "client_id": self._server.client_id,
            "redirect_uri": REDIRECT_URI,
            "scope": "read",
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        person = {"username": self._server.username, "password": self._server.password}
        _checked(self._http.post("/login", data=person))
        answer = self._http.get("/authorize", params=question)
        self._http.cookies.clear()
        location: str = answer.headers.get("Location", "")
        sent_back = parse_qs(urlsplit(location).query)
        if answer.status_code != httpx.codes.FOUND or sent_back.get("state") != [state]:
            raise OAuthError(answer.status_code, None, None)
        if "code" not in sent_back:
            raise OAuthError(answer.status_code, sent_back.get("error", [""])[0] or None, None)
        return sent_back["code"][0]

    def _token(
        self, form: dict[str, str], *, timeout: float | None = None, headers: dict[str, str] | None = None
    ) -> TokenAnswer:
        asked_at = time.time()
        response = self._http.post(
            "/token",
            data={**form, "client_id": self._server.client_id},
            headers=headers,
            timeout=httpx.USE_CLIENT_DEFAULT if timeout is None else timeout,
        )
        answer = _checked(response).json()
        return TokenAnswer(
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires_at=int(asked_at + answer["expires_in"]),
            scopes=answer["scope"].split(),
        )


def _checked(response: httpx.Response) -> httpx.Response:
    """The response, if it is a success.

    Raises:
        OAuthError: It is not.
    """
    if response.is_success:
        return response
    try:
        error = response.json().get("error")
    except ValueError:
        error = None
    retry_after = response.headers.get("Retry-After", "")
    raise OAuthError(response.status_code, error, int(retry_after) if retry_after.isdigit() else None)
