"""``login``, ``logout`` and ``status``."""

from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from ledger.credentials import Credentials
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.snapshot import NEVER_EXPIRES, AuthLeasePhase
from ledger.status import AuthStatusPhase, project_published_auth_status
from ledger.store_errors import UNUSABLE_TOKENS
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens, persisted_token_expires_at_epoch_secs
from projections.cli.output import Output, styled
from projections.cli.session import Session, any_key_argument, check_words, json_option, key_argument, read_tokens
from projections.cli.tables import Row
from projections.times import utc_from_s

__all__ = ["LeaseStatus", "LoggedIn", "LoggedOut", "login", "logout", "status"]


class LoggedIn(msgspec.Struct, frozen=True):
    """The answer of ``login``. ``expires_at`` is in epoch seconds, ``None`` for never; ``published_at`` in ms."""

    key: str
    generation: int
    expires_at: int | None
    published_at: int
    event_id: str | None
    version: int | None


class LoggedOut(msgspec.Struct, frozen=True):
    """The answer of ``logout``."""

    key: str
    generation: int
    version: int | None


class LeaseStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer of ``status``.

    Attributes:
        key: The lease key as text.
        status: How the login stands, by the lease and the clock.
        phase: The lease's own phase; ``None`` when the key holds no lease.
        generation: How many credentials were published.
        expires_at: Epoch seconds; ``None`` means never.
        credential_present: Whether the lease holds a credential.
        tokens: ``stored``, ``none`` or ``unreadable``; ``None`` when no store was named.
        detail: Why they are unreadable.
    """

    key: str
    status: AuthStatusPhase
    phase: AuthLeasePhase | None
    generation: int
    expires_at: int | None
    credential_present: bool
    tokens: str | None
    detail: str | None = None


@click.command()
@key_argument
@click.option(
    "--tokens-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Read the tokens from this file instead of standard input.",
)
@click.option("--cause", metavar="TEXT", callback=check_words, help="Why, for the history. Never a secret.")
@json_option
@click.pass_obj
def login(session: Session, key: LeaseKey, tokens_file: Path | None, cause: str | None, as_json: bool) -> None:
    """Record a login and store its tokens.

    The tokens are read as JSON from standard input or a file: {"auth_mode": "external_tokens", "primary_secret": ...,
    "refresh_token": ..., "expires_at": EPOCH_SECONDS}. They are never taken from an argument, and never printed.

    \b
    Example:
      lease-ledger --db auth.db --store tokens login dev:openai:work < tokens.json
    """
    tokens = read_tokens(tokens_file)
    store = session.token_store(create=True)
    with session.ledger(create=True) as ledger:
        transition = Credentials(ledger, store).login(key, tokens, cause=cause)
    expiry = persisted_token_expires_at_epoch_secs(tokens)
    answer = LoggedIn(
        str(key),
        transition.generation,
        None if expiry == NEVER_EXPIRES else expiry,
        transition.credential_published_at_millis,
        transition.event_id,
        transition.version,
    )
    expires = utc_from_s(answer.expires_at)
    Output(as_json).one(answer, f"logged in {key}: generation {answer.generation}, expires {expires}")


@click.command()
@key_argument
@json_option
@click.pass_obj
def logout(session: Session, key: LeaseKey, as_json: bool) -> None:
    """Release a lease and destroy its stored tokens.

    If the tokens cannot be destroyed, the lease is put back and the command fails: never half logged out.

    \b
    Example:
      lease-ledger --db auth.db --store tokens logout dev:openai:work
    """
    store = session.token_store()
    with session.ledger(keys=[key], known_to=store) as ledger:
        Credentials(ledger, store).logout(key)
        snapshot = ledger.snapshot(key)
    Output(as_json).one(LoggedOut(str(key), snapshot.generation, snapshot.version), f"logged out {key}")


@click.command()
@any_key_argument
@json_option
@click.pass_obj
def status(session: Session, key: LeaseKey | None, as_json: bool) -> None:
    """Tell how logins stand: one of them, or all.

    Needs only the ledger. With --store it also tells whether tokens are stored. In JSON: one object for each key.

    \b
    Example:
      lease-ledger --db auth.db status dev:openai:work
    """
    store = None if session.store is None else session.token_store()
    headings = ("key", "status", "phase", "generation", "expires", "tokens")
    with session.ledger(keys=[key] if key else (), known_to=store) as ledger:
        answers = (_status(ledger, store, one) for one in ([key] if key else ledger.each_key()))
        Output(as_json).each(answers, headings, _status_row, empty="the ledger is empty: nobody has logged in yet")


def _status_row(answer: LeaseStatus) -> Row:
    return (
        answer.key,
        styled(answer.status),
        styled(answer.phase),
        str(answer.generation),
        utc_from_s(answer.expires_at) if answer.credential_present else "",
        _tokens_words(answer),
    )


def _tokens_words(answer: LeaseStatus) -> str:
    if answer.tokens is None:
        return "not asked"
    return answer.tokens if answer.detail is None else f"{answer.tokens}: {answer.detail}"


def _status(ledger: LeaseLedger, store: TokenStore | None, key: LeaseKey) -> LeaseStatus:
    tokens, found, detail = _stored(store, key)
    snapshot = ledger.snapshot(key)
    now = datetime.fromtimestamp(ledger.clock() / 1000, UTC)
    published = project_published_auth_status(now, tokens, snapshot)
    return LeaseStatus(
        str(key),
        published.phase,
        snapshot.phase,
        snapshot.generation,
        snapshot.expires_at,
        snapshot.credential_present,
        found,
        detail,
    )


def _stored(store: TokenStore | None, key: LeaseKey) -> tuple[PersistedTokens | None, str | None, str | None]:
    """The tokens of one key, what is known of them, and the reason when it is little."""
    if store is None:
        return None, None, None
    try:
        tokens = store.load(key)
    except UNUSABLE_TOKENS as error:
        return None, "unreadable", error.detail
    return tokens, "none" if tokens is None else "stored", None
