"""Incidents, each made by running the real code with the fault that makes it. Each returns the verdict afterwards."""

import asyncio
import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import die, failing
from keyring.backend import KeyringBackend
from keyring.errors import KeyringLocked
from projections_explain.scenes import HOUR_S, KEY, Scene, never, unbounded

from ledger import aio
from ledger.keys import LeaseKey
from ledger.lifecycle import TokenClearFailed
from ledger.refresh_errors import LedgerBehindStore, ReauthRequired, RefreshError, TokensElsewhere, TokensNotSaved
from ledger.store_errors import KeyringUnavailable, TokenIOError, TokenSerializationError
from ledger.stores import FileTokenStore, KeyringTokenStore
from ledger.tokens import PersistedTokens
from projections.explain import Verdict

DISK_FULL = TokenIOError("no space left on device")


def a_refresh_race(scene: Scene) -> Verdict:
    """Six agents need the same refresh at the same moment; one of them does it, all get its tokens."""
    scene.log_in()
    together = threading.Barrier(6)

    def run(name: str) -> str | None:
        agent = scene.agent(name)
        together.wait()
        return agent.fresh(KEY, scene.server.refresh, leeway=HOUR_S).primary_secret

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(run, [f"agent-{n}" for n in range(6)]))) == 1
    assert scene.server.outcomes() == ["ok"]
    return scene.explain(scene.tokens)


def a_crash_after_the_exchange(scene: Scene) -> Verdict:
    """The server rotated the refresh token, and the process died with the answer in its hands."""
    scene.log_in()

    def answered_and_died(tokens: PersistedTokens) -> PersistedTokens:
        scene.server.refresh(tokens)
        die()
        raise AssertionError

    scene.in_a_process_that_dies(lambda: scene.agent("agent-a").fresh(KEY, answered_and_died))
    with pytest.raises(ReauthRequired):
        scene.agent("agent-b").fresh(KEY, scene.server.refresh, leeway=HOUR_S)
    return scene.explain(scene.tokens)


def a_crash_after_the_save(scene: Scene) -> Verdict:
    """The new tokens were saved, and the process died before their event."""
    scene.log_in()
    store = scene.faulty_store()
    store.faults.after("save", die)
    scene.in_a_process_that_dies(lambda: scene.agent("agent-a", store).fresh(KEY, scene.server.refresh))
    scene.agent("agent-b").fresh(KEY, never)
    return scene.explain(scene.tokens)


def a_crash_after_the_save_before_anyone_comes(scene: Scene) -> Verdict:
    """The same, looked at before anybody else used the key."""
    scene.log_in()
    store = scene.faulty_store()
    store.faults.after("save", die)
    scene.in_a_process_that_dies(lambda: scene.agent("agent-a", store).fresh(KEY, scene.server.refresh))
    return scene.explain(scene.tokens)


def a_failed_logout(scene: Scene) -> Verdict:
    """The token file could not be removed."""
    scene.log_in()
    store = scene.faulty_store()
    store.faults.before("clear", failing(DISK_FULL))
    with pytest.raises(TokenClearFailed):
        scene.agent("agent-a", store).logout(KEY)
    return scene.explain(scene.tokens)


def a_logout_during_a_refresh(scene: Scene) -> Verdict:
    """Somebody logged out while a refresh was on its way; its answer came after."""
    scene.log_in()
    person = scene.agent("person")

    def overtaken(tokens: PersistedTokens) -> PersistedTokens:
        answer = scene.server.refresh(tokens)
        person.logout(KEY)
        return answer

    with pytest.raises(ReauthRequired):
        scene.agent("agent-a", revoke=scene.server.revoke).fresh(KEY, overtaken)
    assert scene.server.revoked()
    return scene.explain(scene.tokens)


def a_clock_going_back(scene: Scene) -> Verdict:
    """The clock was set back an hour between login and refresh."""
    scene.log_in()
    scene.moved_ms = -HOUR_S * 1000
    scene.agent("agent-a").fresh(KEY, scene.server.refresh, window=2 * HOUR_S)
    return scene.explain(scene.tokens)


def a_copied_token_file(scene: Scene) -> Verdict:
    """Two machines with ledgers of their own were given one login; the other one refreshed first."""
    tokens = scene.log_in()
    laptop = scene.agent("laptop", FileTokenStore(scene.folder / "laptop"), "laptop.db")
    laptop.login(KEY, tokens)
    laptop.fresh(KEY, scene.server.refresh)
    with pytest.raises(ReauthRequired):
        scene.agent("agent-a").fresh(KEY, scene.server.refresh)
    return scene.explain(scene.tokens)


def a_copied_token_file_with_both_ledgers_at_hand(scene: Scene) -> Verdict:
    """The same, when the ledgers share a fingerprint key and both can be asked."""
    a_copied_token_file(scene)
    return scene.explain(scene.tokens, peers=[scene.ledger("auditor", "laptop.db")])


def a_permanent_refusal_hammered(scene: Scene) -> Verdict:
    """The server refused the client for good; twenty calls later it has still been asked but once."""
    scene.log_in()
    scene.server.will_fail(RefreshError(True, "invalid_client", 401))
    agents = [scene.agent(f"agent-{n}") for n in range(4)]
    for agent in agents * 5:
        with pytest.raises(ReauthRequired):
            agent.fresh(KEY, scene.server.refresh)
    assert scene.server.outcomes() == ["fault"]
    return scene.explain(scene.tokens)


def a_restore_of_an_unbounded_lease_long_after(scene: Scene) -> Verdict:
    """A lease without expiry, a year old, whose logout failed: it comes back unbounded, not expired."""
    scene.agent("person").login(KEY, unbounded(scene.server.log_in()))
    scene.moved_ms = 365 * 24 * HOUR_S * 1000
    store = scene.faulty_store()
    store.faults.before("clear", failing(DISK_FULL))
    with pytest.raises(TokenClearFailed):
        scene.agent("agent-a", store).logout(KEY)
    return scene.explain(scene.tokens)


class LockedKeyring(KeyringBackend):
    """A keyring whose owner went away."""

    priority = -10  # pyright: ignore[reportAssignmentType]

    def get_password(self, service: str, username: str) -> str | None:
        raise KeyringLocked("unlock it first")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise KeyringLocked("unlock it first")

    def delete_password(self, service: str, username: str) -> None:
        raise KeyringLocked("unlock it first")


def a_locked_keychain(scene: Scene) -> Verdict:
    """The tokens lie in a keychain that is locked: unavailable is not absent."""
    scene.log_in(lives=HOUR_S)
    locked = KeyringTokenStore("test", LockedKeyring(), lock_root=scene.folder / "locks")
    with pytest.raises(KeyringUnavailable):
        scene.agent("agent-a", locked).fresh(KEY, scene.server.refresh)
    return scene.explain(locked)


def a_save_that_fails_for_good(scene: Scene) -> Verdict:
    """The server gave new tokens, and the disk was full for as long as the attempt lived."""
    scene.log_in()
    store = scene.faulty_store()
    store.faults.before("save", failing(DISK_FULL))
    with pytest.raises(TokensNotSaved):
        scene.agent("agent-a", store, refresh_deadline=0.05).fresh(KEY, scene.server.refresh)
    return scene.explain(scene.tokens)


def a_save_that_failed_and_a_refresh_after_it(scene: Scene) -> Verdict:
    """The same, and then the next agent spent the old refresh token again."""
    a_save_that_fails_for_good(scene)
    scene.moved_ms = 60_000
    with pytest.raises(ReauthRequired):
        scene.agent("agent-b").fresh(KEY, scene.server.refresh)
    return scene.explain(scene.tokens)


def a_guard_not_to_be_had_after_the_answer(scene: Scene) -> Verdict:
    """The server gave new tokens, and then the lease could not be locked to save them."""
    scene.log_in()
    locks = scene.folder / "auth.db.locks"

    def answered(tokens: PersistedTokens) -> PersistedTokens:
        for lock in locks.iterdir():
            lock.unlink()
        locks.rmdir()
        locks.write_text("a file where the folder should be")
        return scene.server.refresh(tokens)

    with pytest.raises(TokensNotSaved):
        scene.agent("agent-a").fresh(KEY, answered)
    locks.unlink()
    return scene.explain(scene.tokens)


def a_token_that_another_key_had_spent(scene: Scene) -> Verdict:
    """One login was stored under two keys; the other one refreshed first."""
    other = LeaseKey.parse("dev:openai:home")
    scene.agent("person").login(other, scene.log_in())
    scene.agent("agent-b").fresh(other, scene.server.refresh)
    with pytest.raises(ReauthRequired):
        scene.agent("agent-a").fresh(KEY, scene.server.refresh)
    return scene.explain(scene.tokens)


def _passing_quickly() -> Callable[[], float]:
    return itertools.count(0, 45).__next__


def a_silent_holder_taken_over(scene: Scene) -> Verdict:
    """An agent began a refresh and fell silent; another waited as long as that may take, and did it."""
    scene.log_in()
    patient = scene.agent("agent-b", monotonic=_passing_quickly())

    def silent(_: PersistedTokens) -> PersistedTokens:
        patient.fresh(KEY, scene.server.refresh, leeway=HOUR_S)
        raise ConnectionError

    scene.agent("agent-a").fresh(KEY, silent)
    return scene.explain(scene.tokens)


def a_late_response_adopted(scene: Scene) -> Verdict:
    """The holder was given up, the one who took over failed, and then the answer came after all."""
    scene.log_in()
    patient = scene.agent("agent-b", monotonic=_passing_quickly())

    def slow(tokens: PersistedTokens) -> PersistedTokens:
        answer = scene.server.refresh(tokens)
        scene.server.will_fail(RefreshError(False, "temporarily_unavailable", 503))
        with pytest.raises(RefreshError):
            patient.fresh(KEY, scene.server.refresh, leeway=HOUR_S)
        return answer

    scene.agent("agent-a").fresh(KEY, slow)
    return scene.explain(scene.tokens)


def a_login_whose_save_failed(scene: Scene) -> Verdict:
    """A second login could not be stored; the first one counts again."""
    scene.log_in("first person", lives=HOUR_S)
    store = scene.faulty_store()
    store.faults.before("save", failing(DISK_FULL))
    with pytest.raises(TokensNotSaved):
        scene.agent("second person", store).login(KEY, scene.server.log_in())
    return scene.explain(scene.tokens)


def a_login_killed_before_its_save(scene: Scene) -> Verdict:
    """The process of a first login died between its event and its save, and nobody has come since."""
    store = scene.faulty_store()
    store.faults.before("save", die)
    scene.in_a_process_that_dies(lambda: scene.agent("person", store).login(KEY, scene.server.log_in(lives=HOUR_S)))
    return scene.explain(scene.tokens)


def a_login_killed_before_its_save_and_undone(scene: Scene) -> Verdict:
    """The same, after the next use of the key."""
    a_login_killed_before_its_save(scene)
    with pytest.raises(ReauthRequired):
        scene.agent("agent-a").fresh(KEY, never)
    return scene.explain(scene.tokens)


def a_restored_backup(scene: Scene) -> Verdict:
    """The ledger was restored from a backup taken before the last refresh; the tokens were not."""
    scene.log_in()
    with contextlib.closing(sqlite3.connect(scene.folder / "auth.db")) as source:
        source.execute("VACUUM INTO ?", (str(scene.folder / "restored.db"),))
    scene.agent("agent-a").fresh(KEY, scene.server.refresh)
    with pytest.raises(LedgerBehindStore):
        scene.agent("agent-b", ledger="restored.db").fresh(KEY, never)
    return scene.explain(scene.tokens, ledger="restored.db")


def tokens_elsewhere(scene: Scene) -> Verdict:
    """Another machine refreshed into its own store; the tokens here are those of the generation before."""
    tokens = scene.log_in()
    elsewhere = FileTokenStore(scene.folder / "elsewhere")
    stored = scene.tokens.load(KEY)
    assert stored is not None and stored.refresh_token == tokens.refresh_token
    elsewhere.save(KEY, stored)
    scene.agent("agent-a", elsewhere).fresh(KEY, scene.server.refresh)
    with pytest.raises(TokensElsewhere):
        scene.agent("agent-b").fresh(KEY, never)
    return scene.explain(scene.tokens)


def a_server_that_is_busy(scene: Scene) -> Verdict:
    """The server answered 503 and asked to be left alone for half a minute."""
    scene.log_in()
    scene.server.will_fail(RefreshError(False, "temporarily_unavailable", 503, 30))
    with pytest.raises(RefreshError):
        scene.agent("agent-a").fresh(KEY, scene.server.refresh, leeway=HOUR_S)
    return scene.explain(scene.tokens)


def a_cancelled_exchange(scene: Scene) -> Verdict:
    """The task that was refreshing was cancelled while it waited for the server."""
    scene.log_in()

    async def run() -> None:
        sending = asyncio.Event()

        async def never_answered(_: PersistedTokens) -> PersistedTokens:
            sending.set()
            await asyncio.sleep(HOUR_S)
            raise AssertionError

        agent = aio.Credentials(scene.ledger("agent-a"), scene.tokens)
        task = asyncio.create_task(agent.fresh(KEY, never_answered, leeway=HOUR_S))
        await sending.wait()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(run())
    return scene.explain(scene.tokens)


def a_login_revoked_at_the_server(scene: Scene) -> Verdict:
    """Somebody ended the session on the provider's web page; the first refresh since was refused."""
    scene.server.revoke(scene.log_in())
    with pytest.raises(ReauthRequired):
        scene.agent("agent-a").fresh(KEY, scene.server.refresh)
    return scene.explain(scene.tokens)


def an_unreadable_token_file(scene: Scene) -> Verdict:
    """The token file holds half of what it should."""
    scene.log_in(lives=HOUR_S)
    path = scene.tokens.path_of(KEY)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TokenSerializationError):
        scene.agent("agent-a").fresh(KEY, scene.server.refresh)
    return scene.explain(scene.tokens)
