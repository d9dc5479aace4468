"""Real processes that do with a ledger what a test tells them, one JSON line at a time."""

import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

from ledger.errors import LeaseLedgerError
from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger


class WorkerFailed(Exception):
    """What the process was told raised an error; its class and text are the arguments."""


class Worker:
    """A process of its own. Tell it something with :meth:`do`, or with :meth:`tell` and, later, :meth:`answer`."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
            bufsize=1,
        )

    def tell(self, action: str, **arguments: Any) -> None:
        """Start something without waiting for it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([action, arguments]) + "\n")

    def answer(self) -> Any:
        """The next answer.

        Raises:
            WorkerFailed: It was an error.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.endswith("\n"), f"the process ended with {self._process.wait()} after {line!r}"
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerFailed(*answer["error"])
        return answer["result"]

    def do(self, action: str, **arguments: Any) -> Any:
        """Do something and wait for what came of it."""
        self.tell(action, **arguments)
        return self.answer()

    def kill(self) -> list[Any]:
        """Kill -9, and return the answers that had already left the process."""
        self._process.kill()
        assert self._process.stdout is not None
        whole = [line for line in self._process.stdout if line.endswith("\n")]
        self.close()
        return [json.loads(line)["result"] for line in whole]

    def close(self) -> None:
        """Let the process end."""
        self._process.communicate()


class _Session:
    """What a worker can be told."""

    ledger: LeaseLedger

    def open(self, url: str, at: float = 0) -> str:
        """Open a ledger, at a given time so that many processes do it at once."""
        while time.time() < at:
            pass
        self.ledger = LeaseLedger.open(url)
        return self.ledger.ledger_id

    def close(self) -> None:
        self.ledger.close()

    def acquire(self, key: str, times: int = 1) -> int:
        transitions = [self.ledger.acquire_lease(LeaseKey.parse(key), expires_at) for expires_at in range(times)]
        return transitions[-1].generation

    def acquire_forever(self, key: str) -> None:
        """Append until killed, acknowledging each generation once it is stored."""
        while True:
            _reply(result=self.ledger.acquire_lease(LeaseKey.parse(key), 500).generation)

    def snapshot(self, key: str) -> tuple[str | None, int]:
        snapshot = self.ledger.snapshot(LeaseKey.parse(key))
        return snapshot.phase, snapshot.generation

    def limit_file_size(self, size: int | None) -> None:
        """From here on no file may grow beyond a size: the disk is full. ``None``: there is room again."""
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))

    def become(self, uid: int) -> None:
        """Go on as another user."""
        os.seteuid(uid)


def _reply(**answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _serve() -> None:
    session = _Session()
    for line in sys.stdin:
        action, arguments = json.loads(line)
        try:
            _reply(result=getattr(session, action)(**arguments))
        except (LeaseLedgerError, OSError) as error:
            _reply(error=[type(error).__name__, str(error)])


if __name__ == "__main__":
    _serve()
