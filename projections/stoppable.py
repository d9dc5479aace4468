"""Work that an interrupt ends early but does not tear: it looks, now and then, whether it was asked to stop."""

from collections.abc import Callable
from typing import TypeVar

from ledger.threads import Job, StopRequest, finished, in_main_thread

__all__ = ["stoppable"]

T = TypeVar("T")


def stoppable(call: Callable[[StopRequest], T]) -> T:
    """Run a call where no signal handler can raise; an interrupt asks it to stop, and comes out when it has.

    Args:
        call: Looks at what it is given whenever it could stop.
    """
    stop = StopRequest()
    return finished(Job(lambda: call(stop), stop)) if in_main_thread() else call(stop)
