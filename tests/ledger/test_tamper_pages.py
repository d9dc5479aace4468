"""Bytes and pages of a ledger file changed below SQL: found, refused in one clear error, or without any effect."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tampering import (
    HOME,
    OTHER,
    SMALL_PAGE_BYTES,
    WORK,
    Specimen,
    around_the_guards,
    judge,
    make_specimen,
    put,
    raw_connection,
    use_in_every_other_way,
)

from ledger.recorders.schema import EVENTS_INDEX


@pytest.fixture(scope="module")
def specimen(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("specimen"))


@pytest.fixture(scope="module")
def finely_paged(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return make_specimen(tmp_path_factory.mktemp("finely_paged"), page_bytes=SMALL_PAGE_BYTES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "auth.db"


# The index


def _pages_of_tree(content: bytes, root: int, page_bytes: int) -> list[int]:
    """The numbers of a tree's pages: root, inner pages, leaves."""
    page = content[(root - 1) * page_bytes : root * page_bytes]
    if page[0] in (10, 13):
        return [root]
    cells = int.from_bytes(page[3:5], "big")
    pointers = [int.from_bytes(page[12 + 2 * n : 14 + 2 * n], "big") for n in range(cells)]
    children = [int.from_bytes(page[at : at + 4], "big") for at in pointers] + [int.from_bytes(page[8:12], "big")]
    return [root, *(number for child in children for number in _pages_of_tree(content, child, page_bytes))]


def _index_pages(specimen: Specimen, path: Path, page_bytes: int) -> list[int]:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (EVENTS_INDEX,))
    return _pages_of_tree(specimen.content, root, page_bytes)


def test_every_key_that_is_another_in_the_index_is_found_and_its_event_named(
    finely_paged: Specimen, path: Path
) -> None:
    pages = _index_pages(finely_paged, path, SMALL_PAGE_BYTES)
    assert len(pages) > 2
    content, tried = finely_paged.content, 0
    for key in (WORK, HOME, OTHER):
        name = str(key).encode()
        for page in pages:
            at = content.find(name, (page - 1) * SMALL_PAGE_BYTES, page * SMALL_PAGE_BYTES)
            while at != -1:
                changed = bytearray(content)
                changed[at + len(name) - 1] ^= 3
                put(path, bytes(changed))
                verification, answers = judge(path)
                assert verification is not None
                of_index = [finding for finding in verification.findings if finding.object_name == EVENTS_INDEX]
                assert {finding.witness for finding in of_index} == {"storage"}
                named = {(finding.key, finding.version, finding.position) for finding in of_index}
                stored = {(str(event.key), event.version, event.position) for event in finely_paged.answers.log}
                assert named & stored, verification.findings
                assert answers != finely_paged.answers
                tried += 1
                at = content.find(name, at + 1, page * SMALL_PAGE_BYTES)
    assert tried == finely_paged.checkpoint.position


# Pages


BYTE_CLASSES: dict[str, Callable[[int], int]] = {
    "lowest bit": lambda byte: byte ^ 1,
    "highest bit": lambda byte: byte ^ 0x80,
    "zero": lambda byte: 0,
    "all ones": lambda byte: 0xFF,
}


def _assert_found_refused_or_unchanged(specimen: Specimen, path: Path, content: bytes, what: object) -> bool:
    put(path, content)
    verification, answers = judge(path, specimen.checkpoint)
    told = verification is None or not verification.ok
    assert told or answers == specimen.answers, what
    return told


def _places(page: int, page_bytes: int, byte_class: int) -> Iterator[int]:
    """Bytes of a page to change: the file's header and the page's in whole, of the rest some from everywhere."""
    header = 108 if page == 0 else 8
    yield from range(header)
    yield from range(header + page * 5 % 53 + byte_class * 53, page_bytes, 4 * 53)


@pytest.mark.parametrize("byte_class", BYTE_CLASSES)
def test_a_changed_byte_of_any_page_is_found_or_refused_or_changes_no_answer(
    finely_paged: Specimen, path: Path, byte_class: str
) -> None:
    content, pages = finely_paged.content, len(finely_paged.content) // SMALL_PAGE_BYTES
    mattered = 0
    for page in range(pages):
        for place in _places(page, SMALL_PAGE_BYTES, list(BYTE_CLASSES).index(byte_class)):
            at = page * SMALL_PAGE_BYTES + place
            byte = BYTE_CLASSES[byte_class](content[at])
            if byte != content[at]:
                damaged = content[:at] + bytes([byte]) + content[at + 1 :]
                mattered += _assert_found_refused_or_unchanged(finely_paged, path, damaged, (page, place, byte))
    assert mattered > 200


@pytest.mark.parametrize("page_bytes", [SMALL_PAGE_BYTES, 4_096])
def test_a_page_that_is_gone_blank_or_another_is_found_or_refused(
    specimen: Specimen, finely_paged: Specimen, path: Path, page_bytes: int
) -> None:
    chosen = finely_paged if page_bytes == SMALL_PAGE_BYTES else specimen
    content = chosen.content
    pages = [content[at : at + page_bytes] for at in range(0, len(content), page_bytes)]
    for number, page in enumerate(pages):
        other = pages[(number + 3) % len(pages)]
        for instead in (b"\0" * page_bytes, b"\xff" * page_bytes, other):
            if instead != page:
                damaged = b"".join([*pages[:number], instead, *pages[number + 1 :]])
                assert _assert_found_refused_or_unchanged(chosen, path, damaged, number), number
        for shorter in (number * page_bytes, number * page_bytes + page_bytes // 2):
            # Cut down to nothing it is a file that never held anything, and a new ledger.
            if shorter > 0:
                assert _assert_found_refused_or_unchanged(chosen, path, content[:shorter], shorter), shorter


def test_a_damaged_ledger_is_used_in_every_way_without_any_error_but_its_own(
    finely_paged: Specimen, path: Path
) -> None:
    content = finely_paged.content
    for number, at in enumerate(range(7, len(content), 311)):
        damaged = bytearray(content)
        change = list(BYTE_CLASSES.values())[number % len(BYTE_CLASSES)]
        damaged[at] = change(damaged[at])
        put(path, bytes(damaged))
        use_in_every_other_way(path)


def test_verification_goes_on_behind_a_page_that_cannot_be_read(specimen: Specimen, path: Path) -> None:
    put(path, specimen.content)
    with raw_connection(path) as connection:
        ((root,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'stored_events'")
    leaves = _pages_of_tree(specimen.content, root, 4_096)[1:]
    last = specimen.checkpoint.position
    damaged = bytearray(specimen.content)
    damaged[(leaves[0] - 1) * 4_096] = 0xFF
    put(path, bytes(damaged))
    with around_the_guards(path) as connection:
        connection.execute("UPDATE stored_events SET topic = 'lease.other' WHERE rowid = ?", (last,))
    verification = judge(path).verification
    assert verification is not None
    gap = next(finding for finding in verification.findings if finding.position == 1)
    assert (gap.witness, gap.object_name) == ("storage", "stored_events")
    beyond = [(finding.witness, finding.position) for finding in verification.findings if finding.witness != "storage"]
    assert beyond == [("body", last)]
