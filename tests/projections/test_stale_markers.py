"""Stored tokens held against the ledger: each class of them, made the way it really comes about."""

from pathlib import Path

import pytest

from ledger.credentials import Credentials
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.marker import mark_tokens_lifecycle_published_for_generation
from ledger.recovery import marked_for
from ledger.store_errors import TokenStoreError, TokenStoreUnavailable
from ledger.stores.file import FileTokenStore
from ledger.tokens import PersistedAuthMode, PersistedTokens
from projections.audit import AuditLog
from projections.stale_markers import StoredToken, TokenFinding, find_stale_markers

KEY = LeaseKey.parse("dev:openai:work")
CANARY = "canary-3f9c"
OAUTH = PersistedTokens(
    PersistedAuthMode.EXTERNAL_TOKENS, primary_secret=CANARY, refresh_token=CANARY, expires_at=2_000_000_000
)


@pytest.fixture
def store(tmp_path: Path) -> FileTokenStore:
    """Where the tokens are."""
    return FileTokenStore(tmp_path / "tokens")


def _found(ledger: LeaseLedger, store: FileTokenStore) -> list[StoredToken]:
    return AuditLog.open(ledger).stale_markers(store)


def _only(ledger: LeaseLedger, store: FileTokenStore) -> StoredToken:
    (token,) = _found(ledger, store)
    assert token.key == str(KEY)
    return token


def test_tokens_of_the_event_in_force_are_current(ledger: LeaseLedger, store: FileTokenStore) -> None:
    transition = Credentials(ledger, store).login(KEY, OAUTH)
    token = _only(ledger, store)
    assert token == StoredToken(str(KEY), TokenFinding.CURRENT, 1, 1, transition.event_id)
    assert CANARY not in repr(token)


def test_tokens_that_something_newer_replaced_name_the_event_that_did(
    ledger: LeaseLedger, store: FileTokenStore
) -> None:
    first = Credentials(ledger, store).login(KEY, OAUTH)
    newer = ledger.acquire_lease(KEY, 2_000_000_500)
    token = _only(ledger, store)
    assert (token.found, token.event_id, token.generation) == (TokenFinding.SUPERSEDED, first.event_id, 1)
    assert (token.superseded_by, token.superseded_by_version, token.lease_generation) == (newer.event_id, 2, 2)


def test_tokens_saved_by_an_attempt_before_its_event_are_unrecorded(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(ledger, store).login(KEY, OAUTH)
    attempt = ledger.begin_refresh(KEY)
    publication = ledger.plan_publication(KEY)
    store.save(KEY, marked_for(publication, attempt.id, OAUTH))
    token = _only(ledger, store)
    assert (token.found, token.attempt, token.event_id) == (
        TokenFinding.UNRECORDED,
        attempt.id,
        publication.event_id,
    )


def test_tokens_left_behind_by_a_logout_are_orphaned(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(ledger, store).login(KEY, OAUTH)
    ledger.release_lease(KEY)
    assert _only(ledger, store).found is TokenFinding.ORPHANED


def test_tokens_without_a_marker_are_unmarked(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(ledger, store).login(KEY, PersistedTokens.api_key(CANARY))
    assert _only(ledger, store).found is TokenFinding.UNMARKED


def test_tokens_of_another_ledger_are_foreign(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(LeaseLedger.open("memory://"), store).login(KEY, OAUTH)
    ledger.acquire_lease(KEY, 5)
    assert _only(ledger, store).found is TokenFinding.FOREIGN


def test_tokens_beyond_the_ledgers_generation_show_that_it_is_an_older_copy(
    ledger: LeaseLedger, store: FileTokenStore
) -> None:
    ledger.acquire_lease(KEY, 5)
    store.save(KEY, mark_tokens_lifecycle_published_for_generation(OAUTH, 7))
    token = _only(ledger, store)
    assert (token.found, token.generation, token.lease_generation) == (TokenFinding.AHEAD, 7, 1)


def test_bytes_that_are_no_tokens_are_unreadable_and_stay(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(ledger, store).login(KEY, OAUTH)
    file = store.path_of(KEY)
    file.write_text(f'{{"auth_mode": "{CANARY}"}}')
    token = _only(ledger, store)
    assert token.found is TokenFinding.UNREADABLE
    assert token.detail
    assert CANARY not in token.detail
    assert CANARY in file.read_text()


def test_a_lease_whose_tokens_are_not_there_is_missing_them(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(ledger, store).login(KEY, OAUTH)
    ledger.mark_expiring(KEY)
    store.clear(KEY)
    assert _only(ledger, store).found is TokenFinding.MISSING


def test_a_released_lease_misses_nothing(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(ledger, store).login(KEY, OAUTH)
    Credentials(ledger, store).logout(KEY)
    assert _found(ledger, store) == []
    assert find_stale_markers(ledger, store, [KEY]) == []


def test_tokens_of_a_key_the_ledger_never_saw_are_listed_too(ledger: LeaseLedger, store: FileTokenStore) -> None:
    store.save(KEY, mark_tokens_lifecycle_published_for_generation(OAUTH, 0))
    token = _only(ledger, store)
    assert (token.found, token.lease_generation) == (TokenFinding.UNMARKED, 0)


def test_looking_changes_nothing(ledger: LeaseLedger, store: FileTokenStore) -> None:
    Credentials(ledger, store).login(KEY, OAUTH)
    ledger.acquire_lease(KEY, 5)
    file, events = store.path_of(KEY), ledger.recorder.last_position()
    before = (file.read_bytes(), file.stat().st_mtime_ns)
    _found(ledger, store)
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert ledger.recorder.last_position() == events


def test_keys_are_sorted(ledger: LeaseLedger, store: FileTokenStore) -> None:
    for text in ("z:a", "a:b", "a:b:c", "m:n"):
        Credentials(ledger, store).login(LeaseKey.parse(text), OAUTH)
    assert [token.key for token in _found(ledger, store)] == ["a:b", "a:b:c", "m:n", "z:a"]


def test_a_store_that_cannot_be_asked_is_not_an_empty_one(ledger: LeaseLedger, tmp_path: Path) -> None:
    class Unreachable(FileTokenStore):
        def load(self, key: LeaseKey) -> PersistedTokens | None:
            raise TokenStoreUnavailable("nobody answers")

    ledger.acquire_lease(KEY, 5)
    with pytest.raises(TokenStoreError):
        _found(ledger, Unreachable(tmp_path))


def test_one_key_whose_tokens_cannot_be_asked_for_hides_no_other(
    ledger: LeaseLedger, store: FileTokenStore, tmp_path: Path
) -> None:
    class PartlyUnreachable(FileTokenStore):
        def load(self, key: LeaseKey) -> PersistedTokens | None:
            if key != KEY:
                raise TokenStoreUnavailable("nobody answers")
            return super().load(key)

    other = LeaseKey.parse("dev:other")
    for key in (KEY, other):
        Credentials(ledger, store).login(key, OAUTH)
    found = _found(ledger, PartlyUnreachable(tmp_path / "tokens"))
    assert [(token.key, token.found) for token in found] == [
        (str(KEY), TokenFinding.CURRENT),
        (str(other), TokenFinding.UNAVAILABLE),
    ]
    assert found[1].detail is not None and "nobody answers" in found[1].detail
