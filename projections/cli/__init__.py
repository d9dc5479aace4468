"""The command line, ``lease-ledger``."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line on this process's arguments and end the process with its exit code."""
    try:
        from projections.cli.app import lease_ledger  # noqa: PLC0415  # an interrupt while it loads is quiet too

        lease_ledger(prog_name="lease-ledger")
    except KeyboardInterrupt:
        sys.exit(130)
