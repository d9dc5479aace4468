"""A process that works with the audit log of a ledger: ``asking.py [as-nobody-]ACTION LEDGER [arguments]``."""

import os
import signal
import sys
from pathlib import Path

import msgspec

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from projections.audit import AuditLog
from projections.audit_file import AuditFileError


def die_at(audit: AuditLog, statement: str, occurrence: int) -> None:
    """Kill this process, as kill -9 does, right before its nth SQL statement that begins so."""
    seen = 0

    def look(sql: str) -> None:
        nonlocal seen
        seen += sql.lstrip().startswith(statement)
        if seen == occurrence:
            os.kill(os.getpid(), signal.SIGKILL)

    audit._file().db.conn.set_trace_callback(look)


def become_nobody() -> None:
    """Give up what root may do; everything is imported by now."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)


def main(action: str, path: str, *arguments: str) -> None:
    """Do what the arguments say; answers go to standard output as JSON."""
    if action.startswith("as-nobody-"):
        become_nobody()
        action = action.removeprefix("as-nobody-")
    ledger = LeaseLedger.open(f"sqlite:///{path}")
    audit = AuditLog.open(ledger)
    match action:
        case "die-catching-up":
            die_at(audit, arguments[0], int(arguments[1]))
            audit.catch_up()
        case "die-rebuilding":
            die_at(audit, arguments[0], int(arguments[1]))
            audit.rebuild()
        case "try-to-rebuild":
            try:
                audit.rebuild()
            except AuditFileError as error:
                print(error)
        case "history":
            entries = audit.history(LeaseKey.parse(arguments[0]))
            print(msgspec.json.encode([audit._file().private, [entry.version for entry in entries]]).decode())
        case "follow":
            print("ready", flush=True)
            sys.stdin.readline()
            for _ in range(int(arguments[0])):
                audit.catch_up()
            print(audit.catch_up())
        case "rebuild":
            print("ready", flush=True)
            sys.stdin.readline()
            for _ in range(int(arguments[0])):
                audit.rebuild()
            print(audit.catch_up())
        case _:
            raise ValueError(action)
    assert Path(path).exists()


if __name__ == "__main__":
    main(*sys.argv[1:])
