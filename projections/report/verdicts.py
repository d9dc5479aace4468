"""The verdict on each lease, on top of a report: what is the matter, as a code and in words, and what proves it."""

from collections.abc import Callable

import msgspec

from ledger.keys import LeaseKey
from ledger.snapshot import AuthLeasePhase
from projections.explain import explain
from projections.time_travel.moments import At
from projections.time_travel.streams import Streams

__all__ = ["LeaseVerdict", "Verdicts", "explained"]


class LeaseVerdict(msgspec.Struct, frozen=True):
    """A verdict as a report shows it.

    Attributes:
        code: Stable, for programs.
        text: The same in words.
        phase: Of the lease then; ``None`` when it holds none.
        versions: Stream versions of the events that prove it.
    """

    code: str
    text: str
    phase: AuthLeasePhase | None = None
    versions: tuple[int, ...] = ()


Verdicts = Callable[[LeaseKey, int | None], LeaseVerdict]
"""Says what is the matter with a lease, as of a time in epoch milliseconds; ``None`` for now."""


def explained(streams: Streams) -> Verdicts:
    """The verdicts of :func:`projections.explain.explain`, its notes added to the words."""

    def verdict_on(key: LeaseKey, at_ms: int | None) -> LeaseVerdict:
        verdict = explain(streams, key, None if at_ms is None else At(at_ms))
        text = "; ".join((verdict.text, *verdict.notes))
        return LeaseVerdict(verdict.code, text, verdict.state.phase, tuple(event.version for event in verdict.proof))

    return verdict_on
