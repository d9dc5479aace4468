"""Two agents die by SIGKILL, at moments a crash would choose."""

import os
import signal
import time
from pathlib import Path

from demo_parts.plan import Moment, Plan

__all__ = ["Kills", "victims"]


class Kills:
    """The agent's side: asks at each dangerous moment whether it is the one to die there."""

    def __init__(self, plan: Plan, agent: str) -> None:
        self._plan = plan
        self._agent = agent

    def strike(self, moment: Moment) -> None:
        """End this process for good if a kill is due at this moment and no other agent has died of it."""
        if time.time() >= self._plan.kills[moment] and self._claim(moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def _claim(self, moment: Moment) -> bool:
        try:
            with _claim_path(self._plan, moment).open("x") as file:
                file.write(self._agent)
        except FileExistsError:
            return False
        return True


def victims(plan: Plan) -> dict[Moment, str]:
    """Who has died so far, and when in its work."""
    paths: dict[Moment, Path] = {moment: _claim_path(plan, moment) for moment in plan.kills}
    return {moment: path.read_text() for moment, path in paths.items() if path.exists()}


def _claim_path(plan: Plan, moment: Moment) -> Path:
    return Path(plan.folder, f"killed-{moment}")
