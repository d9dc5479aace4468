"""Whatever commands were tried: the audit file says what the fold of the events says, and a rebuild says the same."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.chain import event_digest
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.base import LogRow
from ledger.snapshot import MAX_U64
from projections.audit import AuditLog

KEYS = [LeaseKey.parse(text) for text in ("dev:openai", "dev:openai:work", "prod:anthropic")]
COMMANDS = (
    "acquire",
    "begin_refresh",
    "complete",
    "fail",
    "refuse",
    "mark_expiring",
    "mark_reauth_required",
    "release_lease",
    "release_credential_lifecycle",
    "restore",
    "ASK",
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(KEYS), st.sampled_from(COMMANDS), st.sampled_from([0, 5, 2**31, 2**63 - 1, 2**63, MAX_U64])
    ),
    max_size=40,
)
TIMES = st.sampled_from([0, 1_700_000_000_000, 2**63 - 1, 2**63, MAX_U64])

Contents = dict[str, list[tuple[Any, ...]]]
Obey = Callable[[LeaseLedger, LeaseKey, str, int], None]

some_time = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _played(steps: list[tuple[LeaseKey, str, int]], obey: Obey, at_ms: int = 7) -> tuple[LeaseLedger, AuditLog]:
    """A ledger after those commands, and an audit log that was asked in between."""
    ledger = LeaseLedger.open("memory://", clock=lambda: at_ms, actor="agent")
    audit = AuditLog.open(ledger)
    for key, command, number in steps:
        if command == "ASK":
            audit.catch_up()
        else:
            obey(ledger, key, command, number)
    return ledger, audit


@some_time
@given(steps=STEPS, at_ms=TIMES)
def test_every_row_is_what_the_fold_gives(steps: list[tuple[LeaseKey, str, int]], at_ms: int, obey: Obey) -> None:
    ledger, audit = _played(steps, obey, at_ms)
    rows = {(row.stream, row.version): row for row in map(LogRow._make, ledger.recorder.log(0, 1_000))}
    for key in KEYS:
        entries = audit.history(key)
        assert [entry.version for entry in entries] == list(range(1, len(entries) + 1))
        for entry, recorded in zip(entries, ledger.read(key), strict=True):
            state, event, row = ledger.state(key, entry.version), recorded.event, rows[str(key), entry.version]
            assert (entry.position, entry.key) == (recorded.position, str(key))
            assert (entry.event_id, entry.at_ms, entry.actor) == (event.id, event.at, event.actor)
            assert (entry.cause, entry.correlation_id, entry.tag) == (event.cause, event.correlation_id, event.tag)
            assert (entry.phase, entry.generation) == (state.phase, state.generation)
            assert (entry.expires_at, entry.credential_present) == (state.expires_at, state.credential_present)
            assert (entry.published_at, entry.published_by) == (state.published_at, state.published_by)
            assert entry.digest == event_digest(ledger.ledger_id, row.stream, row.version, row.tag, row.body)
            carried = msgspec.structs.asdict(event)
            for name in ("attempt", "recovered", "permanent", "abandoned", "error", "status", "retry_after", "reason"):
                if name != "attempt" or event.tag != "lease.restored":
                    assert getattr(entry, name) == carried.get(name), (event.tag, name)
            for name in ("refreshed_at", "duration_ms", "fingerprint", "compensates", "captured_at_version", "store"):
                assert getattr(entry, name) == carried.get(name), (event.tag, name)


@some_time
@given(steps=STEPS, at_ms=TIMES)
def test_current_leases_are_the_ledgers_snapshots(
    steps: list[tuple[LeaseKey, str, int]], at_ms: int, obey: Obey
) -> None:
    ledger, audit = _played(steps, obey, at_ms)
    leases = audit.leases()
    assert [lease.key for lease in leases] == list(map(str, ledger.keys()))
    for lease in leases:
        key = LeaseKey.parse(lease.key)
        snapshot, state = ledger.snapshot(key), ledger.state(key)
        *_, last = ledger.read(key)
        assert (lease.phase, lease.generation, lease.expires_at) == (
            snapshot.phase,
            snapshot.generation,
            snapshot.expires_at,
        )
        assert lease.credential_present == snapshot.credential_present
        assert (lease.published_at, lease.published_by) == (
            snapshot.credential_published_at_millis,
            snapshot.published_by,
        )
        assert lease.attempt == (state.attempt.id if state.attempt else None)
        assert (lease.version, lease.position, lease.tag) == (last.version, last.position, last.event.tag)
        assert (lease.actor, lease.at_ms) == (last.event.actor, last.event.at)


@some_time
@given(steps=STEPS)
def test_a_rebuild_gives_byte_for_byte_what_catching_up_gave(
    steps: list[tuple[LeaseKey, str, int]], obey: Obey, contents: Callable[[AuditLog], Contents]
) -> None:
    ledger, audit = _played(steps, obey)
    audit.catch_up()
    caught_up = contents(audit)
    assert len(caught_up["events"]) == ledger.recorder.last_position()
    audit.rebuild()
    rebuilt = contents(audit)
    assert (rebuilt["events"], rebuilt["leases"]) == (caught_up["events"], caught_up["leases"])
    assert rebuilt["checkpoint"] == caught_up["checkpoint"] or not caught_up["events"]


@some_time
@given(steps=STEPS, page=st.integers(1, 5), batch=st.integers(1, 12), kept=st.integers(0, 3))
def test_the_size_of_pages_and_batches_changes_nothing(
    steps: list[tuple[LeaseKey, str, int]],
    page: int,
    batch: int,
    kept: int,
    obey: Obey,
    contents: Callable[[AuditLog], Contents],
) -> None:
    ledger, audit = _played([step for step in steps if step[1] != "ASK"], obey)
    audit.catch_up()
    with_little_memory = AuditLog.open(ledger)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("projections.catch_up.PAGE", page)
        patch.setattr("projections.catch_up.BATCH", batch)
        patch.setattr("projections.read_model.KEPT_LEASES", kept)
        patch.setattr("projections.log_fold.KEPT_LEASES", kept)
        with_little_memory.catch_up()
        caught_up = contents(with_little_memory)
        with_little_memory.rebuild()
        rebuilt = contents(with_little_memory)
    expected = contents(audit)
    for table in ("events", "leases", "checkpoint") if expected["events"] else ("events", "leases"):
        assert caught_up[table] == rebuilt[table] == expected[table]
