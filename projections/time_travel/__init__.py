"""Time travel: any lease, or the whole ledger, as it was at any version or time; and what changed in between.

"At" a time T means: after every event whose stream's running maximum of time is at most T. So a clock that goes back
never makes an earlier event vanish from a later moment, for one lease and for the whole ledger alike. Where clocks
went back, answers say so.
"""

from projections.time_travel.as_of import LeaseAsOf, LeaseThen, as_of, leases_at
from projections.time_travel.changes import Change, last_change
from projections.time_travel.difference import FieldChange, LeaseDifference, diff
from projections.time_travel.moments import At, NoSuchMoment, When
from projections.time_travel.streams import LedgerStreams, Streams
from projections.time_travel.timeline import Timeline, TimelineEntry, TimelineFilter, timeline
from projections.time_travel.times import AuditTimes, Times

__all__ = [
    "At",
    "AuditTimes",
    "Change",
    "FieldChange",
    "LeaseAsOf",
    "LeaseDifference",
    "LeaseThen",
    "LedgerStreams",
    "NoSuchMoment",
    "Streams",
    "Timeline",
    "TimelineEntry",
    "TimelineFilter",
    "Times",
    "When",
    "as_of",
    "diff",
    "last_change",
    "leases_at",
    "timeline",
]
