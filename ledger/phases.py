"""The one table that says which transition a lease allows, and where it leads.

Laws:

* ``None`` stands for "this key holds no lease". ``released`` is a phase a caller may name in a snapshot; no
  stream is ever in it, for a release removes the lease.
* A missing row is a refusal to whoever decides, and corrupt history to whoever folds.
* Where a row leads, the fold goes, whatever the event. Only ``RESTORE`` leaves that to its event, and its rows say so.
"""

from collections.abc import Mapping
from enum import Enum, StrEnum
from types import MappingProxyType
from typing import Final, Literal

from ledger.snapshot import AuthLeasePhase

__all__ = ["ALL_PHASES", "BY_EVENT", "TRANSITIONS", "NamedBy", "Target", "Transition"]


class Transition(StrEnum):
    """Every way a lease can change. A refresh failure is two, for the table sends them to different phases."""

    ACQUIRE = "acquire"
    MARK_EXPIRING = "mark_expiring"
    BEGIN_REFRESH = "begin_refresh"
    COMPLETE_REFRESH = "complete_refresh"
    REFRESH_FAILED_TRANSIENT = "refresh_failed_transient"
    REFRESH_FAILED_PERMANENT = "refresh_failed_permanent"
    MARK_REAUTH_REQUIRED = "mark_reauth_required"
    RELEASE = "release"
    RELEASE_CREDENTIAL = "release_credential_lifecycle"
    RESTORE = "restore"


_VALID = AuthLeasePhase.VALID
_EXPIRING = AuthLeasePhase.EXPIRING
_REFRESHING = AuthLeasePhase.REFRESHING
_REAUTH = AuthLeasePhase.REAUTH_REQUIRED

ALL_PHASES: Final = (None, _VALID, _EXPIRING, _REFRESHING, _REAUTH)
"""Every phase a stream can be in."""


class NamedBy(Enum):
    """The type of ``BY_EVENT``, a value no phase can be."""

    EVENT = "event"


BY_EVENT: Final = NamedBy.EVENT
"""Where a row leads that leaves the phase to its event."""

Target = AuthLeasePhase | Literal[NamedBy.EVENT] | None
_Rows = Mapping[AuthLeasePhase | None, Target]

TRANSITIONS: Final[Mapping[Transition, _Rows]] = MappingProxyType(
    {
        Transition.ACQUIRE: dict.fromkeys(ALL_PHASES, _VALID),
        Transition.MARK_EXPIRING: {_VALID: _EXPIRING},
        Transition.BEGIN_REFRESH: {_VALID: _REFRESHING, _EXPIRING: _REFRESHING},
        Transition.COMPLETE_REFRESH: {_REFRESHING: _VALID},
        Transition.REFRESH_FAILED_TRANSIENT: {_REFRESHING: _EXPIRING},
        Transition.REFRESH_FAILED_PERMANENT: {_REFRESHING: _REAUTH},
        Transition.MARK_REAUTH_REQUIRED: {_VALID: _REAUTH, _EXPIRING: _REAUTH, _REFRESHING: _REAUTH},
        Transition.RELEASE: dict.fromkeys(ALL_PHASES, None),
        Transition.RELEASE_CREDENTIAL: dict.fromkeys(ALL_PHASES, None),
        Transition.RESTORE: dict.fromkeys(ALL_PHASES, BY_EVENT),
    }
)
