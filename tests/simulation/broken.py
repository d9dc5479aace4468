"""The protocol with one of its safeguards taken out at a time: what the rules have to notice."""

from collections.abc import Callable
from typing import Any

import pytest
from simulation.world import World

from ledger import decide, look, provenance, publishing, refresh
from ledger.commands import Publication
from ledger.effects import Procedure, step
from ledger.events import AttemptEnd, Holder
from ledger.handle import RefreshAttempt
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recovery import marked_for
from ledger.state import LeaseState
from ledger.tokens import PersistedTokens
from ledger.watch import AttemptWatch

Break = Callable[[pytest.MonkeyPatch], None]


def without_the_guard(patch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the login guard."""
    patch.setattr(World, "guard_is_free", lambda world, key: True)


def with_the_event_first(patch: pytest.MonkeyPatch) -> None:
    """A refresh is recorded first and its tokens are saved afterwards."""
    record = publishing._Publishing._record

    def later(self: Any, state: LeaseState, marked: PersistedTokens) -> Procedure[None]:
        yield from step(lambda: None)

    def record_then_save(self: Any, publication: Publication, *, late: bool) -> None:
        record(self, publication, late=late)
        self.store.save(self.key, marked_for(publication, self.attempt.id, self.received))

    patch.setattr(publishing._Publishing, "_save", later)
    patch.setattr(publishing._Publishing, "_record", record_then_save)


def without_fencing(patch: pytest.MonkeyPatch) -> None:
    """An attempt that was overtaken publishes all the same."""
    patch.setattr(publishing._Publishing, "_is_only_live_token", lambda self, state: True)
    patch.setattr(decide, "_check_attempt", lambda key, state, command: None)


def without_the_right_to_refresh(patch: pytest.MonkeyPatch) -> None:
    """Whoever needs fresh tokens refreshes them, whoever else does too."""

    def begin(self: Any, state: LeaseState, tokens: PersistedTokens) -> Procedure[RefreshAttempt]:
        yield from step(lambda: None)
        return RefreshAttempt("none", self.key, state.version, 0, 1000)

    def ready(self: Any, attempt: RefreshAttempt, tokens: PersistedTokens) -> Procedure[bool]:
        yield from step(lambda: None)
        return True

    patch.setattr(refresh._Fresh, "_begin", begin)
    patch.setattr(refresh._Fresh, "_is_still_ours", ready)


def without_a_last_check(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether the attempt is still open right before sending."""

    def ready(self: Any, attempt: RefreshAttempt, tokens: PersistedTokens) -> Procedure[bool]:
        stored = yield from step(lambda: self.store.load(self.key))
        yield from step(lambda: self.ledger.state(self.key))
        return stored is not None

    patch.setattr(refresh._Fresh, "_is_still_ours", ready)


def with_impatience(patch: pytest.MonkeyPatch) -> None:
    """Whoever waits takes over at once."""
    patch.setattr(AttemptWatch, "is_over", lambda self, now_s, is_gone: True)


def with_endless_patience(patch: pytest.MonkeyPatch) -> None:
    """Nobody ever takes over, and nobody ever gives up."""

    def never(self: Any, now_s: float, is_gone: Callable[[Holder], bool]) -> bool:
        return False

    patch.setattr(AttemptWatch, "is_over", never)
    patch.setattr(refresh, "PATIENCE_IN_DEADLINES", 10**9)


def with_losers_that_try_again(patch: pytest.MonkeyPatch) -> None:
    """Those who waited for a refresh that failed try it again one by one."""
    patch.setattr(refresh._Fresh, "_failure_to_share", lambda self, state: None)


def without_recovery(patch: pytest.MonkeyPatch) -> None:
    """Nobody finishes what a crash left."""

    def nothing(*_: Any) -> Procedure[None]:
        yield from step(lambda: None)

    patch.setattr(refresh, "recover", nothing)


def with_any_tokens(patch: pytest.MonkeyPatch) -> None:
    """Whatever is stored counts as current."""
    patch.setattr(look, "_USABLE", tuple(provenance.TokenClass))


def with_late_answers_thrown_away(patch: pytest.MonkeyPatch) -> None:
    """A response that comes after a take-over is dropped though it holds the only live token."""
    patch.setattr(publishing._Publishing, "_is_only_live_token", lambda self, state: False)


def with_guessed_endings(patch: pytest.MonkeyPatch) -> None:
    """Whatever fails for now is said not to have been sent."""
    refresh_failed = LeaseLedger.refresh_failed

    def guess(ledger: LeaseLedger, key: LeaseKey, permanent: bool, **facts: Any) -> None:
        facts["ended"] = None if facts.get("abandoned") else AttemptEnd.NOT_SENT
        refresh_failed(ledger, key, permanent, **facts)

    patch.setattr(LeaseLedger, "refresh_failed", guess)


def without_endings(patch: pytest.MonkeyPatch) -> None:
    """Nobody says how an attempt ended."""
    refresh_failed = LeaseLedger.refresh_failed

    def say_nothing(ledger: LeaseLedger, key: LeaseKey, permanent: bool, **facts: Any) -> None:
        refresh_failed(ledger, key, permanent, **{**facts, "ended": None})

    patch.setattr(LeaseLedger, "refresh_failed", say_nothing)


BREAKS: tuple[Break, ...] = (
    without_the_guard,
    with_the_event_first,
    without_fencing,
    without_the_right_to_refresh,
    without_a_last_check,
    with_impatience,
    with_endless_patience,
    with_losers_that_try_again,
    without_recovery,
    with_any_tokens,
    with_late_answers_thrown_away,
    with_guessed_endings,
    without_endings,
)
