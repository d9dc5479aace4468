"""What all agents of one half are told."""

from pathlib import Path
from typing import Literal

import msgspec
from oauth_server.running import ServerInfo

__all__ = ["WINDOW_SECONDS", "Half", "Moment", "Plan"]

Half = Literal["naive", "ledger"]
Moment = Literal["unsent", "saved"]

WINDOW_SECONDS = 0.8
"""A refresh begins when less remains. Tokens live two seconds and their expiry is a whole second, so a longer
window would refresh tokens that have just been given out."""


class Plan(msgspec.Struct, frozen=True):
    """One half of the demonstration.

    Attributes:
        half: How the agents come by their tokens.
        server: The authorization server.
        folder: Where this half keeps its files.
        begin_at: When the agents begin, epoch seconds.
        stop_at: When they end, epoch seconds.
        kills: From when on the next agent in that moment dies, epoch seconds.
    """

    half: Half
    server: ServerInfo
    folder: str
    begin_at: float
    stop_at: float
    kills: dict[Moment, float]

    @classmethod
    def starting_at(cls, begin_at: float, *, half: Half, server: ServerInfo, folder: Path, seconds: float) -> "Plan":
        """A plan of that length, with a kill at a quarter and one at a half of it."""
        return cls(
            half=half,
            server=server,
            folder=str(folder),
            begin_at=begin_at,
            stop_at=begin_at + seconds,
            kills={"unsent": begin_at + seconds / 4, "saved": begin_at + seconds / 2},
        )

    def to_line(self) -> bytes:
        """One line of JSON, as an agent reads it."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> "Plan":
        """Read what ``to_line`` wrote."""
        return msgspec.json.decode(line, type=cls)
