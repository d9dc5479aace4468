"""An incident: a piece of a ledger to look at closely, with the ledger or without it."""

import os
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Self

from ledger.keys import LeaseKey
from ledger.lease_ledger import LeaseLedger
from ledger.reading import RecordedEvent
from projections.explain.explaining import explain
from projections.explain.verdict import Verdict
from projections.incident.bundle import LONGEST_BYTES, Bundle, IncidentTooLong, Selection, encode, is_saved_incident
from projections.incident.checking import BundleFinding, BundleRefused, check, check_against, decode
from projections.incident.counterfactual import Change, Counterfactual, replay_changed
from projections.incident.selection import select
from projections.incident.steps import Replay, Step, steps_of
from projections.incident.streams import BundleStreams
from projections.input_files import read_input
from projections.output_files import output_file
from projections.time_travel.changes import Change as FieldChange
from projections.time_travel.changes import last_change
from projections.time_travel.difference import LeaseDifference, diff
from projections.time_travel.moments import When, as_ms, chosen

__all__ = ["Incident"]


class Incident:
    """Chosen events of a ledger, with the leases before and after them. Whoever has one needs no ledger.

    Args:
        bundle: The events and what proves them.

    Attributes:
        bundle: The same.
        streams: Its events and states by lease and version.

    Raises:
        BundleRefused: The bundle does not add up.
    """

    def __init__(self, bundle: Bundle) -> None:
        findings = tuple(check(bundle))
        if findings:
            raise BundleRefused(findings)
        self.bundle = bundle
        self.streams: BundleStreams = BundleStreams(bundle)

    @classmethod
    def select(
        cls,
        ledger: LeaseLedger,
        keys: Iterable[LeaseKey | str] = (),
        *,
        since: int | datetime | None = None,
        until: int | datetime | None = None,
        correlation_id: str | None = None,
        attempt: str | None = None,
    ) -> Self:
        """Choose an incident. What is given narrows it; each lease's events come without gaps.

        Args:
            ledger: Where it happened.
            keys: Its leases; all by default.
            since: From this time on: epoch milliseconds, or a datetime with a time zone.
            until: Up to this time; it is then also the time that verdicts are given for.
            correlation_id: From the first to the last event filed under this, for each lease.
            attempt: The refresh attempt with this id: from what had published the tokens it spent to the last event
                that names it.

        Raises:
            NothingSelected: No event answers.
            CorruptHistory: Events contradict each other; ``lease-ledger verify`` shows the extent.
            LedgerStorageError: The ledger cannot be read.
        """
        selection = Selection(
            tuple(sorted({str(key) for key in keys})),
            None if since is None else as_ms(since),
            None if until is None else as_ms(until),
            correlation_id,
            attempt,
        )
        return cls(select(ledger, selection))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a saved incident and check everything in it.

        Raises:
            BundleRefused: The file is not what was saved; the event at fault is named where that can be told.
            InputRefused: There is no such file, it is no regular one or too long, or it cannot be read.
        """
        return cls.of_bytes(read_input(path, most_bytes=LONGEST_BYTES))

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        """Read the contents of a saved incident and check everything in it.

        Raises:
            BundleRefused: They are not what was saved; the event at fault is named where that can be told.
        """
        return cls(decode(data))

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the incident as one file, whole or not at all. An earlier saved incident is replaced.

        Args:
            path: Where to.
            overwrite: Whether another file may be replaced too; a ledger, an audit file or tokens never are.

        Raises:
            OutputRefused: Something else is there, or there is no such folder. Nothing was written.
            IncidentTooLong: It could not be read back. Nothing was written.
            OSError: Writing failed. What was there is there still.
        """
        data = self.encoded()
        with output_file(path, own_kind=is_saved_incident, overwrite=overwrite) as file:
            file.write(data)

    def encoded(self) -> bytes:
        """What :meth:`save` writes.

        Raises:
            IncidentTooLong: It could not be read back.
        """
        data = encode(self.bundle)
        if len(data) > LONGEST_BYTES:
            raise IncidentTooLong(len(data))
        return data

    def verify(self, ledger: LeaseLedger) -> tuple[BundleFinding, ...]:
        """Everything in which this incident differs from the ledger it is from; nothing when all is well.

        Raises:
            LedgerStorageError: The ledger cannot be read.
        """
        return tuple(check_against(self.bundle, ledger))

    @property
    def keys(self) -> tuple[LeaseKey, ...]:
        """Its leases, sorted by key."""
        return tuple(self.streams.leases)

    @property
    def events(self) -> tuple[RecordedEvent, ...]:
        """Its events, in the order of the log."""
        return self.streams.recorded

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every event with its lease before and after it."""
        return steps_of(self.streams)

    def replay(self) -> Replay:
        """A place in the incident to move forward and backward, at the start."""
        return Replay(self.streams)

    def explain(self, key: LeaseKey, version: int | None = None, at: int | datetime | None = None) -> Verdict:
        """Why a lease is as it is at the end of the incident, or at an earlier moment of it.

        Raises:
            ValueError: The moment is none.
            NoSuchMoment: The incident does not reach there.
        """
        return explain(self.streams, key, chosen(version, at), is_gone=None)

    def diff(self, key: LeaseKey, a: When, b: When) -> LeaseDifference:
        """What changed on a lease between two moments of the incident; raises as :meth:`explain`."""
        return diff(self.streams, key, a, b)

    def last_change(self, key: LeaseKey, field: str, when: When | None = None) -> FieldChange | None:
        """Who last changed a field of a lease within the incident; raises as :meth:`explain`."""
        return last_change(self.streams, key, field, when)

    def what_if(self, change: Change) -> Counterfactual:
        """Replay it as it was not, and see what is refused and what ends differently.

        Raises:
            NoSuchStep: The change names something that the incident does not hold.
        """
        return replay_changed(self.streams, change)

    def find(self, holds: Callable[[Step], bool]) -> tuple[Step, ...]:
        """Every step at which a condition holds."""
        return tuple(step for step in self.steps if holds(step))
