"""Whatever single event is changed, removed, inserted or swapped: verification finds it, and says which and by what.

Each tampering goes through a raw connection that first drops the guard triggers, and puts them back afterwards.
"""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.chain import EMPTY_ROLL, event_digest, genesis_digest
from ledger.errors import CorruptHistory
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.recorders.schema import TRIGGERS
from ledger.verification import Checkpoint, Finding

WORK = LeaseKey.parse("dev:openai:work")
HOME = LeaseKey.parse("dev:openai:home")
EVENTS = 12
LAST = {str(WORK): 11, str(HOME): 12}
"""Position of the last event of each stream."""


def _open(path: Path) -> LeaseLedger:
    return LeaseLedger.open(f"sqlite:///{path}?synchronous=normal", clock=lambda: 1_000, actor="tester")


def _fill(path: Path) -> Checkpoint:
    """Twelve events, the leases taking turns; returns the checkpoint somebody kept."""
    with _open(path) as ledger:
        for key in (WORK, HOME):
            ledger.acquire_lease(key, 500)
        for key in (WORK, HOME):
            ledger.begin_refresh(key)
        for key in (WORK, HOME):
            ledger.complete_refresh(key, 900, 800)
        for command in (ledger.mark_expiring, ledger.mark_reauth_required, ledger.release_lease):
            for key in (WORK, HOME):
                command(key)
        return ledger.checkpoint()


@contextmanager
def _going_around_the_guards(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name in TRIGGERS:
            connection.execute(f"DROP TRIGGER {name}")
        yield connection
        for statement in TRIGGERS.values():
            connection.execute(statement.strip())


class Original:
    """The bytes of an untouched ledger, and the checkpoint somebody kept of it. No dataclass: its repr stays short."""

    def __init__(self, content: bytes, checkpoint: Checkpoint) -> None:
        self.content = content
        self.checkpoint = checkpoint


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    path = tmp_path_factory.mktemp("original") / "auth.db"
    checkpoint = _fill(path)
    return Original(path.read_bytes(), checkpoint)


def _findings(
    original: Original, tamper: Callable[[sqlite3.Connection], object], *, kept: bool = True
) -> tuple[Finding, ...]:
    with TemporaryDirectory() as folder:
        path = Path(folder, "auth.db")
        path.write_bytes(original.content)
        with _going_around_the_guards(path) as connection:
            tamper(connection)
        with _open(path) as ledger:
            return ledger.verify(original.checkpoint if kept else None).findings


def _row(connection: sqlite3.Connection, position: int) -> tuple[str, int, str, str]:
    query = "SELECT originator_id, originator_version, topic, state FROM stored_events WHERE rowid = ?"
    row: tuple[str, int, str, str] = connection.execute(query, (position,)).fetchone()
    return row


def _next_in_stream(position: int) -> int:
    return position + 2


positions = st.integers(1, EVENTS)


def test_an_untouched_ledger_has_no_findings(original: Original) -> None:
    assert _findings(original, lambda _: None) == ()


# Changed


def _change_field(name: str, value: Any) -> Callable[[str], str]:
    return lambda body: json.dumps({**json.loads(body), name: value}, separators=(",", ":"))


CHANGES: dict[str, Callable[[str], str]] = {
    "another actor": _change_field("actor", "somebody else"),
    "another time": _change_field("at", 2_000),
    "another id": _change_field("id", "0" * 32),
    "a field more": _change_field("added", 1),
    "a space more": lambda body: body + " ",
    "a field less": lambda body: json.dumps({k: v for k, v in json.loads(body).items() if k != "actor"}),
    "another link": _change_field("prev", "0" * 64),
    "no JSON": lambda body: body[:-1],
    "nothing": lambda body: "",
}


@settings(max_examples=60, deadline=None)
@given(position=positions, change=st.sampled_from(sorted(CHANGES)))
def test_a_changed_event_is_found(original: Original, position: int, change: str) -> None:
    def tamper(connection: sqlite3.Connection) -> None:
        body = CHANGES[change](_row(connection, position)[3])
        connection.execute("UPDATE stored_events SET state = ? WHERE rowid = ?", (body, position))

    findings = _findings(original, tamper)
    is_last = position in LAST.values()
    # The event itself where its own bytes give it away, else the next one, whose link no longer fits.
    assert {f.position for f in findings if f.witness in ("chain", "body")} <= {position, _next_in_stream(position)}
    if is_last:
        named = [f for f in findings if f.witness == "checkpoint"]
        assert [(f.position, f.key, f.version) for f in named] == [(position, *_identity(position))]
    else:
        assert [f for f in findings if f.witness in ("chain", "body")]


def _identity(position: int) -> tuple[str, int]:
    return (str(WORK) if position % 2 else str(HOME), (position + 1) // 2)


@pytest.mark.parametrize(("key", "position"), LAST.items())
def test_only_a_kept_checkpoint_covers_the_last_event_of_a_stream(original: Original, key: str, position: int) -> None:
    def tamper(connection: sqlite3.Connection) -> None:
        body = _change_field("actor", "somebody else")(_row(connection, position)[3])
        connection.execute("UPDATE stored_events SET state = ? WHERE rowid = ?", (body, position))

    assert _findings(original, tamper, kept=False) == ()
    (finding,) = _findings(original, tamper)
    assert (finding.witness, finding.key, finding.position, finding.version) == ("checkpoint", key, position, 6)


@settings(max_examples=25, deadline=None)
@given(position=positions, tag=st.sampled_from(["lease.released", "lease.expiring", "lease.teleported", ""]))
def test_an_event_under_another_tag_is_found(original: Original, position: int, tag: str) -> None:
    def tamper(connection: sqlite3.Connection) -> int:
        changed = "UPDATE stored_events SET topic = ? WHERE rowid = ? AND topic <> ?"
        return connection.execute(changed, (tag, position, tag)).rowcount

    rows: list[int] = []
    findings = _findings(original, lambda connection: rows.append(tamper(connection)))
    assert bool(findings) == bool(rows[0])
    assert {f.position for f in findings if f.witness == "chain"} <= {position, _next_in_stream(position)}


# Removed


@settings(max_examples=EVENTS, deadline=None)
@given(position=positions)
def test_a_removed_event_is_found(original: Original, position: int) -> None:
    findings = _findings(original, lambda c: c.execute("DELETE FROM stored_events WHERE rowid = ?", (position,)))
    if position == EVENTS:
        (finding,) = findings
        assert finding.witness == "checkpoint"
        assert f"{HOME} after version 5" in finding.detail
    else:
        assert ("order", position + 1) in {(f.witness, f.position) for f in findings}


def _renumber(connection: sqlite3.Connection, above: int, by: int) -> None:
    direction = "DESC" if by > 0 else "ASC"
    query = f"SELECT rowid FROM stored_events WHERE rowid > ? ORDER BY rowid {direction}"
    for (position,) in connection.execute(query, (above,)).fetchall():
        connection.execute("UPDATE stored_events SET rowid = ? WHERE rowid = ?", (position + by, position))


def _renumber_stream(connection: sqlite3.Connection, stream: str, above: int, by: int) -> None:
    direction = "DESC" if by > 0 else "ASC"
    query = (
        "SELECT originator_version FROM stored_events WHERE originator_id = ? AND originator_version > ? "
        f"ORDER BY 1 {direction}"
    )
    change = "UPDATE stored_events SET originator_version = ? WHERE originator_id = ? AND originator_version = ?"
    for (version,) in connection.execute(query, (stream, above)).fetchall():
        connection.execute(change, (version + by, stream, version))


@settings(max_examples=EVENTS, deadline=None)
@given(position=positions)
def test_a_removed_event_is_found_though_the_gap_was_closed(original: Original, position: int) -> None:
    stream, version = _identity(position)

    def tamper(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM stored_events WHERE rowid = ?", (position,))
        _renumber(connection, position, -1)
        _renumber_stream(connection, stream, version, -1)

    findings = _findings(original, tamper)
    if position in LAST.values():
        assert {f.witness for f in findings} == {"checkpoint"}
        assert any(f"{stream} after version 5" in f.detail for f in findings)
    else:
        # Every later event is linked under its own version, so they all show it; the first stands where the gap was.
        first = next(f for f in findings if f.witness == "chain")
        assert (first.key, first.version, first.position) == (stream, version, _next_in_stream(position) - 1)


@settings(max_examples=EVENTS, deadline=None)
@given(remaining=st.integers(0, EVENTS - 1))
def test_a_log_cut_short_is_found_by_the_kept_checkpoint(original: Original, remaining: int) -> None:
    def cut(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM stored_events WHERE rowid > ?", (remaining,))

    assert _findings(original, cut, kept=False) == ()
    (finding,) = _findings(original, cut)
    assert finding.witness == "checkpoint"
    assert f"covers {EVENTS} events, the ledger holds {remaining}" in finding.detail


# Inserted


@settings(max_examples=30, deadline=None)
@given(position=positions, link=st.sampled_from(["a copy", "the right link"]))
def test_an_inserted_event_is_found(original: Original, position: int, link: str) -> None:
    """One event more in the middle of a stream, with everything after it moved up; even one that links rightly."""
    stream, version = _identity(position)
    ledger_id = original.checkpoint.ledger_id

    def tamper(connection: sqlite3.Connection) -> None:
        _, _, tag, body = _row(connection, position)
        _renumber(connection, position, 1)
        _renumber_stream(connection, stream, version, 1)
        if link == "the right link":
            body = _change_field("prev", event_digest(ledger_id, stream, version, tag, body.encode()))(body)
        connection.execute(
            "INSERT INTO stored_events (rowid, originator_id, originator_version, topic, state) VALUES (?, ?, ?, ?, ?)",
            (position + 1, stream, version + 1, tag, body),
        )

    findings = _findings(original, tamper)
    chain = [f.position for f in findings if f.witness == "chain"]
    if link == "a copy":
        assert chain[0] == position + 1
    elif position not in LAST.values():
        assert chain[0] == _next_in_stream(position) + 1
    else:
        # After a stream's end it is what any accepted event looks like; inside the log the checkpoint tells.
        legal = not [f for f in findings if f.witness == "legality"]
        assert [f.witness for f in findings if f.witness == "checkpoint"] or (position == EVENTS and legal)


# Swapped


@settings(max_examples=40, deadline=None)
@given(first=positions, second=positions)
def test_two_swapped_bodies_are_found(original: Original, first: int, second: int) -> None:
    def tamper(connection: sqlite3.Connection) -> None:
        rows = {position: _row(connection, position) for position in (first, second)}
        for position, other in ((first, second), (second, first)):
            connection.execute(
                "UPDATE stored_events SET topic = ?, state = ? WHERE rowid = ?", (*rows[other][2:], position)
            )

    findings = _findings(original, tamper, kept=False)
    involved = {first, second, _next_in_stream(first), _next_in_stream(second)}
    assert bool(findings) == (first != second)
    assert {f.position for f in findings if f.witness == "chain"} <= involved


@settings(max_examples=40, deadline=None)
@given(first=positions, second=positions)
def test_two_swapped_positions_are_found(original: Original, first: int, second: int) -> None:
    def tamper(connection: sqlite3.Connection) -> None:
        for old, new in ((first, -1), (second, first), (-1, second)):
            connection.execute("UPDATE stored_events SET rowid = ? WHERE rowid = ?", (new, old))

    findings = _findings(original, tamper) if first != second else ()
    assert bool(findings) == (first != second)


@pytest.mark.parametrize("position", [1, 2, 11, 12])
def test_an_event_moved_to_another_lease_is_found(original: Original, position: int) -> None:
    def tamper(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE stored_events SET originator_id = 'dev:moved' WHERE rowid = ?", (position,))

    assert ("dev:moved", position) in {(f.key, f.position) for f in _findings(original, tamper)}


def test_events_of_another_ledger_prove_nothing_here(original: Original, tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    path.write_bytes(original.content)
    with _going_around_the_guards(path) as connection:
        connection.execute("UPDATE ledger_meta SET ledger_id = 'another'")
    with _open(path) as ledger:
        findings = ledger.verify(original.checkpoint).findings
    assert [f.position for f in findings if f.witness == "chain"] == list(range(1, EVENTS + 1))
    assert any("another ledger" in f.detail for f in findings if f.witness == "checkpoint")


# Values no writer of ours stores


@pytest.mark.parametrize("column", ["originator_id", "originator_version", "topic", "state"])
@pytest.mark.parametrize("value", [None, 7, 1.5, b"\xff\xfe", "text", ""])
@pytest.mark.parametrize("position", [4, 12])
def test_whatever_stands_in_a_column_is_found_and_never_a_crash(
    original: Original, column: str, value: object, position: int
) -> None:
    def tamper(connection: sqlite3.Connection) -> None:
        connection.execute(f"UPDATE stored_events SET {column} = ? WHERE rowid = ?", (value, position))

    findings = _findings(original, tamper)
    assert position in {f.position for f in findings}


# Legality, guards, checkpoints


def test_an_event_that_the_table_forbids_is_found_though_its_link_is_right(original: Original, tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    path.write_bytes(original.content)
    prev = original.checkpoint.heads[str(WORK)].digest
    body = json.dumps({"id": "forged", "at": 1, "actor": "tester", "prev": prev})
    with _going_around_the_guards(path) as connection:
        connection.execute("INSERT INTO stored_events VALUES (?, 7, 'lease.expiring', ?)", (str(WORK), body))
    with _open(path) as ledger:
        (finding,) = ledger.verify(original.checkpoint).findings
        assert (finding.witness, finding.key, finding.version) == ("legality", str(WORK), 7)
        with pytest.raises(CorruptHistory, match="event 7 of dev:openai:work"):
            ledger.snapshot(WORK)


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_a_guard_trigger_that_is_gone_or_altered_is_found(original: Original, tmp_path: Path, trigger: str) -> None:
    path = tmp_path / "auth.db"
    path.write_bytes(original.content)
    for replacement in ("", f"CREATE TRIGGER {trigger} BEFORE UPDATE ON stored_events BEGIN SELECT 1; END"):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(f"DROP TRIGGER {trigger}")
            connection.execute(replacement)
        with _open(path) as ledger:
            (finding,) = ledger.verify().findings
        assert (finding.witness, trigger in finding.detail) == ("storage", True)
        if not replacement:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute(TRIGGERS[trigger].strip())


def test_a_checkpoint_says_the_same_after_more_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    kept = _fill(path)
    with _open(path) as ledger:
        ledger.acquire_lease(WORK, 900)
        assert ledger.verify(kept).ok
        later = ledger.checkpoint()
        assert (later.position, later.heads[str(HOME)]) == (EVENTS + 1, kept.heads[str(HOME)])
        assert later.digest != kept.digest


def test_an_empty_ledger_verifies_and_its_checkpoint_is_empty(tmp_path: Path) -> None:
    with _open(tmp_path / "auth.db") as ledger:
        verification = ledger.verify(ledger.checkpoint())
        assert verification.ok
        assert verification.checkpoint == Checkpoint(ledger.ledger_id, 0, EMPTY_ROLL, {})


def test_the_first_event_of_a_stream_is_linked_to_its_ledger_and_key(tmp_path: Path) -> None:
    with _open(tmp_path / "auth.db") as ledger:
        ledger.acquire_lease(WORK, 500)
        (recorded,) = ledger.read_all()
        assert recorded.event.prev == genesis_digest(ledger.ledger_id, str(WORK))
