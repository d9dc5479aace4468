"""Being told to end: what is half done is undone first, then the process ends as it was told to.

SIGTERM and SIGHUP come out like Ctrl-C, so that temporary files go and transactions end; afterwards the process dies of
the signal itself, which is what its parent expects to see.
"""

import _thread
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

__all__ = ["Told", "ending_at_once", "ending_when_told", "repeat_lost_interrupts"]

_INTERRUPTED: Final = 130
_SOON_S: Final = 0.05

_SIGNALS: Final = tuple(number for name in ("SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None)


class Told:
    """Which signal told the process to end, if one did."""

    def __init__(self) -> None:
        self.by: int | None = None

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Come out of whatever is being done."""
        del frame
        self.by = number
        raise KeyboardInterrupt

    def die(self) -> None:
        """End the process by that signal, if there was one."""
        if self.by is not None:
            signal.signal(self.by, signal.SIG_DFL)
            os.kill(os.getpid(), self.by)


@contextlib.contextmanager
def ending_when_told() -> Iterator[Told]:
    """Let signals that would kill the process interrupt it instead. One that is ignored, as by ``nohup``, stays so."""
    told = Told()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    taken = [number for number in _SIGNALS if before[number] is signal.SIG_DFL]
    try:
        for number in taken:
            signal.signal(number, told.interrupt)
        yield told
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process where it stands, for a block that does nothing that could be left half done.

    Loading modules is such a block, and one in which an exception out of nowhere is complained about.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def repeat_lost_interrupts() -> None:
    """Let an interrupt that came where none can come out (a weak reference's callback, a finaliser) come again."""
    others = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            others(unraisable)
            return
        again = threading.Timer(_SOON_S, _thread.interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
