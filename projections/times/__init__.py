"""Times as people write them and read them: one parser and one formatter for the whole project."""

from projections.times.parsing import TIME_HELP, NotATime, ReadTime, epoch_ms, parse_iso, parse_time
from projections.times.showing import utc_from_ms, utc_from_s, utc_text

__all__ = [
    "TIME_HELP",
    "NotATime",
    "ReadTime",
    "epoch_ms",
    "parse_iso",
    "parse_time",
    "utc_from_ms",
    "utc_from_s",
    "utc_text",
]
