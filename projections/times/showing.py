"""Times as text: RFC 3339 in UTC where a calendar reaches that far, and the bare number where none does."""

from datetime import UTC, datetime, timedelta
from typing import Final

__all__ = ["utc_from_ms", "utc_from_s", "utc_text"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def utc_text(at_ms: int | None) -> str | None:
    """Epoch milliseconds as ``2026-01-31T12:00:00.000Z``; ``None`` for none, and outside the years 1 to 9999."""
    if at_ms is None:
        return None
    try:
        at = _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return None
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc_from_ms(at_ms: int) -> str:
    """Epoch milliseconds for people; the number itself when no calendar reaches that far."""
    return utc_text(at_ms) or str(at_ms)


def utc_from_s(epoch_s: int | None, *, none: str = "never") -> str:
    """Epoch seconds for people, to the second; the number itself when no calendar reaches that far.

    Args:
        epoch_s: Epoch seconds.
        none: What is said where there is no time.
    """
    if epoch_s is None:
        return none
    shown = utc_text(epoch_s * 1000)
    return str(epoch_s) if shown is None else f"{shown.removesuffix('.000Z')}Z"
