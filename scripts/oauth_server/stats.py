"""What the server saw, counted by the server: the witness of the demo and of the tests."""

import hashlib
import threading
from collections import Counter
from typing import Any

__all__ = ["STATS", "Stats", "login_id"]


def login_id(first_refresh_token: str) -> str:
    """The public name of one login: a digest of the refresh token it began with."""
    return hashlib.sha256(first_refresh_token.encode()).hexdigest()[:16]


class Stats:
    """Counters since the start of the server or the last reset, safe under its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # A login outlives a reset: its family is still known, only its counts begin again.
        self._login_of_family: dict[str, str] = {}
        self._clear()

    def _clear(self) -> None:
        self._grants: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._resource: Counter[int] = Counter()
        self._presented: Counter[str] = Counter()
        self._logins: dict[str, Counter[str]] = {}
        self._refreshes = 0

    def reset(self) -> None:
        """Begin counting from nothing."""
        with self._lock:
            self._clear()

    def login(self, family: str, refresh_token: str) -> None:
        """A person logged in: a new family of refresh tokens begins."""
        name = login_id(refresh_token)
        with self._lock:
            self._login_of_family[family] = name
            self._logins[name] = Counter()

    def token_request(self, grant: str, error: str | None) -> None:
        """The token endpoint answered, with an OAuth error code or with tokens."""
        with self._lock:
            self._grants[grant] += 1
            if error is not None:
                self._errors[error] += 1

    def refresh(self, family: str | None, refresh_token: str, error: str | None) -> None:
        """A refresh token was presented, and exchanged unless there is an ``error``."""
        digest = hashlib.sha256(refresh_token.encode()).hexdigest()
        with self._lock:
            self._presented[digest] += 1
            self._refreshes += error is None
            name = self._login_of_family.get(family) if family else None
            if name is not None:
                self._logins.setdefault(name, Counter())["refreshes" if error is None else error] += 1

    def resource_request(self, status: int) -> None:
        """The protected resource answered with this status."""
        with self._lock:
            self._resource[status] += 1

    def as_dict(self) -> dict[str, Any]:
        """All counters, ready for JSON.

        ``most_presentations`` is how often the most presented refresh token was presented: 1 where nobody
        spends twice.
        """
        with self._lock:
            return {
                "token_requests": dict(self._grants),
                "errors": dict(self._errors),
                "invalid_grant": self._errors["invalid_grant"],
                "refreshes": self._refreshes,
                "refresh_tokens_presented": len(self._presented),
                "most_presentations": max(self._presented.values(), default=0),
                "resource_ok": self._resource[200],
                "resource_401": self._resource[401],
                "logins": {
                    name: {"refreshes": counts["refreshes"], "invalid_grant": counts["invalid_grant"]}
                    for name, counts in self._logins.items()
                },
            }


STATS = Stats()
