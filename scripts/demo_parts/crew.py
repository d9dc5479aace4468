"""Start eight agents, replace those that are killed, and end them all, whatever happens."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from demo_parts.kills import victims
from demo_parts.plan import Plan

__all__ = ["AgentFailed", "Crew"]

_SECONDS_TO_FINISH = 15
_SECONDS_BETWEEN_LOOKS = 0.1


class AgentFailed(RuntimeError):
    """An agent ended with an error of its own, or did not end; the text has the last it said."""


class Crew:
    """The agent processes of one half; a context manager that leaves none of them behind.

    Agents end by themselves when their plan does, even if this process should be killed before.
    """

    def __init__(self, size: int, folder: Path) -> None:
        self._folder = folder
        self._size = size
        self._hired = 0
        self._agents: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for _ in range(self._size):
                self._hire()
            for name in list(self._agents):
                self._wait_until_ready(name)
        except BaseException:
            self._end_all()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self._end_all()

    def run(self, plan: Plan, look: Callable[[], None], tell: Callable[[str], None]) -> None:
        """Hand out the plan and stay until the agents have ended.

        Args:
            plan: What they do.
            look: Called a few times a second.
            tell: Called with a sentence when an agent was killed.

        Raises:
            AgentFailed: An agent ended in another way than the plan has it.
        """
        for name in self._agents:
            self._hand_plan(name, plan)
        while self._agents:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            look()
            for name in [name for name, process in self._agents.items() if process.poll() is not None]:
                self._bury(name, plan, tell)
            if time.time() > plan.stop_at + _SECONDS_TO_FINISH:
                raise AgentFailed(f"{', '.join(self._agents)} did not end in time")

    def _hire(self) -> str:
        """Start one more agent; returns its name."""
        self._hired += 1
        name = f"agent-{self._hired}"
        with self._log(name).open("wb") as log:
            self._agents[name] = subprocess.Popen(
                [sys.executable, "-P", "-m", "demo_parts.agent", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C is for the launcher, which ends its agents in order.
                process_group=0,
            )
        return name

    def _wait_until_ready(self, name: str) -> None:
        stdout = self._agents[name].stdout
        assert stdout is not None
        if not stdout.readline():
            raise AgentFailed(self._last_words(name))

    def _hand_plan(self, name: str, plan: Plan) -> None:
        stdin = self._agents[name].stdin
        assert stdin is not None
        stdin.write(plan.to_line())
        stdin.flush()

    def _bury(self, name: str, plan: Plan, tell: Callable[[str], None]) -> None:
        process = self._agents.pop(name)
        _close_pipes(process)
        moments = [moment for moment, victim in victims(plan).items() if victim == name]
        if moments and process.returncode == -signal.SIGKILL:
            when = {
                "unsent": "before it sent its refresh",
                "saved": "right after it saved its refreshed tokens",
            }
            replacement = self._hire()
            tell(f"{name} was killed {when[moments[0]]}; {replacement} takes its place")
            self._hand_plan(replacement, plan)
        elif process.returncode != 0:
            raise AgentFailed(self._last_words(name))

    def _end_all(self) -> None:
        for process in self._agents.values():
            process.terminate()
        for process in self._agents.values():
            try:
                process.wait(timeout=3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            _close_pipes(process)
        self._agents.clear()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _last_words(self, name: str) -> str:
        return f"{name} failed; it said:\n{self._log(name).read_text(errors='replace')[-2000:].strip()}"


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
