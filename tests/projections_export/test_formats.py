"""Each format says what the ledger says, and keeps to its standard."""

import csv
import io
import json
import tracemalloc
from typing import Any

import pytest
from projections_export.sample import CI, HOSTILE, START_MS, TRACE, WORK, Clock, every_kind_of_event, validator

from ledger import LeaseAcquired, LeaseKey, LeaseLedger
from projections.export import FORMATS, TAGS, Selection, export_events, export_lines
from projections.export.spreadsheet import COLUMNS


def documents(ledger: LeaseLedger, form: str, selection: Selection | None = None) -> list[dict[str, Any]]:
    return [json.loads(line) for line in export_lines(ledger, form, selection or Selection())]


def rows(ledger: LeaseLedger) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO("".join(export_lines(ledger, "csv")), newline="")))


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ("jsonl", "event-lines.json"),
        ("ocsf", "ocsf-1.8.0.json"),
        ("cloudevents", "cloudevents-1.0.2.json"),
        ("cloudevents-expirytime", "cloudevents-1.0.2.json"),
    ],
)
def test_every_kind_of_event_keeps_to_the_schema(form: str, schema: str) -> None:
    ledger = every_kind_of_event()
    found = documents(ledger, form)
    assert len(found) == len(list(ledger.read_all()))
    standard = validator(schema)
    for document in found:
        standard.validate(document)


def test_every_row_of_csv_keeps_to_the_schema_and_to_its_columns() -> None:
    standard = validator("csv-row.json")
    for row in rows(every_kind_of_event()):
        assert tuple(row) == COLUMNS
        standard.validate(row)


def test_the_sample_holds_every_kind_of_event() -> None:
    assert {document["tag"] for document in documents(every_kind_of_event(), "jsonl")} == set(TAGS)


def test_json_lines_hold_everything_an_event_carries_and_never_is_told_from_absent() -> None:
    ledger = every_kind_of_event()
    first, *_, last = documents(ledger, "jsonl", Selection(keys=(WORK,)))
    event = next(iter(ledger.read(WORK))).event
    assert isinstance(event, LeaseAcquired)
    assert first == {
        "position": 1,
        "key": "dev:openai:work",
        "version": 1,
        "tag": "lease.acquired",
        "id": event.id,
        "at": event.at,
        "actor": event.actor,
        "prev": event.prev,
        "cause": HOSTILE,
        "correlation_id": TRACE,
        "generation": 1,
        "published_at": event.published_at,
        "expires_at": None,
    }
    assert last["expires_at"] == str(2**64 - 2)


def test_integers_that_json_readers_would_round_are_texts_of_their_digits() -> None:
    acquired = [line for line in documents(every_kind_of_event(), "jsonl") if line["tag"] == "lease.acquired"]
    assert acquired[-1]["expires_at"] == str(2**53 + 1)
    restored = [line for line in documents(every_kind_of_event(), "jsonl") if line["tag"] == "lease.restored"]
    assert str(2**53 + 1) in [line["snapshot"].get("expires_at") for line in restored]


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "csv"])
def test_no_text_can_end_a_line_early(form: str) -> None:
    lines = list(export_lines(every_kind_of_event(), form))
    assert [len(line.splitlines()) for line in lines] == [1] * len(lines)


def test_no_cell_of_csv_is_a_formula() -> None:
    found = rows(every_kind_of_event(actor="=cmd|' /C calc'!A0"))
    assert not [cell for row in found for cell in row.values() if cell.startswith(tuple("=+-@\t\r\n|%"))]
    assert found[0]["cause"] == f"'{HOSTILE}"
    assert {row["reason"] for row in found} == {"", "'@SUM(A1)"}


def test_csv_tells_never_from_a_time_and_from_nothing() -> None:
    found = {row["version"]: row for row in rows(every_kind_of_event()) if row["key"] == str(WORK)}
    assert [found[version]["expires_at"] for version in ("1", "2", "4")] == ["never", "", str(2**64 - 2)]
    assert found["4"]["expires_utc"] == ""


def test_ocsf_classes_are_those_of_the_standard() -> None:
    kinds = {
        (document["metadata"]["event_code"], document["type_uid"], document["activity_name"], document["status_id"])
        for document in documents(every_kind_of_event(), "ocsf")
    }
    assert kinds == {
        ("lease.acquired", 300201, "Logon", 1),
        ("lease.refresh_started", 300299, "Token Refresh", 99),
        ("lease.refreshed", 300299, "Token Refresh", 1),
        ("lease.refresh_failed", 300299, "Token Refresh", 2),
        ("lease.released", 300202, "Logoff", 1),
        ("lease.credential_released", 300202, "Logoff", 1),
        ("lease.expiring", 300403, "Update", 1),
        ("lease.reauth_required", 300412, "Suspend", 1),
        ("lease.restored", 300413, "Resume", 1),
    }


def test_ocsf_carries_the_error_the_sequence_the_correlation_and_the_generation() -> None:
    ledger = every_kind_of_event()
    found = documents(ledger, "ocsf")
    assert [document["metadata"]["sequence"] for document in found] == list(range(1, len(found) + 1))
    assert found[0]["metadata"]["correlation_uid"] == TRACE
    assert found[0]["unmapped"]["generation"] == 1
    assert found[0]["status_detail"] == HOSTILE
    failed = [document for document in found if document["metadata"]["event_code"] == "lease.refresh_failed"]
    assert [document.get("status_code") for document in failed] == ["timeout", None, "invalid_grant"]
    assert [document["severity"] for document in failed] == ["Low", "Low", "Medium"]


def test_a_clock_beyond_a_64_bit_long_is_told_exactly_beside_the_time() -> None:
    ledger = LeaseLedger.open("memory://", clock=lambda: 2**64 - 1)
    ledger.acquire_lease(WORK, 0)
    (document,) = documents(ledger, "ocsf")
    validator("ocsf-1.8.0.json").validate(document)
    assert (document["time"], document["unmapped"]["at"]) == (2**63 - 1, str(2**64 - 1))
    (cloud,) = documents(ledger, "cloudevents")
    assert "time" not in cloud
    assert cloud["data"]["at"] == str(2**64 - 1)


def test_cloud_events_name_what_led_to_them() -> None:
    ledger = every_kind_of_event()
    found = documents(ledger, "cloudevents")
    ids = {(document["subject"], document["data"]["version"]): document["id"] for document in found}
    causes = {
        (document["subject"], document["data"]["version"]): document["causationid"]
        for document in found
        if "causationid" in document
    }
    assert causes == {
        (str(WORK), 4): ids[str(WORK), 3],
        (str(CI), 3): ids[str(CI), 2],
        (str(CI), 4): ids[str(CI), 3],
        (str(CI), 5): ids[str(CI), 2],
        (str(CI), 7): ids[str(CI), 6],
    }


def test_cloud_events_have_a_trace_only_where_one_is_known() -> None:
    found = documents(every_kind_of_event(), "cloudevents")
    assert [document["traceparent"] for document in found if "traceparent" in document] == [TRACE]
    assert [document["correlationid"] for document in found if "correlationid" in document] == [TRACE, "job-1"]


def test_a_refresh_recorded_after_a_crash_happened_before_it_was_recorded() -> None:
    found = documents(every_kind_of_event(), "cloudevents", Selection(tags=("lease.refreshed",)))[0]
    assert found["time"] == "2026-09-21T14:13:20.000Z"
    assert found["time"] < found["recordedtime"]


def test_cloud_events_tell_an_expiry_only_when_asked_to() -> None:
    ledger = every_kind_of_event()
    assert not [document for document in documents(ledger, "cloudevents") if "expirytime" in document]
    found = [document.get("expirytime") for document in documents(ledger, "cloudevents-expirytime")]
    assert [expiry for expiry in found if expiry] == ["2030-03-17T17:46:40.000Z"]


def test_sequences_sort_as_texts_as_they_do_as_numbers() -> None:
    found = [document["sequence"] for document in documents(every_kind_of_event(), "cloudevents")]
    assert found == sorted(found)


def test_events_are_chosen_by_lease_kind_and_time() -> None:
    ledger = every_kind_of_event()
    everything = documents(ledger, "jsonl")
    assert documents(ledger, "jsonl", Selection(keys=(WORK, CI))) == everything
    assert documents(ledger, "jsonl", Selection(keys=())) == []
    assert documents(ledger, "jsonl", Selection(keys=(CI,), tags=("lease.released",))) == [
        line for line in everything if line["key"] == str(CI) and line["tag"] == "lease.released"
    ]
    since, until = everything[3]["at"], everything[6]["at"]
    assert documents(ledger, "jsonl", Selection(since_ms=since, until_ms=until)) == everything[3:7]


def test_many_leases_are_read_as_one_log() -> None:
    ledger = LeaseLedger.open("memory://", clock=Clock())
    keys = [LeaseKey("dev", f"b{number}") for number in range(80)]
    for key in keys * 2:
        ledger.acquire_lease(key, 0)
    for count in (60, 70):
        found = documents(ledger, "jsonl", Selection(keys=tuple(keys[:count])))
        assert [line["position"] for line in found] == [*range(1, count + 1), *range(81, 81 + count)]


def test_an_event_dated_back_stays_in_its_place_in_time() -> None:
    clock = Clock()
    ledger = LeaseLedger.open("memory://", clock=clock)
    ledger.acquire_lease(WORK, 0)
    clock.now_ms = START_MS - 60_000
    ledger.release_lease(WORK)
    assert len(documents(ledger, "jsonl", Selection(until_ms=START_MS))) == 0
    assert len(documents(ledger, "jsonl", Selection(since_ms=START_MS))) == 2


def test_an_unknown_format_or_kind_is_refused_with_those_there_are() -> None:
    ledger = every_kind_of_event()
    with pytest.raises(ValueError, match=r"jsonl, csv, ocsf, cloudevents"):
        export_events(ledger, io.StringIO(), "xml")
    with pytest.raises(ValueError, match=r"the tags are lease\.acquired"):
        Selection(tags=("lease.gone",))


def test_an_export_is_written_as_it_is_read_and_counted() -> None:
    ledger = every_kind_of_event()
    out = io.StringIO()
    seen: list[int] = []
    assert export_events(ledger, out, "jsonl", progress=seen.append) == 17
    assert (out.getvalue().count("\n"), seen) == (17, [17])


def test_an_export_of_much_takes_little_memory() -> None:
    ledger = LeaseLedger.open("memory://", clock=Clock())
    for _ in range(3000):
        ledger.acquire_lease(WORK, 0)

    class Nowhere(io.StringIO):
        def write(self, text: str) -> int:
            return len(text)

    tracemalloc.start()
    try:
        for form in ("jsonl", "ocsf"):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            assert export_events(ledger, Nowhere(), form) == 3000
            assert tracemalloc.get_traced_memory()[1] - before < 4_000_000
    finally:
        tracemalloc.stop()
