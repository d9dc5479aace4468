"""From SQLite's values to a typed answer: flags, phases and wide integers become themselves again."""

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from projections.audit_errors import AuditFileDamaged
from projections.wide_integers import from_column

__all__ = ["TypedRows"]

T = TypeVar("T", bound=msgspec.Struct)


class TypedRows(Generic[T]):
    """Reads rows into one kind of struct.

    Args:
        struct: The kind; its fields are named as the columns are.
        wide: Its fields that may hold integers up to 2^64-1.

    Attributes:
        columns: What to select, in order.
    """

    def __init__(self, struct: type[T], wide: Iterable[str]) -> None:
        self._struct = struct
        self._fields = struct.__struct_fields__
        self._wide = frozenset(wide)
        self.columns = ", ".join(self._fields)

    def read(self, rows: Iterable[Sequence[Any]]) -> list[T]:
        """The structs of selected rows, in their order.

        Raises:
            AuditFileDamaged: A row holds what no row of this kind does.
        """
        try:
            return [self._typed(row) for row in rows]
        except (msgspec.ValidationError, ValueError, TypeError) as error:
            raise AuditFileDamaged(
                "a row of the audit file holds what it never does; 'lease-ledger verify' shows which, 'lease-ledger "
                "rebuild' makes everything in it anew"
            ) from error

    def _typed(self, row: Sequence[Any]) -> T:
        values = {
            name: from_column(value) if name in self._wide else value
            for name, value in zip(self._fields, row, strict=True)
        }
        # Not strict, for SQLite keeps a flag as 0 or 1.
        return msgspec.convert(values, self._struct, strict=False)
