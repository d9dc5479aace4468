"""Striking a thread at one of its opcodes: between any two instructions of the library, something happens."""

import dis
import inspect
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

import ledger

LIBRARY: Final = str(Path(ledger.__file__).parent) + os.sep

_RETURN: Final = dis.opmap["RETURN_VALUE"]
_AWAITING: Final = frozenset(
    dis.opmap[name]
    for name in ("SEND", "YIELD_VALUE", "JUMP_BACKWARD_NO_INTERRUPT", "RESUME", "END_SEND", "CLEANUP_THROW")
    if name in dis.opmap
)
"""What a coroutine executes while another that it awaits is suspended: there the interpreter handles no signal."""


class Strike:
    """Counts the opcodes that this thread executes in the library, and does something at one of them, once.

    Args:
        at: The number of the opcode, from 1; 0 for none.
        what: What to do there; what it raises comes out at that very opcode.
        is_signal: Whether it comes where the interpreter handles signals, and so never in the midst of an ``await``.

    Attributes:
        opcodes: How many were executed.
        where: File, line and function of the opcode that was struck.
        had_ended: Whether the call of the library was over but for returning its outcome.
    """

    def __init__(self, at: int, what: Callable[[], object], *, is_signal: bool) -> None:
        self.at = at
        self.opcodes = 0
        self.where = ""
        self.had_ended = False
        self._what = what
        self._is_signal = is_signal
        self._thread = threading.get_ident()

    def __enter__(self) -> Self:
        sys.settrace(self._called)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.settrace(None)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Callable[[FrameType, str, Any], Any] | None:
        if not frame.f_code.co_filename.startswith(LIBRARY):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return self._executed

    def _executed(self, frame: FrameType, event: str, argument: Any) -> Callable[[FrameType, str, Any], Any] | None:
        if event == "opcode" and threading.get_ident() == self._thread and not self._is_spared(frame):
            self.opcodes += 1
            if self.opcodes == self.at:
                self.at = 0
                name = frame.f_code.co_filename.removeprefix(LIBRARY)
                self.where = f"{name}:{frame.f_lineno} {frame.f_code.co_name} +{frame.f_lasti}"
                caller = frame.f_back
                self.had_ended = (
                    frame.f_code.co_code[frame.f_lasti] == _RETURN
                    and caller is not None
                    and not caller.f_code.co_filename.startswith(LIBRARY)
                )
                self._what()
        return self._executed

    def _is_spared(self, frame: FrameType) -> bool:
        is_coroutine = bool(frame.f_code.co_flags & inspect.CO_COROUTINE)
        return self._is_signal and is_coroutine and frame.f_code.co_code[frame.f_lasti] in _AWAITING
