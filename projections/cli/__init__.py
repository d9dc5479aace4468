"""The command line, ``lease-ledger``."""

import os
import sys

from projections.cli.signals import ending_at_once, repeat_lost_interrupts

__all__ = ["main"]


def main() -> None:
    """Run the command line on this process's arguments and end the process with its exit code."""
    try:
        _occupy_standard_descriptors()
        repeat_lost_interrupts()
        with ending_at_once():
            from projections.cli.app import lease_ledger  # noqa: PLC0415  # an interrupt while it loads is quiet too

        lease_ledger(prog_name="lease-ledger")
    except KeyboardInterrupt:
        sys.exit(130)


def _occupy_standard_descriptors() -> None:
    # Where the caller closed one, the first file that is opened would get its number, and messages would go into it.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
        pass
    os.close(descriptor)
