"""Times as people read them, in whatever year."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projections.times import parse_time, utc_from_ms, utc_from_s, utc_text


@given(st.integers())
def test_every_time_is_shown(number: int) -> None:
    assert utc_from_ms(number) in (utc_text(number), str(number))
    assert utc_from_s(number)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_shown_time_can_be_typed_in_again(moment: datetime) -> None:
    at_ms = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert parse_time(utc_from_ms(at_ms), 0) == (at_ms, False)
    assert parse_time(utc_from_s(at_ms // 1000), 0) == (at_ms // 1000 * 1000, False)


@pytest.mark.parametrize(
    ("at_ms", "shown"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (-62_135_596_800_001, "-62135596800001"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        (253_402_300_800_000, "253402300800000"),
        (2**64 - 1, "18446744073709551615"),
    ],
)
def test_milliseconds_are_a_date_as_far_as_the_calendar_reaches(at_ms: int, shown: str) -> None:
    assert utc_from_ms(at_ms) == shown


@pytest.mark.parametrize(
    ("epoch_s", "shown"),
    [
        (None, "never"),
        (4_000_000_000, "2096-10-02T07:06:40Z"),
        (-62_000_000_000, "0005-04-19T09:46:40Z"),
        (253_402_300_800, "253402300800"),
        (2**64 - 2, "18446744073709551614"),
    ],
)
def test_seconds_are_a_date_as_far_as_the_calendar_reaches(epoch_s: int | None, shown: str) -> None:
    assert utc_from_s(epoch_s) == shown
