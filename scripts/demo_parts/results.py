"""What came of a half, as the server counted it, and both halves side by side."""

from dataclasses import dataclass
from typing import Any, Self

from rich.table import Table

__all__ = ["Result", "side_by_side"]


@dataclass(frozen=True)
class Result:
    """One half, counted by the server.

    Attributes:
        requests_ok: Requests the resource answered.
        requests_refused: Requests it refused with 401.
        refresh_requests: Refresh tokens sent to the token endpoint, granted or not.
        exchanges: Refresh requests that were granted.
        invalid_grant: Refresh requests (or codes) refused with ``invalid_grant``.
        forced_logins: Logins after the first.
        most_presentations: How often the most presented refresh token was sent.
        generations: Credentials the ledger says were published by a refresh; ``None`` without a ledger.
    """

    requests_ok: int
    requests_refused: int
    refresh_requests: int
    exchanges: int
    invalid_grant: int
    forced_logins: int
    most_presentations: int
    generations: int | None = None

    @classmethod
    def from_stats(cls, stats: dict[str, Any], generations: int | None = None) -> Self:
        """From the server's counters, of which the first login is no forced one."""
        return cls(
            requests_ok=stats["resource_ok"],
            requests_refused=stats["resource_401"],
            refresh_requests=stats["token_requests"].get("refresh_token", 0),
            exchanges=stats["refreshes"],
            invalid_grant=stats["invalid_grant"],
            forced_logins=stats["token_requests"]["authorization_code"] - 1,
            most_presentations=stats["most_presentations"],
            generations=generations,
        )

    def in_short(self) -> str:
        """One line, for the time being."""
        return (
            f"{self.requests_ok} requests, {self.exchanges} refreshes, "
            f"{self.invalid_grant} invalid_grant, {self.forced_logins} forced logins"
        )

    @property
    def exchanges_per_generation(self) -> str:
        """Granted refreshes for each credential published by one."""
        if self.generations is None:
            return "no generations"
        if self.generations == 0:
            return f"{self.exchanges} for none"
        return f"{self.exchanges / self.generations:.2f} ({self.exchanges}/{self.generations})"


def side_by_side(naive: Result, ledger: Result) -> Table:
    """Both halves in one table."""
    table = Table(title="One login, eight agents, counted by the server", title_justify="left")
    table.add_column("")
    table.add_column("without the ledger", justify="right")
    table.add_column("with the ledger", justify="right")
    rows = {
        "requests answered": "requests_ok",
        "requests refused (401)": "requests_refused",
        "refresh requests": "refresh_requests",
        "refreshes granted": "exchanges",
        "invalid_grant": "invalid_grant",
        "forced logins": "forced_logins",
        "most uses of one refresh token": "most_presentations",
        "exchanges per generation": "exchanges_per_generation",
    }
    for label, attribute in rows.items():
        table.add_row(label, str(getattr(naive, attribute)), str(getattr(ledger, attribute)))
    return table
