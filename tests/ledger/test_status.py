"""Status: a snapshot and a clock in, a phase out; tokens never say more than the lease."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.keys import LeaseKey
from ledger.marker import mark_tokens_lifecycle_published_for_transition
from ledger.snapshot import MAX_U64, NEVER_EXPIRES, AuthLeasePhase, AuthLeaseSnapshot, AuthLeaseTransition
from ledger.status import (
    AuthStatusPhase,
    AuthStatusRehydrateError,
    PublishedAuthStatus,
    lease_snapshot_expires_at_datetime,
    oauth_status_projection_snapshot_from_newer_marker,
    project_published_auth_status,
    rehydrate_marked_oauth_tokens_for_status,
)
from ledger.tokens import PersistedAuthMode, PersistedTokens

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z
PHASES = [None, *AuthLeasePhase]
NOWS = st.datetimes(
    min_value=datetime(2, 1, 1),
    max_value=datetime(9998, 12, 31),
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))]),
)


def _lease(
    phase: AuthLeasePhase | None = AuthLeasePhase.VALID,
    expires_at: int | None = None,
    *,
    credential_present: bool = True,
    published: int | None = 100,
    generation: int = 4,
) -> AuthLeaseSnapshot:
    return AuthLeaseSnapshot(phase, expires_at, credential_present, generation, published)


def _at(epoch_secs: float) -> datetime:
    return EPOCH + timedelta(seconds=epoch_secs)


def _tokens(expires_at: int | None = None, **fields: Any) -> PersistedTokens:
    return PersistedTokens(PersistedAuthMode.CHATGPT_OAUTH, expires_at=expires_at, **fields)


# Phase


@pytest.mark.parametrize(
    ("remaining", "status"),
    [
        (-1, "expired"),
        (0, "expired"),
        (1, "expiring"),
        (59, "expiring"),
        (60, "valid"),
        (61, "valid"),
    ],
)
def test_a_valid_lease_is_told_by_the_whole_seconds_it_has_left(remaining: int, status: str) -> None:
    now = _at(1_777_377_600)
    expires_at = 1_777_377_600 + remaining
    assert AuthStatusPhase.from_lease_expires_at(now, expires_at) == status
    assert AuthStatusPhase.from_lease_snapshot(now, _lease(expires_at=expires_at)) == status


@pytest.mark.parametrize("phase", [AuthLeasePhase.EXPIRING, AuthLeasePhase.REFRESHING])
@pytest.mark.parametrize(
    ("expires_at", "status"),
    [(None, "expiring"), (999, "expired"), (1000, "expired"), (1001, "expiring"), (5000, "expiring")],
)
def test_a_lease_about_to_expire_is_expiring_until_it_has(
    phase: AuthLeasePhase, expires_at: int | None, status: str
) -> None:
    assert AuthStatusPhase.from_lease_snapshot(_at(1000), _lease(phase, expires_at)) == status


@pytest.mark.parametrize(("now", "status"), [(0.999999, "expiring"), (1, "expired"), (-0.5, "expiring")])
def test_a_second_begun_counts_in_full_before_and_after_1970(now: float, status: str) -> None:
    assert AuthStatusPhase.from_lease_expires_at(_at(now), 1) == status


def test_half_a_second_before_1970_is_one_whole_second_before_it() -> None:
    assert AuthStatusPhase.from_lease_expires_at(_at(-0.5), 0) == "expiring"
    assert AuthStatusPhase.from_lease_expires_at(_at(-0.5), 58) == "expiring"
    assert AuthStatusPhase.from_lease_expires_at(_at(-0.5), 59) == "valid"


def test_the_last_microsecond_of_a_far_second_is_not_rounded_up() -> None:
    now = datetime(9999, 12, 31, 23, 59, 58, 999_999, tzinfo=UTC)
    assert AuthStatusPhase.from_lease_expires_at(now, LAST_SECOND) == "expiring"


@given(NOWS, st.sampled_from([2**63 - 1, 2**63, NEVER_EXPIRES - 1, NEVER_EXPIRES]))
def test_an_expiry_no_date_can_hold_is_far_away(now: datetime, expires_at: int) -> None:
    assert AuthStatusPhase.from_lease_expires_at(now, expires_at) == "valid"


@given(NOWS, st.none() | st.integers(0, MAX_U64))
def test_a_time_zone_changes_no_status(now: datetime, expires_at: int | None) -> None:
    assert AuthStatusPhase.from_lease_expires_at(now, expires_at) == (
        AuthStatusPhase.from_lease_expires_at(now.astimezone(UTC), expires_at)
    )


@pytest.mark.parametrize("phase", PHASES)
@given(now=NOWS, expires_at=st.none() | st.integers(0, MAX_U64))
def test_without_a_credential_nothing_is_known(
    phase: AuthLeasePhase | None, now: datetime, expires_at: int | None
) -> None:
    lease = _lease(phase, expires_at, credential_present=False)
    assert AuthStatusPhase.from_lease_snapshot(now, lease) == "unknown"


@pytest.mark.parametrize("phase", PHASES)
def test_without_a_clock_a_phase_stands_for_itself(phase: AuthLeasePhase | None) -> None:
    expected = {
        None: "unknown",
        "valid": "valid",
        "expiring": "expiring",
        "refreshing": "expiring",
        "reauth_required": "reauth_required",
        "released": "unknown",
    }
    assert AuthStatusPhase.from_lease_phase(phase) == expected[phase]


@given(NOWS, st.sampled_from(PHASES), st.none() | st.integers(0, MAX_U64), st.booleans())
def test_a_clock_refines_a_phase_and_never_contradicts_it(
    now: datetime, phase: AuthLeasePhase | None, expires_at: int | None, credential_present: bool
) -> None:
    lease = _lease(phase, expires_at, credential_present=credential_present)
    refined = {
        "valid": {"valid", "expiring", "expired"},
        "expiring": {"expiring", "expired"},
        "reauth_required": {"reauth_required"},
        "unknown": {"unknown"},
    }[AuthStatusPhase.from_lease_phase(phase if credential_present else None)]
    assert AuthStatusPhase.from_lease_snapshot(now, lease) in refined


@given(st.integers(0, LAST_SECOND - 1), st.integers(0, LAST_SECOND - 1), st.integers(0, MAX_U64))
def test_as_time_passes_a_status_only_gets_worse(one: int, other: int, expires_at: int) -> None:
    order = ["valid", "expiring", "expired"]
    earlier, later = sorted((one, other))
    for phase in (AuthLeasePhase.VALID, AuthLeasePhase.EXPIRING, AuthLeasePhase.REFRESHING):
        lease = _lease(phase, expires_at)
        ranks = [order.index(AuthStatusPhase.from_lease_snapshot(_at(at), lease)) for at in (earlier, later)]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize("now", [datetime.min, datetime.max])
@pytest.mark.parametrize("hours", [-23, 0, 23])
def test_a_clock_at_either_end_of_time_is_read(now: datetime, hours: int) -> None:
    zoned = now.replace(tzinfo=timezone(timedelta(hours=hours)))
    assert AuthStatusPhase.from_lease_expires_at(zoned, MAX_U64) == "valid"


def test_a_clock_without_a_time_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        AuthStatusPhase.from_lease_expires_at(datetime(2026, 4, 28), 5)


# Projection


def test_status_projects_the_phase_without_token_material() -> None:
    stored = _tokens(9, primary_secret="canary-1", refresh_token="canary-2", metadata={"canary-3": "canary-4"})
    for phase in (AuthLeasePhase.VALID, AuthLeasePhase.REAUTH_REQUIRED):
        status = project_published_auth_status(_at(0), stored, _lease(phase, 1000))
        assert status.phase == AuthStatusPhase.from_lease_snapshot(_at(0), _lease(phase, 1000))
        assert status.tokens is stored
        assert "canary" not in f"{status!r} {status}"
        assert "tokens" not in repr(status)


@pytest.mark.parametrize(
    "lease",
    [_lease(None), _lease(AuthLeasePhase.RELEASED, 1000), _lease(credential_present=False), AuthLeaseSnapshot()],
    ids=repr,
)
def test_an_unknown_login_shows_neither_expiry_nor_tokens(lease: AuthLeaseSnapshot) -> None:
    status = project_published_auth_status(_at(0), _tokens(9, primary_secret="s"), lease)
    assert status == PublishedAuthStatus(AuthStatusPhase.UNKNOWN)
    assert (status.expires_at, status.tokens) == (None, None)


@pytest.mark.parametrize("no_date", [None, NEVER_EXPIRES, LAST_SECOND + 1])
def test_the_tokens_expiry_stands_in_only_where_the_lease_has_no_date(no_date: int | None) -> None:
    stored = _tokens(9)
    assert project_published_auth_status(_at(0), stored, _lease(expires_at=8)).expires_at == _at(8)
    assert project_published_auth_status(_at(0), stored, _lease(expires_at=no_date)).expires_at == _at(9)
    for without in (None, _tokens(None)):
        status = project_published_auth_status(_at(0), without, _lease(expires_at=no_date))
        assert (status.phase, status.expires_at, status.tokens) == ("valid", None, without)


@given(st.integers(-(2**63), 2**63 - 1))
def test_no_expiry_of_stored_tokens_makes_a_status_fail(expires_at: int) -> None:
    status = project_published_auth_status(_at(0), _tokens(expires_at), _lease())
    in_range = -62_135_596_800 <= expires_at <= LAST_SECOND
    assert status.expires_at == (_at(expires_at) if in_range else None)


@pytest.mark.parametrize(
    ("expires_at", "date"),
    [
        (None, None),
        (0, EPOCH),
        (LAST_SECOND, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (LAST_SECOND + 1, None),
        (2**63, None),
        (NEVER_EXPIRES, None),
    ],
)
def test_a_lease_expiry_is_a_utc_date_where_there_is_one(expires_at: int | None, date: datetime | None) -> None:
    found = lease_snapshot_expires_at_datetime(_lease(None, expires_at, credential_present=False))
    assert found == date
    assert found is None or found.tzinfo is UTC


class _Untouchable:
    """Fails on any use."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"{name} was asked for")


def test_a_status_never_rebuilds_a_lease_from_tokens() -> None:
    answer = rehydrate_marked_oauth_tokens_for_status(_Untouchable(), _Untouchable(), LeaseKey("dev", "openai"))
    assert answer is None
    assert issubclass(AuthStatusRehydrateError, Exception)


# A newer marker


def _marked(
    published: int, *, generation: int = 9, expires_at: int | None = 500, event: str | None = None
) -> PersistedTokens:
    transition = AuthLeaseTransition(generation, published, event_id=event)
    return mark_tokens_lifecycle_published_for_transition(_tokens(expires_at), transition)


def _edited(tokens: PersistedTokens, **fields: Any) -> PersistedTokens:
    """The tokens with their marker edited by hand; ``...`` removes a field."""
    marker = {**tokens.metadata["meerkat_auth_lifecycle"], **fields}
    marker = {name: value for name, value in marker.items() if value is not ...}
    return _tokens(tokens.expires_at, metadata={"meerkat_auth_lifecycle": marker})


def test_a_newer_marker_shows_the_publication_the_lease_has_not_seen() -> None:
    projected = oauth_status_projection_snapshot_from_newer_marker(
        _lease(AuthLeasePhase.REFRESHING, 400), _marked(101, event="e1")
    )
    assert projected == AuthLeaseSnapshot(AuthLeasePhase.VALID, 500, True, 9, 101)
    assert projected is not None and projected.published_by == "e1"


def test_a_newer_marker_of_tokens_that_never_expire_shows_an_unbounded_lease() -> None:
    projected = oauth_status_projection_snapshot_from_newer_marker(_lease(), _marked(101, expires_at=None))
    assert projected == AuthLeaseSnapshot(AuthLeasePhase.VALID, None, True, 9, 101)


@pytest.mark.parametrize("generation", [..., None, -1, 1.0, "9"])
def test_a_newer_marker_without_a_generation_keeps_the_lease_s(generation: Any) -> None:
    projected = oauth_status_projection_snapshot_from_newer_marker(
        _lease(generation=4), _edited(_marked(101), generation=generation)
    )
    assert projected is not None
    assert projected.generation == 4


@pytest.mark.parametrize("phase", PHASES)
def test_any_phase_of_a_lease_that_holds_a_credential_gives_way_to_a_newer_marker(
    phase: AuthLeasePhase | None,
) -> None:
    projected = oauth_status_projection_snapshot_from_newer_marker(_lease(phase), _marked(101))
    assert projected is not None
    assert projected.phase is AuthLeasePhase.VALID


@pytest.mark.parametrize(
    ("lease", "tokens"),
    [
        (_lease(credential_present=False), _marked(101)),
        (_lease(), _tokens(500)),
        (_lease(), _edited(_marked(101), published=False)),
        (_lease(), _edited(_marked(101), expires_at=...)),
        (_lease(), _edited(_marked(101), expires_at=500.0)),
        (_lease(), _edited(_marked(101), expires_at=501)),
        (_lease(), _edited(_marked(101), expires_at=NEVER_EXPIRES)),
        (_lease(published=None), _marked(101)),
        (_lease(), _edited(_marked(101), credential_published_at_millis=...)),
        (_lease(), _edited(_marked(101), credential_published_at_millis=1e6)),
        (_lease(), _marked(100)),
        (_lease(), _marked(99)),
    ],
    ids=[
        "no credential on the lease",
        "no marker",
        "a marker that does not say published",
        "no expiry in the marker",
        "an expiry in the marker that does not count",
        "a marker's expiry that differs from the tokens'",
        "a marker unbounded for bounded tokens",
        "no publication time on the lease",
        "no publication time in the marker",
        "a publication time that does not count",
        "the same publication time",
        "an older marker",
    ],
)
def test_anything_less_than_a_whole_and_newer_marker_shows_nothing(
    lease: AuthLeaseSnapshot, tokens: PersistedTokens
) -> None:
    assert oauth_status_projection_snapshot_from_newer_marker(lease, tokens) is None
