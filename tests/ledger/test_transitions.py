"""The table of transitions: every phase against every command, and every short sequence, held against a model.

The model is written out here a second time, as people read it; it shares nothing with the table the code uses.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from given import GUARD, HERE, HOLDER, KEY, NO_LEASE, Given, Refusal, given, open_attempt, told

from ledger.commands import (
    Acquire,
    BeginRefresh,
    Command,
    CompleteRefresh,
    FailRefresh,
    MarkExpiring,
    MarkReauthRequired,
    Release,
    ReleaseCredentialLifecycle,
    Restore,
)
from ledger.errors import CorruptHistory, LeaseTransitionError
from ledger.events import (
    LeaseAcquired,
    LeaseCredentialReleased,
    LeaseEvent,
    LeaseExpiring,
    LeaseReauthRequired,
    LeaseRefreshed,
    LeaseRefreshFailed,
    LeaseRefreshStarted,
    LeaseReleased,
    LeaseRestored,
    RestoredLease,
)
from ledger.phases import ALL_PHASES, BY_EVENT, TRANSITIONS, Target, Transition
from ledger.snapshot import AuthLeasePhase
from ledger.state import EMPTY_STATE, LeaseState, evolve, snapshot_of

TABLE: Final = """
command                      | no lease | valid           | expiring        | refreshing      | reauth_required
acquire                      | valid    | valid           | valid           | valid           | valid
mark_expiring                | NO_LEASE | expiring        | GUARD           | GUARD           | GUARD
begin_refresh                | NO_LEASE | refreshing      | refreshing      | GUARD           | GUARD
complete_refresh             | NO_LEASE | GUARD           | GUARD           | valid           | GUARD
refresh_failed transient     | NO_LEASE | GUARD           | GUARD           | expiring        | GUARD
refresh_failed permanent     | NO_LEASE | GUARD           | GUARD           | reauth_required | GUARD
mark_reauth_required         | NO_LEASE | reauth_required | reauth_required | reauth_required | GUARD
release                      | no lease | no lease        | no lease        | no lease        | no lease
release_credential_lifecycle | no lease | no lease        | no lease        | no lease        | no lease
"""

COMMANDS: Final[dict[str, Command]] = {
    "acquire": Acquire(expires_at=500),
    "mark_expiring": MarkExpiring(),
    "begin_refresh": BeginRefresh(60_000, HOLDER),
    "complete_refresh": CompleteRefresh(expires_at=900, refreshed_at=800, instance=HERE),
    "refresh_failed transient": FailRefresh(permanent=False, instance=HERE),
    "refresh_failed permanent": FailRefresh(permanent=True, instance=HERE),
    "mark_reauth_required": MarkReauthRequired(),
    "release": Release(),
    "release_credential_lifecycle": ReleaseCredentialLifecycle(),
}

ACQUIRED: Final = told(LeaseAcquired, generation=1, expires_at=500, published_at=1)
STARTED: Final = told(LeaseRefreshStarted, attempt="e2", duration_ms=60_000, holder=HOLDER)

HISTORIES: Final[dict[str, tuple[LeaseEvent, ...]]] = {
    "no lease": (ACQUIRED, told(LeaseReleased)),
    "valid": (ACQUIRED,),
    "expiring": (ACQUIRED, told(LeaseExpiring)),
    "refreshing": (ACQUIRED, STARTED),
    "reauth_required": (ACQUIRED, told(LeaseReauthRequired)),
}


def _cells() -> dict[tuple[str, str], str]:
    head, *rows = [[cell.strip() for cell in line.split("|")] for line in TABLE.strip().splitlines()]
    return {(row[0], phase): cell for row in rows for phase, cell in zip(head[1:], row[1:], strict=True)}


CELLS: Final = _cells()


def _event_of(command: str, version: int) -> LeaseEvent:
    """The event an accepted command becomes, as the second generation's or the nth event of the stream."""
    of_attempt: dict[str, Any] = {"attempt": "e2"}
    kinds: dict[str, LeaseEvent] = {
        "acquire": told(LeaseAcquired, generation=2, expires_at=500, published_at=2),
        "mark_expiring": told(LeaseExpiring),
        "begin_refresh": told(LeaseRefreshStarted, attempt=f"e{version}", duration_ms=60_000, holder=HOLDER),
        "complete_refresh": told(
            LeaseRefreshed, generation=2, expires_at=900, published_at=2, refreshed_at=800, **of_attempt
        ),
        "refresh_failed transient": told(LeaseRefreshFailed, permanent=False, **of_attempt),
        "refresh_failed permanent": told(LeaseRefreshFailed, permanent=True, **of_attempt),
        "mark_reauth_required": told(LeaseReauthRequired),
        "release": told(LeaseReleased),
        "release_credential_lifecycle": told(LeaseCredentialReleased),
    }
    return kinds[command]


@pytest.mark.parametrize(("command", "phase"), CELLS)
def test_every_command_does_in_every_phase_what_the_table_says(command: str, phase: str) -> None:
    history = HISTORIES[phase]
    outcome = given(*history).when(COMMANDS[command])
    match CELLS[command, phase]:
        case "NO_LEASE":
            outcome.then(NO_LEASE)
        case "GUARD":
            outcome.then(GUARD)
        case phase_after:
            state = outcome.then(_event_of(command, len(history) + 1))
            assert (state.phase or "no lease") == phase_after


@pytest.mark.parametrize(("command", "cell"), [(c, cell) for (c, phase), cell in CELLS.items() if phase == "no lease"])
def test_a_key_never_heard_of_answers_like_one_whose_lease_is_gone(command: str, cell: str) -> None:
    outcome = given().when(COMMANDS[command])
    assert outcome.state.phase == (None if cell != "valid" else "valid")
    if cell == "NO_LEASE":
        outcome.then(NO_LEASE)


@dataclass(frozen=True)
class Model:
    """A lease as the table and the rules of publication describe it, in the plainest words."""

    phase: str = "no lease"
    expires_at: int | None = None
    credential: bool = False
    generation: int = 0
    published_at: int | None = None
    latest_publication: int = 0

    def after(self, command: str, now: int) -> "Model | Refusal":
        match CELLS[command, self.phase]:
            case "NO_LEASE":
                return NO_LEASE
            case "GUARD":
                return GUARD
            case "no lease":
                return Model(generation=self.generation, latest_publication=self.latest_publication)
            case phase:
                return replace(self, phase=phase) if phase != "valid" else self._published(command, now)

    def _published(self, command: str, now: int) -> "Model":
        time = max(now, self.latest_publication + 1)
        return Model("valid", 500 if command == "acquire" else 900, True, self.generation + 1, time, time)

    def matches(self, state: LeaseState) -> bool:
        shown = snapshot_of(state)
        return (
            (shown.phase or "no lease", shown.expires_at, shown.credential_present)
            == (self.phase, self.expires_at, self.credential)
            and (shown.generation, shown.credential_published_at_millis) == (self.generation, self.published_at)
            and state.latest_published_at == self.latest_publication
        )


SEQUENCE_LENGTH: Final = 4


@pytest.mark.parametrize("first", COMMANDS)
def test_every_sequence_of_four_commands_leads_where_the_model_says(first: str) -> None:
    for rest in itertools.product(COMMANDS, repeat=SEQUENCE_LENGTH - 1):
        stream, model = given(), Model()
        # A clock that stands still: publication times have to grow all the same.
        for command in (first, *rest):
            outcome = stream.when(COMMANDS[command], at=5)
            expected = model.after(command, now=5)
            if isinstance(expected, Refusal):
                outcome.then(expected)
            else:
                model = expected
            assert model.matches(outcome.state), (first, *rest)
            assert outcome.state.version - stream.state.version == (not isinstance(expected, Refusal))
            stream = replace(stream, state=outcome.state)


@pytest.mark.parametrize(
    ("command", "phase"), [place for place, cell in CELLS.items() if cell in ("NO_LEASE", "GUARD")]
)
def test_an_event_that_the_table_forbids_is_corrupt_history(command: str, phase: str) -> None:
    history = HISTORIES[phase]
    state = given(*history).state
    with pytest.raises(CorruptHistory, match=f"event {len(history) + 1} of {KEY}"):
        evolve(state, _event_of(command, len(history) + 1), str(KEY))


STATES: Final = {phase: given(*history).state for phase, history in HISTORIES.items()}
RESTORABLE: Final = (None, "valid", "expiring", "refreshing", "reauth_required")
ROWS: Final = [(transition, phase) for transition in Transition for phase in TRANSITIONS[transition]]
MISSING_ROWS: Final = [
    (transition, phase) for transition in Transition for phase in ALL_PHASES if phase not in TRANSITIONS[transition]
]


def _restores() -> Iterator[tuple[str, Command, LeaseEvent, str]]:
    """A restore leads to the phase it names, wherever it starts: the tenth command, which has no line above."""
    for name in RESTORABLE:
        live, phase = name is not None, None if name is None else AuthLeasePhase(name)
        restored = RestoredLease(1, phase, None, live)
        yield "restore", Restore(phase, None, live, 1, None), told(LeaseRestored, snapshot=restored), name or "no lease"


def _expectations() -> Iterator[tuple[Transition, str, Command, LeaseEvent, str]]:
    for (command, phase), cell in CELLS.items():
        event = _event_of(command, len(HISTORIES[phase]) + 1)
        yield Transition(command.replace(" ", "_")), phase, COMMANDS[command], event, cell
    for name, restore, event, cell in _restores():
        yield from ((Transition(name), phase, restore, event, cell) for phase in HISTORIES)


def _asked(state: LeaseState, command: Command) -> str:
    outcome = Given(state).when(command)
    if isinstance(outcome.result, LeaseTransitionError):
        return "NO_LEASE" if outcome.result.kind == "no_matching_transition" else "GUARD"
    return _folded(state, outcome.result)


def _folded(state: LeaseState, event: LeaseEvent) -> str:
    try:
        return evolve(state, event).phase or "no lease"
    except (CorruptHistory, AssertionError):
        return "corrupt"


def _places_gone_wrong() -> tuple[set[tuple[Transition, str]], set[tuple[Transition, str]]]:
    """Where commands, and where events, do something else than the table above says."""
    commands, events = set(), set()
    for transition, phase, command, event, cell in _expectations():
        if _asked(STATES[phase], command) != cell:
            commands.add((transition, phase))
        if _folded(STATES[phase], event) != ("corrupt" if cell in ("NO_LEASE", "GUARD") else cell):
            events.add((transition, phase))
    return commands, events


def _plant(monkeypatch: pytest.MonkeyPatch, transition: Transition, rows: dict[AuthLeasePhase | None, Target]) -> None:
    planted = {**TRANSITIONS, transition: rows}
    monkeypatch.setattr("ledger.state.TRANSITIONS", planted)
    monkeypatch.setattr("ledger.decide.TRANSITIONS", planted)


def test_commands_and_events_go_where_the_table_says_in_all_ten_rows() -> None:
    assert {transition for transition, *_ in _expectations()} == set(Transition)
    assert _places_gone_wrong() == (set(), set())


@pytest.mark.parametrize(("transition", "phase"), ROWS)
def test_a_row_that_is_gone_is_missed_by_commands_and_by_events(
    transition: Transition, phase: AuthLeasePhase | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {start: target for start, target in TRANSITIONS[transition].items() if start is not phase}
    _plant(monkeypatch, transition, others)
    place = {(transition, phase or "no lease")}
    assert _places_gone_wrong() == (place, place)


@pytest.mark.parametrize(("transition", "phase"), ROWS)
def test_a_row_that_leads_elsewhere_leads_commands_and_events_there(
    transition: Transition, phase: AuthLeasePhase | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = {(transition, phase or "no lease")}
    for target in {*ALL_PHASES, BY_EVENT} - {TRANSITIONS[transition][phase]}:
        _plant(monkeypatch, transition, {**TRANSITIONS[transition], phase: target})
        assert _places_gone_wrong() == (place, place), target


@pytest.mark.parametrize(("transition", "phase"), MISSING_ROWS)
def test_a_row_too_many_lets_through_what_should_be_refused(
    transition: Transition, phase: AuthLeasePhase | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    _plant(monkeypatch, transition, {**TRANSITIONS[transition], phase: AuthLeasePhase.VALID})
    place = {(transition, phase or "no lease")}
    assert _places_gone_wrong() == (place, place)


def test_what_a_lease_holds_survives_until_its_next_publication() -> None:
    """Expiry, credential and publication time outlive everything but a publication, a release or a restore."""
    held = given(ACQUIRED).state
    histories: list[tuple[LeaseEvent, LeaseEvent]] = [
        (told(LeaseExpiring), told(LeaseReauthRequired)),
        (STARTED, told(LeaseRefreshFailed, permanent=False)),
        (STARTED, told(LeaseRefreshFailed, permanent=True)),
        (STARTED, told(LeaseReauthRequired)),
    ]
    for events in histories:
        state = given(ACQUIRED, *events).state
        assert (state.expires_at, state.credential_present, state.published_at, state.published_by) == (
            held.expires_at,
            True,
            held.published_at,
            "e1",
        )


def test_an_expiry_in_the_past_is_accepted_as_valid() -> None:
    assert given().when(Acquire(expires_at=0), at=10**13).state.phase == "valid"


def test_a_refusal_says_what_was_asked_and_what_stands() -> None:
    outcome = given(ACQUIRED).when(COMMANDS["complete_refresh"])
    outcome.then(GUARD)
    assert str(outcome.result) == (
        "complete_refresh(dev:openai:work) was refused: the lease is valid at version 1; this needs phase refreshing"
    )


def test_the_open_attempt_is_kept_while_refreshing_and_gone_with_the_phase() -> None:
    refreshing = given(ACQUIRED, STARTED)
    assert (refreshing.state.attempt, refreshing.state.refreshing_since) == (open_attempt("e2"), 2)
    for command in ("acquire", "complete_refresh", "refresh_failed transient", "mark_reauth_required", "release"):
        after = refreshing.when(COMMANDS[command]).state
        assert (after.attempt, after.refreshing_since) == (None, None), command


def test_failures_are_counted_until_a_publication_and_abandonments_are_not() -> None:
    failed = told(LeaseRefreshFailed, permanent=False, status=503, retry_after=2.5)
    abandoned = told(LeaseRefreshFailed, permanent=False, abandoned=True)
    again = told(LeaseRefreshStarted, attempt="e4", duration_ms=1, holder=HOLDER)
    state = given(ACQUIRED, STARTED, failed, again, abandoned, again, failed).state
    assert state.last_failure is not None
    assert (state.last_failure.version, state.last_failure.consecutive) == (7, 2)
    assert (state.last_failure.status, state.last_failure.retry_after) == (503, 2.5)
    assert given(ACQUIRED, STARTED, failed).when(COMMANDS["acquire"]).state.last_failure is None


def test_the_fold_of_nothing_is_a_key_that_holds_nothing() -> None:
    assert given().state == EMPTY_STATE
    assert Model().matches(EMPTY_STATE)
