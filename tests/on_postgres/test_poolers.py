"""Behind a pooler: refused where sessions are shared out by transaction, used where each connection keeps its own."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from pgpooler import PGBOUNCER, bouncer, transaction_pool
from pgserver import admin, fresh_schema

from ledger.errors import LedgerStorageError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders import postgres_guard
from ledger.recorders.postgres_connections import PostgresConnections
from ledger.recorders.postgres_schema import initialise
from ledger.store_errors import TokenStoreError
from ledger.stores import PostgresTokenStore
from ledger.stores.encryption import new_token_key

KEY = LeaseKey.parse("dev:openai:work")
SHARING: dict[str, Callable[[str], AbstractContextManager[str]]] = {
    "the session used last": lambda url: transaction_pool(url, 3, next_one="last used"),
    "the session idle longest": lambda url: transaction_pool(url, 3, next_one="longest idle"),
    "one session": lambda url: transaction_pool(url, 1, next_one="last used"),
    "two sessions": lambda url: transaction_pool(url, 2, next_one="longest idle"),
    "pgbouncer by transaction": lambda url: bouncer(url, "transaction"),
    "pgbouncer by statement": lambda url: bouncer(url, "statement"),
}
needs_pgbouncer = pytest.mark.skipif(PGBOUNCER is None, reason="PgBouncer is not installed")


@pytest.fixture(params=SHARING)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if PGBOUNCER is None and "pgbouncer" in request.param:
        pytest.skip("PgBouncer is not installed")
    with SHARING[request.param](fresh_schema(tmp_path)) as url:
        yield url


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (LeaseLedger.open, LedgerStorageError),
        (lambda url: initialise(url, "aa" * 16), LedgerStorageError),
        (lambda url: PostgresTokenStore(url, key=new_token_key()), TokenStoreError),
    ],
    ids=["ledger", "init", "token store"],
)
def test_sessions_shared_out_by_transaction_are_refused_when_opened(
    shared: str, tmp_path: Path, use: Callable[[str], object], error: type[Exception]
) -> None:
    with pytest.raises(error, match="pool_mode = session") as refused:
        use(shared)
    assert "\n" not in str(refused.value)
    with admin(fresh_schema(tmp_path)) as sql:
        schema = shared.rpartition("=")[2]
        assert sql.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() == (None,)
        assert sql.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone() == (0,)
    with admin(shared) as through:
        for _ in range(4):
            assert through.execute("SHOW search_path").fetchone() == ('"$user", public',)


@needs_pgbouncer
def test_a_pooler_that_keeps_a_session_for_each_connection_serves(tmp_path: Path) -> None:
    with bouncer(fresh_schema(tmp_path), "session") as url, LeaseLedger.open(url) as ledger:
        ledger.acquire_lease(KEY, 500)
        guard = ledger.recorder.guard_lock(str(KEY))
        assert guard is not None and guard.try_acquire("me")
        with LeaseLedger.open(fresh_schema(tmp_path)) as direct:
            theirs = direct.recorder.guard_lock(str(KEY))
            assert theirs is not None and not theirs.try_acquire("they")
            guard.release()
            assert theirs.try_acquire("they")
        assert ledger.verify().ok


def test_a_session_that_turns_out_to_be_shared_later_gives_no_guard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a running program's connections are moved behind such a pooler."""
    monkeypatch.setattr(PostgresConnections, "_refuse_shared", lambda *_: None)
    LeaseLedger.open(fresh_schema(tmp_path)).close()
    with transaction_pool(fresh_schema(tmp_path), 3, next_one="longest idle") as url, LeaseLedger.open(url) as ledger:
        session = postgres_guard.GuardSession(ledger.recorder._connections)  # type: ignore[attr-defined]
        locks = [postgres_guard.AdvisoryGuardLock(session, ledger.ledger_id, f"dev:{n}") for n in range(3)]
        with pytest.raises(LedgerStorageError, match="pool_mode = session"):
            for lock in locks:
                lock.try_acquire("me")
