"""What using a credential costs: one that is valid, and one that another process is refreshing."""

import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from bench_parts.measuring import Figure, compare, seconds_of
from ledger import Credentials, FileTokenStore, LeaseKey, LeaseLedger, PersistedAuthMode, PersistedTokens

__all__ = ["using"]

FRESH_TARGET_US = 100
WAITER_TARGET_MS = 50

KEY = LeaseKey("bench", "login")


def _tokens(number: int, lives_s: int) -> PersistedTokens:
    return PersistedTokens(
        PersistedAuthMode.EXTERNAL_TOKENS,
        primary_secret=f"access-{number}",
        refresh_token=f"refresh-{number}",
        expires_at=int(time.time()) + lives_s,
        scopes=["read", "write"],
    )


def _no_refresh(tokens: PersistedTokens) -> PersistedTokens:
    raise AssertionError("valid tokens are not refreshed")


def using(folder: Path, rounds: int, repeats: int, refreshes: int) -> Iterator[Figure]:
    """Measure ``fresh`` with valid tokens, and waiting for so many refreshes of another process."""
    yield from _fresh(folder, rounds, repeats)
    delays = _waiter_delays_ms(folder, refreshes)
    yield Figure("waiter returns after the winner, p95", delays[int(0.95 * len(delays))], "ms", WAITER_TARGET_MS)


def _fresh(folder: Path, rounds: int, repeats: int) -> Iterator[Figure]:
    """``fresh`` with valid tokens, and what it takes beyond reading the token file."""
    with LeaseLedger.open(f"sqlite:///{folder}/fresh.db") as ledger:
        store = FileTokenStore(folder / "fresh-tokens")
        credentials = Credentials(ledger, store)
        credentials.login(KEY, _tokens(1, 86_400))

        def fresh(_: int) -> float:
            return seconds_of(lambda: [credentials.fresh(KEY, _no_refresh) for _ in range(repeats)]) / repeats

        def load(_: int) -> float:
            return seconds_of(lambda: [store.load(KEY) for _ in range(repeats)]) / repeats

        taken = compare({"fresh": fresh, "load": load}, rounds)
    beyond = median(1e6 * (ours - theirs) for ours, theirs in zip(taken["fresh"], taken["load"], strict=True))
    yield Figure("fresh with valid tokens", 1e6 * median(taken["fresh"]), "us")
    yield Figure("fresh with valid tokens, beyond reading the token file", beyond, "us", FRESH_TARGET_US)


def _wait_for_outcome(url: str, tokens: Path, ready: Connection) -> None:
    with LeaseLedger.open(url, actor="waiter") as ledger:
        credentials = Credentials(ledger, FileTokenStore(tokens), refresh_deadline=30)
        while ready.recv():
            ready.send("waiting")
            # The tokens of the refresh before are good for less than this, so it has to wait.
            found = credentials.fresh(KEY, _no_refresh, window=7_200, leeway=7_200)
            ready.send((time.time(), found.primary_secret))


def _waiter_delays_ms(folder: Path, rounds: int) -> list[float]:
    """Milliseconds from the winner's return to that of a waiter in another process, sorted."""
    url, tokens = f"sqlite:///{folder}/waiting.db", folder / "waiting-tokens"
    here, there = multiprocessing.Pipe()
    waiter = multiprocessing.get_context("spawn").Process(target=_wait_for_outcome, args=(url, tokens, there))
    delays = []
    with LeaseLedger.open(url, actor="winner") as ledger:
        credentials = Credentials(ledger, FileTokenStore(tokens), refresh_deadline=30)
        credentials.login(KEY, _tokens(0, 1))
        waiter.start()
        for number in range(1, rounds + 1):

            def refresh(_: PersistedTokens, number: int = number) -> PersistedTokens:
                here.send(True)
                here.recv()
                time.sleep(0.05)
                return _tokens(number, 3_600)

            credentials.fresh(KEY, refresh, window=7_200)
            won_at = time.time()
            returned_at, secret = here.recv()
            assert secret == f"access-{number}", "the waiter did not wait for the outcome"
            delays.append(1000 * max(returned_at - won_at, 0))
        here.send(False)
        waiter.join()
    return sorted(delays)
