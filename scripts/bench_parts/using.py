"""What using a credential costs: one that is valid, and one that another process is refreshing."""

import multiprocessing
import time
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from bench_parts.measuring import Ratio, compare, seconds_of
from ledger import Credentials, FileTokenStore, LeaseKey, LeaseLedger, PersistedTokens

__all__ = ["fresh_ratio", "waiter_delays_ms"]

KEY = LeaseKey("bench", "login")


def _tokens(number: int, lives_s: int) -> PersistedTokens:
    return PersistedTokens(
        "external_tokens",
        primary_secret=f"access-{number}",
        refresh_token=f"refresh-{number}",
        expires_at=int(time.time()) + lives_s,
        scopes=["read", "write"],
    )


def _no_refresh(tokens: PersistedTokens) -> PersistedTokens:
    raise AssertionError("valid tokens are not refreshed")


def fresh_ratio(folder: Path, rounds: int, repeats: int) -> Ratio:
    """``fresh`` with valid tokens against reading the token file alone; the target is file + 100 us."""
    with LeaseLedger.open(f"sqlite:///{folder}/fresh.db") as ledger:
        store = FileTokenStore(folder / "fresh-tokens")
        credentials = Credentials(ledger, store)
        credentials.login(KEY, _tokens(1, 86_400))

        def fresh(_: int) -> float:
            return seconds_of(lambda: [credentials.fresh(KEY, _no_refresh) for _ in range(repeats)]) / repeats

        def load(_: int) -> float:
            return seconds_of(lambda: [store.load(KEY) for _ in range(repeats)]) / repeats

        taken = compare({"fresh": fresh, "load": load}, rounds)
    ours, theirs = 1e6 * median(taken["fresh"]), 1e6 * median(taken["load"])
    return Ratio(
        what="fresh with valid tokens",
        ours=ours,
        against="reading the token file",
        theirs=theirs,
        unit="us",
        ratio=ours / theirs,
        target=(theirs + 100) / theirs,
        at_most=True,
    )


def _wait_for_outcome(url: str, tokens: Path, ready: Connection) -> None:
    with LeaseLedger.open(url, actor="waiter") as ledger:
        credentials = Credentials(ledger, FileTokenStore(tokens), refresh_deadline=30)
        while ready.recv():
            ready.send("waiting")
            credentials.fresh(KEY, _no_refresh, leeway=3_000)
            ready.send(time.time())


def waiter_delays_ms(folder: Path, rounds: int) -> list[float]:
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
            delays.append(1000 * max(here.recv() - won_at, 0))
        here.send(False)
        waiter.join()
    return sorted(delays)
