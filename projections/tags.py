"""Naming kinds of events: in full as they are stored, or without the part that all have in common."""

from typing import Final

from ledger.events import EVENT_TYPES

__all__ = ["TAGS", "full_tag"]

TAGS: Final = tuple(event_type.tag for event_type in EVENT_TYPES)
"""Every tag an event can carry."""

_COMMON: Final = "lease."


def full_tag(text: str) -> str:
    """The tag that a person means by ``refreshed`` or ``lease.refreshed``.

    Raises:
        ValueError: No event carries it; the message names those there are.
    """
    tag = text if text.startswith(_COMMON) else f"{_COMMON}{text}"
    if tag not in TAGS:
        raise ValueError(f"no event carries the tag {text!r}; the tags are {', '.join(TAGS)}")
    return tag
