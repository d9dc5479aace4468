"""Text for terminals. Whatever was recorded is shown, but it never moves the cursor, changes a colour or hides."""

from datetime import UTC, datetime

__all__ = ["printable", "utc"]


def printable(text: str) -> str:
    """The text with everything that is no visible character written as an escape."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )


def utc(epoch_s: int | None, *, none: str = "never") -> str:
    """Epoch seconds as a UTC time; seconds as they are when no calendar reaches that far."""
    if epoch_s is None:
        return none
    try:
        return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(epoch_s)
