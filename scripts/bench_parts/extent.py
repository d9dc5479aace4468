"""How much is measured: in full, or so little that it only shows that measuring works."""

import msgspec

__all__ = ["FULL", "QUICK", "Extent"]


class Extent(msgspec.Struct, frozen=True):
    """How much is measured.

    Attributes:
        rounds: Rounds of each comparison; the tables show medians over them.
        streams: Streams of ten events that a round records, by setting of ``synchronous``.
        replayed: Streams of ten events that are replayed.
        lengths: Lengths of the leases whose snapshots are taken.
        repeats: Repeated snapshots a round.
        asked: Events of the ledger that is asked, small and, with ``--large``, large.
        leases: Leases in it.
        asked_rounds: Rounds of asking and filling.
        used: Uses of a valid credential a round.
        waited: Refreshes that another process waits for.
        processes: Processes on one ledger.
        contended_s: Seconds that they write, first as fast as they can, then at half of that.
        writers_s: Seconds that PostgreSQL's recorders are compared for, a round.
    """

    rounds: int
    streams: dict[str, int]
    replayed: int
    lengths: list[int]
    repeats: int
    asked: tuple[int, int]
    leases: int
    asked_rounds: int
    used: int
    waited: int
    processes: int
    contended_s: float
    writers_s: float


FULL = Extent(
    rounds=9,
    streams={"full": 150, "normal": 400},
    replayed=10_000,
    lengths=[10, 1_000, 100_000],
    repeats=20_000,
    asked=(100_000, 1_000_000),
    leases=10_000,
    asked_rounds=3,
    used=2_000,
    waited=40,
    processes=16,
    contended_s=6,
    writers_s=2,
)

QUICK = Extent(
    rounds=2,
    streams={"full": 2, "normal": 2},
    replayed=5,
    lengths=[10, 40, 70],
    repeats=10,
    asked=(300, 900),
    leases=10,
    asked_rounds=1,
    used=10,
    waited=2,
    processes=2,
    contended_s=0.2,
    writers_s=0.2,
)
