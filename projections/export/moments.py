"""Times as text: RFC 3339 in UTC, where a calendar reaches that far."""

from datetime import UTC, datetime, timedelta

__all__ = ["utc_text"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_text(at_ms: int) -> str | None:
    """Epoch milliseconds as ``2026-01-31T12:00:00.000Z``; ``None`` outside the years 1 to 9999."""
    try:
        at = _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
