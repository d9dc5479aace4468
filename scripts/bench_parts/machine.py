"""What the figures were measured on: without it they mean nothing."""

import os
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path

import msgspec

from ledger.recorders.filesystem import file_system_of, mounts

__all__ = ["Machine", "this_machine"]


class Machine(msgspec.Struct, frozen=True):
    """The machine, its software, and the day."""

    date: str
    processor: str
    cores: int
    system: str
    python: str
    sqlite: str
    eventsourcing: str
    msgspec: str
    file_system: str

    def described(self) -> str:
        """In two lines."""
        return (
            f"{self.date}, {self.cores} cores ({self.processor}), {self.system}, {self.file_system}\n"
            f"Python {self.python}, SQLite {self.sqlite}, eventsourcing {self.eventsourcing}, msgspec {self.msgspec}"
        )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def this_machine(folder: Path, date: str) -> Machine:
    """The machine, with the file system that ``folder`` lies on."""
    return Machine(
        date,
        _processor(),
        os.cpu_count() or 1,
        f"{platform.system()} {platform.release()}",
        platform.python_version(),
        sqlite3.sqlite_version,
        version("eventsourcing"),
        version("msgspec"),
        file_system_of(folder, mounts()) or "unknown file system",
    )
