"""Ledgers to report on: a small incident that a person can follow, and a large one."""

import random

from ledger import LeaseKey, LeaseLedger

START_MS = 1_790_000_000_000
WORK, CI, DOCS = (LeaseKey.parse(text) for text in ("dev:openai:work", "prod:anthropic:ci", "dev:google:docs"))
AGENTS = ("planner@build-3", "coder-1@build-3", "coder-2@build-7")


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms

    def forward(self, seconds: float) -> int:
        """Move on, and return epoch seconds."""
        self.now_ms += round(seconds * 1000)
        return self.now_ms // 1000


def agents(clock: Clock) -> list[LeaseLedger]:
    """One ledger in memory, as three agents see it."""
    first = LeaseLedger.open("memory://", clock=clock, actor=AGENTS[0])
    return [first, *(LeaseLedger(first.recorder, clock=clock, actor=actor) for actor in AGENTS[1:])]


def incident() -> LeaseLedger:
    """A morning in which one login is lost: its refresh token was spent by somebody else."""
    clock = Clock()
    planner, coder, other = agents(clock)
    for ledger, key in ((planner, WORK), (coder, CI), (other, DOCS)):
        ledger.acquire_lease(key, clock.forward(130) + 3600, cause="login in the browser", correlation_id="morning")
    clock.forward(2700)
    planner.mark_expiring(WORK)
    attempt = planner.begin_refresh(WORK, fingerprint=planner.fingerprint("refresh token 1"))
    planner.complete_refresh(WORK, clock.forward(140) + 3600, clock.now_ms // 1000, attempt)
    clock.forward(300)
    attempt = coder.begin_refresh(CI)
    clock.forward(240)
    coder.refresh_failed(CI, False, attempt=attempt, error="timeout", status=504, retry_after=30)
    clock.forward(200)
    attempt = other.begin_refresh(CI)
    other.complete_refresh(CI, clock.forward(150) + 3600, clock.now_ms // 1000, attempt)
    clock.forward(900)
    before = other.snapshot(DOCS)
    other.release_lease(DOCS, cause="logout")
    clock.forward(180)
    other.restore_auth_lifecycle_snapshot(DOCS, before, cause="the token file could not be cleared")
    clock.forward(600)
    coder.mark_expiring(WORK)
    clock.forward(240)
    attempt = coder.begin_refresh(WORK, fingerprint=coder.fingerprint("refresh token 2"))
    clock.forward(200)
    coder.refresh_failed(WORK, True, attempt=attempt, error="invalid_grant", status=400)
    clock.forward(420)
    return planner


def large(events: int, leases: int, seed: int = 1) -> LeaseLedger:
    """A ledger of about so many events, the same at every call."""
    random_source, clock = random.Random(seed), Clock()
    ledgers = agents(clock)
    keys = [LeaseKey("dev", f"binding-{number:03}") for number in range(leases)]
    while ledgers[0].recorder.last_position() < events:
        clock.forward(random_source.uniform(0.5, 90))
        _step(random_source.choice(ledgers), random_source.choice(keys), random_source, clock)
    return ledgers[0]


def _step(ledger: LeaseLedger, key: LeaseKey, random_source: random.Random, clock: Clock) -> None:
    phase, chance = ledger.snapshot(key).phase, random_source.random()
    if phase is None or (phase == "reauth_required" and chance < 0.4):
        ledger.acquire_lease(key, clock.now_ms // 1000 + 3600)
    elif phase == "valid" and chance < 0.1:
        ledger.release_lease(key, cause="logout")
    elif phase == "valid":
        ledger.mark_expiring(key)
    elif phase == "expiring":
        attempt = ledger.begin_refresh(key)
        now = clock.forward(random_source.uniform(0.3, 20))
        if chance < 0.8:
            ledger.complete_refresh(key, now + 3600, now, attempt)
        else:
            ledger.refresh_failed(key, chance > 0.95, attempt=attempt, error="timeout")
