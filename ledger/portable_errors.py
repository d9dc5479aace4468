"""How an error crosses a process boundary whole: with its attributes and its cause, whatever its constructor takes.

An exception that can be pickled but not unpickled hangs a process pool, and many libraries have some. So what is not
ours is tried first, and travels as a :class:`ForeignError` when it would not arrive as what it was.
"""

import pickle
from typing import Any

__all__ = ["ForeignError", "arrive", "portable"]


class ForeignError(Exception):
    """Stands in for another library's error that could not leave the process it was raised in.

    Its text is the text of that error.

    Attributes:
        kind: Name of that error's class, with its module.
        text: What it said.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return self.text


def portable(value: Any) -> Any:
    """The value itself, or the stand-in of an error that would not arrive in another process as it is here."""
    if not isinstance(value, BaseException):
        return value
    try:
        arrived = pickle.loads(pickle.dumps(value))  # noqa: S301  # our own bytes
    except Exception:
        arrived = None
    if type(arrived) is type(value) and str(arrived) == str(value):
        return value
    kind = type(value)
    return ForeignError(f"{kind.__module__}.{kind.__qualname__}", str(value))


def arrive(kind: type[BaseException], args: tuple[Any, ...], cause: BaseException | None) -> BaseException:
    """An error as it was sent; its attributes follow. Its constructor is not asked, for it has run already."""
    error = kind.__new__(kind)
    error.args = args
    if cause is not None:
        error.__cause__ = cause
    return error
