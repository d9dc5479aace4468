"""Where files belong that go with a ledger which lies in no folder: with the user, on this machine."""

import os
import sys
from pathlib import Path

__all__ = ["user_state_folder"]


def user_state_folder() -> Path:
    """``$XDG_STATE_HOME/lease-ledger``, by default below ``~/.local/state``; on Windows below ``%LOCALAPPDATA%``."""
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME")
    return (Path(named) if named else Path.home() / ".local" / "state") / "lease-ledger"
