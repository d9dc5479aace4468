"""Events as stored: a stable tag and a JSON body.

Readers ignore fields they do not know. A tag whose shape had to change is retired, never altered: the new shape
gets a new tag, and an upcaster turns the old body into the new event when it is read.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ledger.errors import UnknownEventTag
from ledger.events import EVENT_TYPES, LeaseEvent

__all__ = ["RETIRED_TAGS", "UNREADABLE", "EventCodec", "Upcaster"]

Upcaster = Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]
"""Turns the body of a retired tag into a tag and body of today (or of a later retired tag)."""

RETIRED_TAGS: Final[Mapping[str, Upcaster]] = {}
"""Every retired tag with its upcaster. Empty while no tag has been retired."""


UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What decoding bytes that are no event raises: no JSON, another shape, no UTF-8, or nesting without end."""


class EventCodec:
    """Encodes events to bytes and back.

    Args:
        upcasters: Retired tags and their upcasters.
    """

    def __init__(self, upcasters: Mapping[str, Upcaster] = RETIRED_TAGS) -> None:
        self._upcasters = upcasters
        self.encode: Callable[[LeaseEvent], bytes] = msgspec.json.Encoder().encode
        self.decoders: Mapping[str, Callable[[bytes | str], LeaseEvent]] = {
            event_type.tag: msgspec.json.Decoder(event_type).decode for event_type in EVENT_TYPES
        }
        """The decoder of every current tag, for readers that decode many events."""

    def decode(self, tag: str, body: bytes | str) -> LeaseEvent:
        """Read one event.

        Raises:
            UnknownEventTag: A newer version wrote it.
            UNREADABLE: The body is no event of that tag.
        """
        decoder = self.decoders.get(tag)
        if decoder is not None:
            return decoder(body)
        if tag not in self._upcasters:
            raise UnknownEventTag(tag)
        fields: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        while tag in self._upcasters:
            tag, fields = self._upcasters[tag](fields)
        return self.decode(tag, msgspec.json.encode(fields))
