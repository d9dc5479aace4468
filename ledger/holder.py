"""Which process this is, and whether another one is provably gone.

A process id alone proves nothing: it is used again, and it means something else in another container or after a
reboot. So a holder also names host, boot, process namespace and start time, and only a holder of this very boot and
namespace is ever judged.
"""

import os
import socket
from functools import cache
from pathlib import Path

import psutil

from ledger.events import Holder

__all__ = ["describe_actor", "is_provably_gone", "this_process"]


@cache
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        return f"since-{int(psutil.boot_time())}"
    return f"{boot}/{namespace}"


def _started(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:
            return repr(psutil.Process(pid).create_time()) if psutil.LINUX is False else ""
        except psutil.Error:
            return ""
    # Ticks since boot, which setting the clock does not move; the name before ")" may hold spaces.
    return stat.rpartition(")")[2].split()[19]


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _exists(pid: int) -> bool:
    if os.name != "posix":
        return psutil.pid_exists(pid)
    try:
        # Asks the kernel itself: /proc may hide other users' processes.
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return not _is_zombie(pid)


@cache
def _this(pid: int) -> Holder:
    return Holder(host=socket.gethostname(), boot=_boot(), pid=pid, started=_started(pid))


def this_process(instance: str) -> Holder:
    """This process as the holder of an attempt begun by the ledger object ``instance``."""
    here = _this(os.getpid())
    return Holder(here.host, here.boot, here.pid, here.started, instance)


def is_provably_gone(holder: Holder) -> bool:
    """Whether the holder's process certainly no longer runs.

    False for a holder on another host, boot or process namespace: of those nothing can be proven from here.
    """
    here = _this(os.getpid())
    if (holder.host, holder.boot) != (here.host, here.boot):
        return False
    if not _exists(holder.pid):
        return True
    started = _started(holder.pid)
    return "" not in (started, holder.started) and started != holder.started


def describe_actor() -> str:
    """The default actor of events: ``user@host pid N``."""
    try:
        user = psutil.Process().username()
    except (psutil.Error, KeyError):
        user = f"uid{os.getuid()}"
    return f"{user}@{socket.gethostname()} pid {os.getpid()}"
