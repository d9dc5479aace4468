"""What people type as times: each form is told from the others, or refused in one line."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from projections.times import NotATime, ReadTime, parse_time, utc_text

NOW_MS = 1_790_000_000_123
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def ms(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def read(text: str) -> ReadTime:
    return parse_time(text, NOW_MS)


def at(text: str) -> str | None:
    return utc_text(read(text).at_ms)


@given(st.datetimes(timezones=ZONES), st.sampled_from("T t"), st.sampled_from(["auto", "milliseconds", "seconds"]))
def test_iso_with_a_zone_is_that_moment(moment: datetime, between: str, precision: str) -> None:
    text = moment.isoformat(between, precision if moment.second or moment.microsecond else "minutes")
    assert read(text) == ReadTime(ms(datetime.fromisoformat(text)))


@given(st.datetimes())
def test_iso_without_a_zone_is_utc_and_says_so(moment: datetime) -> None:
    assert read(moment.isoformat()) == ReadTime(ms(moment.replace(tzinfo=UTC)), assumed_utc=True)
    assert read(f"{moment.isoformat()}Z") == ReadTime(ms(moment.replace(tzinfo=UTC)))


@given(st.dates())
def test_a_date_alone_is_its_midnight_in_utc(day: datetime) -> None:
    assert read(day.isoformat()) == ReadTime(ms(datetime(day.year, day.month, day.day, tzinfo=UTC)), assumed_utc=True)


@given(st.integers(10**9, 10**10 - 1), st.sampled_from([("", 0), (".5", 500), (".123456789", 123)]))
def test_ten_digits_are_seconds(number: int, fraction: tuple[str, int]) -> None:
    text, milliseconds = fraction
    assert read(f"{number}{text}") == ReadTime(number * 1000 + milliseconds)


@given(st.integers(10**12, 10**13 - 1))
def test_thirteen_digits_are_milliseconds(number: int) -> None:
    assert read(str(number)) == ReadTime(number)
    assert read(f"{number}.75") == ReadTime(number)


@given(st.integers(1, 10**9 - 1) | st.integers(10**10, 10**12 - 1) | st.integers(10**13, 253_402_300_799_999))
def test_a_number_that_could_be_either_is_refused_with_its_readings(number: int) -> None:
    with pytest.raises(NotATime, match="is ambiguous") as refusal:
        read(str(number))
    told = str(refusal.value)
    assert f"{utc_text(number)} in epoch milliseconds" in told
    assert f"{utc_text(number * 1000) or 'beyond the calendar'} in epoch seconds" in told


def test_eight_digits_may_also_be_a_day() -> None:
    with pytest.raises(NotATime, match="or the day 2026-11-25"):
        read("20261125")


def test_nought_is_1970_in_both_units() -> None:
    assert read("0") == read("0.0") == ReadTime(0)
    with pytest.raises(NotATime, match="ambiguous"):
        read("0.5")


@given(st.integers(0, 10**6), st.sampled_from("smhdw"), st.sampled_from(["", " "]), st.sampled_from(["", " ago"]))
def test_a_duration_is_that_long_ago(count: int, unit: str, blank: str, ago: str) -> None:
    step = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}[unit]
    expected = NOW_MS - timedelta(**{step: count}) // timedelta(milliseconds=1)
    if expected < ms(datetime.min.replace(tzinfo=UTC)):
        with pytest.raises(NotATime, match="before the year 1"):
            read(f"{count}{blank}{unit}{ago}")
    else:
        assert read(f"{count}{blank}{unit}{ago}") == ReadTime(expected)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("now", "2026-09-21T14:13:20.123Z"),
        (" 2h ago\n", "2026-09-21T12:13:20.123Z"),
        ("2026-11-25T09:00:00+05:30", "2026-11-25T03:30:00.000Z"),
        ("2026-11-25T09:00:00-0530", "2026-11-25T14:30:00.000Z"),
        ("2026-11-25 09:00+02", "2026-11-25T07:00:00.000Z"),
        ("2026-11-25 09:00 UTC", "2026-11-25T09:00:00.000Z"),
        ("2026-11-25T09:00:00,9999Z", "2026-11-25T09:00:00.999Z"),
        ("2026-11-25T09:00:00.123456789123Z", "2026-11-25T09:00:00.123Z"),
        ("20261125T090000Z", "2026-11-25T09:00:00.000Z"),
        ("20261125T0900+0100", "2026-11-25T08:00:00.000Z"),
        ("0001-01-01T00:00Z", "0001-01-01T00:00:00.000Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999Z"),
    ],
)
def test_it_is_read_as_the_moment_it_names(text: str, moment: str) -> None:
    assert at(text) == moment
    assert not read(text).assumed_utc


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "yesterday",
        "Now",
        "12:00",
        "2026",
        "2026-11",
        "2026-11-25T",
        "2026-11-25T09",
        "2026-11-25x09:00",
        "2026-11-25T09:00 America/New_York",
        "2026-11-25T09:00+24:00",
        "2026-11-25T09:00+05:60",
        "2026-13-01",
        "2026-02-30T00:00Z",
        "2026-11-25T24:00Z",
        "0000-01-01",
        "10000-01-01",
        "+2026-01-01",
        "2026-W48-3",
        "-1",
        "+1764000000",
        "-2h",
        "2h later",
        "1h30m",
        "2 hours ago",
        "1.5h",
        "1e12",
        "1_764_000_000",
        "1,764,000,000",
        "0x69249c80",
        "²",
        "٣d",
        "١٧٦٤٠٠٠٠٠٠",
        "２０２６-11-25",
        "1764000000.",
        "1764000000\u00a0",
        "2026-11-25\u200b",
        "99999999999999d",
        "9" * 23,
        "9" * 5000,
        "9" * 5000 + "d",
        "1764000000." + "9" * 5000,
        "2026-11-25T09:00:00." + "9" * 5000 + "Z",
    ],
)
def test_what_is_no_time_is_refused_in_one_short_line(text: str) -> None:
    with pytest.raises(NotATime) as refusal:
        read(text)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 400


def test_a_leap_second_is_refused_by_its_name() -> None:
    with pytest.raises(NotATime, match="no leap seconds"):
        read("2016-12-31T23:59:60Z")


@given(st.text(max_size=40) | st.from_regex(r"[0-9TZ:.+\- a-z]{1,30}", fullmatch=True))
@example("2026-11-25T09:00:00+23:59")
def test_any_text_is_a_time_or_refused(text: str) -> None:
    try:
        found = read(text)
    except NotATime as refusal:
        assert "\n" not in str(refusal)
    else:
        assert isinstance(found.at_ms, int)
