"""Answers as JSON: what a typed answer holds, with each event told as the JSON-lines export tells it."""

from collections.abc import Mapping
from typing import Any

import msgspec

from ledger.keys import LeaseKey
from ledger.reading import RecordedEvent
from projections.export.json_text import exact
from projections.export.jsonl import row

__all__ = ["to_plain"]


def to_plain(answer: Any) -> Any:
    """A typed answer as plain dictionaries, lists, texts and numbers, ready to be written as JSON; integers that JSON
    readers round as their digits.

    Keys of leases are text. Fields that a kind of answer leaves out when they are at their default stay out.
    """
    match answer:
        case RecordedEvent():
            return row(answer)
        case LeaseKey():
            return str(answer)
        case msgspec.Struct():
            return {name: to_plain(getattr(answer, name)) for name in _fields(answer)}
        case tuple() | list():
            return [to_plain(item) for item in answer]
        case Mapping():
            return {str(name): to_plain(value) for name, value in answer.items()}
        case _:
            return exact(answer)


def _fields(answer: msgspec.Struct) -> list[str]:
    if not answer.__struct_config__.omit_defaults:
        return list(answer.__struct_fields__)
    return [field.name for field in msgspec.structs.fields(answer) if getattr(answer, field.name) != field.default]
