"""The values of a question in SQL, as they are typed on a command line."""

import math
import re
from typing import Final

import click

from projections.wide_integers import GREATEST

__all__ = ["TakesNegativeNumbers", "bound_value"]

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,18})")
_REAL: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,4})?")

_NEGATIVE: Final = re.compile(r"-[0-9.]\S*")
_NO_OPTION: Final = "\0"
"""Put before an argument that is no option; no argument of a process holds it."""


class TakesNegativeNumbers(click.Command):
    """A command to which ``-1`` is a value and not an unknown option."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        before = ["", *args]
        return super().parse_args(
            ctx,
            [
                f"{_NO_OPTION}{arg}" if _NEGATIVE.fullmatch(arg) and not earlier.startswith("--") else arg
                for earlier, arg in zip(before, args, strict=False)
            ],
        )


def bound_value(text: str) -> int | float | str:
    """What a ``?`` stands for: a number when it is written like one, else text.

    In single quotes, as SQL writes it, it is text in any case: ``'17'`` is the text 17, and ``'it''s'`` is it's.
    Digits that a number would not give back (``007``, or more than 64 bits hold) are text.
    """
    text = text.removeprefix(_NO_OPTION)
    if len(text) > 1 and text[0] == text[-1] == "'" and "'" not in text[1:-1].replace("''", ""):
        return text[1:-1].replace("''", "'")
    if _INTEGER.fullmatch(text) and -GREATEST - 1 <= int(text) <= GREATEST and text != "-0":
        return int(text)
    if _REAL.fullmatch(text) and not _INTEGER.fullmatch(text) and not text.lstrip("-").isdecimal():
        number = float(text)
        return number if math.isfinite(number) else text
    return text
