"""Every column of the folds and the identity of a ledger file changed, one at a time: found, or refused at once."""

from pathlib import Path

import pytest
from tampering import (
    Specimen,
    around_the_guards,
    findings_of,
    is_changed,
    judge,
    make_specimen,
    open_at,
    other_values,
    put,
    raw_connection,
    set_to,
)

from ledger.errors import LedgerStorageError, NotALedger


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("specimen"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.db"


# Stored folds


def test_whatever_else_stands_in_a_folds_column_is_found_or_changes_no_answer(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        found = connection.execute("SELECT stream, version, fold, digest, state FROM stored_folds").fetchall()
    columns = ("stream", "version", "fold", "digest", "state")
    assert found
    named = 0
    for row in found:
        where = f"stream = '{row[0]}' AND version = {row[1]}"
        for column, value in zip(columns, row, strict=True):
            for new in other_values(value):
                if not is_changed(specimen, path, set_to("stored_folds", column, new, where)):
                    continue
                verification, answers = judge(path)
                assert verification is not None
                folds = [finding for finding in verification.findings if finding.witness == "fold"]
                # Fold code before today's is void, so that a fold said to be of it is nobody's answer.
                assert folds or (column == "fold" and answers == specimen.answers), (column, new)
                assert all(finding.object_name == "stored_folds" for finding in folds)
                assert answers is None or answers == specimen.answers, (column, new)
                named += bool(folds)
    assert named > 60


def test_without_its_folds_a_ledger_is_well_and_answers_the_same(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        connection.execute("DELETE FROM stored_folds")
    verification, answers = judge(path, specimen.checkpoint)
    assert verification is not None
    assert (verification.findings, answers) == ((), specimen.answers)


# Identity


@pytest.mark.parametrize("column", ["ledger_id", "format", "lowest_reader"])
def test_whatever_else_the_ledger_says_of_itself_is_found_or_refused(
    specimen: Specimen, path: Path, column: str
) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        ((value,),) = connection.execute(f"SELECT {column} FROM ledger_meta")
    for new in other_values(value):
        if not is_changed(specimen, path, set_to("ledger_meta", column, new, "TRUE")):
            continue
        try:
            findings = findings_of(path, specimen)
        except LedgerStorageError as error:
            assert str(path) in str(error)
            continue
        if column == "ledger_id":
            firsts = {finding.position for finding in findings if finding.witness == "chain"}
            assert firsts >= {1, 2, 3}
            assert any("another ledger" in finding.detail for finding in findings if finding.witness == "checkpoint")
        else:
            assert ("storage", f"ledger_meta.{column}") in {(f.witness, f.object_name) for f in findings}, new


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("DELETE FROM ledger_meta", "no row"),
        ("INSERT INTO ledger_meta SELECT * FROM ledger_meta", "more than one row"),
        ("INSERT INTO ledger_meta VALUES ('another', 1, 1)", "more than one row"),
        ("UPDATE ledger_meta SET ledger_id = x'00'", "another type"),
        ("UPDATE ledger_meta SET lowest_reader = 'one'", "another type"),
        ("UPDATE ledger_meta SET lowest_reader = 9", "upgrade"),
    ],
)
def test_a_file_that_does_not_say_whose_ledger_it_is_is_refused(
    specimen: Specimen, path: Path, statement: str, reason: str
) -> None:
    put(path, specimen.content)
    with around_the_guards(path) as connection:
        connection.execute(statement)
    with pytest.raises(NotALedger, match=reason):
        open_at(path)


def test_a_file_whose_first_page_lists_nothing_is_refused_and_not_written_over(specimen: Specimen, path: Path) -> None:
    damaged = bytearray(specimen.content)
    damaged[103:105] = b"\0\0"
    put(path, bytes(damaged))
    with pytest.raises(NotALedger, match="holds data but no table"):
        open_at(path)
    assert path.read_bytes() == damaged


def test_a_second_identity_written_under_an_open_ledger_is_found(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with open_at(path) as ledger:
        with raw_connection(path) as connection:
            connection.execute("INSERT INTO ledger_meta VALUES ('another', 1, 1)")
        assert "ledger_meta" in {finding.object_name for finding in ledger.verify().findings}


@pytest.mark.parametrize("setting", ["application_id", "user_version"])
@pytest.mark.parametrize("value", [1, -1, 0x4C4C4545])
def test_another_number_in_the_files_header_is_named(specimen: Specimen, path: Path, setting: str, value: int) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        connection.execute(f"PRAGMA {setting} = {value}")
    (finding,) = findings_of(path)
    assert (finding.witness, finding.object_name) == ("storage", setting)
