"""A model of an authorization server whose refresh tokens may be spent once.

A login begins a lineage of refresh tokens, ``L3.0``, ``L3.1`` and so on, each the successor of the one before: so any
copy of a token tells its lineage and its age.
"""

from ledger.refresh_errors import RefreshError
from ledger.tokens import PersistedAuthMode, PersistedTokens

Age = tuple[str, int]
"""A lineage and a serial number in it."""


def age_of(tokens: PersistedTokens) -> Age:
    """Which lineage the tokens are of, and how far along."""
    assert tokens.refresh_token is not None
    lineage, _, serial = tokens.refresh_token.partition(".")
    return lineage, int(serial)


def refresh_token_of(age: Age) -> str:
    """The refresh token of that age."""
    return f"{age[0]}.{age[1]}"


class AuthorizationServer:
    """Rotates refresh tokens.

    Args:
        reuse_revokes: Whether a refresh token spent before takes its whole lineage down, or is refused alone.
    """

    def __init__(self, *, reuse_revokes: bool) -> None:
        self.reuse_revokes = reuse_revokes
        self.newest: dict[str, int] = {}
        self.dead: set[str] = set()

    def log_in(self, lineage: str, expires_at: int) -> PersistedTokens:
        """The first tokens of a lineage."""
        self.newest[lineage] = 0
        return self._tokens(lineage, expires_at)

    def is_live(self, age: Age) -> bool:
        """Whether that refresh token could be spent."""
        return age[0] not in self.dead and self.newest.get(age[0]) == age[1]

    def is_spent(self, age: Age) -> bool:
        """Whether that refresh token has a successor."""
        return self.newest[age[0]] > age[1]

    def refresh(self, age: Age, expires_at: int) -> PersistedTokens:
        """Spend a refresh token; whoever spends one again is refused."""
        lineage = age[0]
        if not self.is_live(age):
            if self.reuse_revokes:
                self.dead.add(lineage)
            raise RefreshError(True, "invalid_grant", 400)
        self.newest[lineage] += 1
        return self._tokens(lineage, expires_at)

    def revoke(self, lineage: str) -> None:
        """Take a lineage down."""
        self.dead.add(lineage)

    def _tokens(self, lineage: str, expires_at: int) -> PersistedTokens:
        name = f"{lineage}.{self.newest[lineage]}"
        return PersistedTokens(
            PersistedAuthMode.CLAUDE_AI_OAUTH,
            primary_secret=f"access-{name}",
            refresh_token=name,
            expires_at=expires_at,
        )
