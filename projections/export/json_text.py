"""JSON that survives its readers: integers that nobody rounds, lines that nobody splits."""

from typing import Any, Final

from projections.printable import to_printable_json

__all__ = ["GREATEST_NUMBER", "exact", "json_line"]

GREATEST_NUMBER: Final = 2**53 - 1
"""The greatest integer that every JSON reader keeps (RFC 7493); JavaScript and jq round greater ones."""


def exact(value: Any) -> Any:
    """The same value, with every integer beyond what JSON readers keep turned into its decimal digits as a string."""
    if isinstance(value, dict):
        return {name: exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, int) and abs(value) > GREATEST_NUMBER:
        return str(value)
    return value


def json_line(document: dict[str, Any]) -> str:
    """The document as one line of JSON, its line break included.

    What is no visible character is escaped, so that no reader takes one for the end of a line, and no terminal obeys.
    """
    return to_printable_json(document) + "\n"
