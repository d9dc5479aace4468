"""The stable code of every error, and the exit code that goes with it: one table, by the error's class.

A class without a row of its own has that of the nearest class it is made from. Programs rely on the codes; they are
added to and never changed.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

import click

from ledger.errors import (
    CorruptHistory,
    LeaseLedgerError,
    LeaseTransitionError,
    LedgerStorageError,
    NotALedger,
    UnknownEventTag,
    UnsafeFileSystem,
)
from ledger.guard import GuardReentered, GuardTimeout
from ledger.keys import IdentityError
from ledger.lifecycle import (
    LifecycleReleaseFailed,
    TokenClearAndRestoreFailed,
    TokenClearFailed,
    TokenLifecycleClearError,
    TokenLoadAndClearFailed,
)
from ledger.portable_errors import ForeignError
from ledger.refresh_errors import (
    LedgerBehindStore,
    ReauthRequired,
    RefreshError,
    RefreshTimedOut,
    TokensElsewhere,
    TokensNotSaved,
)
from ledger.status import AuthStatusRehydrateError
from ledger.store_errors import (
    KeyringUnavailable,
    TokenIOError,
    TokenPermissionDenied,
    TokensChanged,
    TokenSerializationError,
    TokensNotFound,
    TokenStoreError,
    TokenStoreUnavailable,
)
from ledger.stores.keyring import KeyringCannotKeep
from projections.audit_errors import AuditFileDamaged, AuditFileError, AuditFileHeld
from projections.cli.exit_codes import Exit
from projections.importing import AlreadyThere
from projections.incident import BundleRefused, NoSuchCondition, NoSuchStep, NothingSelected
from projections.incident.bundle import IncidentTooLong
from projections.input_files import InputRefused, NoSuchInput
from projections.known_keys import UnknownKey
from projections.output_files import NoSuchFolder, OutputRefused
from projections.report import TooManyEvents
from projections.sql_limits import QuestionRefused, QuestionTooLong
from projections.time_travel import NoSuchMoment
from projections.times import NotATime

__all__ = ["ERRORS", "Kind", "NoLedgerThere", "kind_of"]


class NoLedgerThere(LedgerStorageError):
    """No ledger lies where the command was pointed to, and this command makes none."""


class Kind(NamedTuple):
    """What an error is to programs: its stable code, and the exit code of the command that it ends."""

    code: str
    exit: Exit


ERRORS: Final[Mapping[type[BaseException], Kind]] = MappingProxyType(
    {
        # What the caller said.
        click.ClickException: Kind("usage", Exit.USAGE),
        IdentityError: Kind("invalid_key", Exit.USAGE),
        NoSuchInput: Kind("no_such_file", Exit.USAGE),
        NoSuchFolder: Kind("no_such_folder", Exit.USAGE),
        InputRefused: Kind("input_refused", Exit.USAGE),
        OutputRefused: Kind("output_refused", Exit.USAGE),
        QuestionRefused: Kind("question_refused", Exit.USAGE),
        NoSuchCondition: Kind("no_such_condition", Exit.USAGE),
        NotATime: Kind("not_a_time", Exit.USAGE),
        # What was refused, and changed nothing.
        LeaseLedgerError: Kind("refused", Exit.REFUSED),
        LeaseTransitionError: Kind("transition_refused", Exit.REFUSED),
        UnknownKey: Kind("unknown_key", Exit.REFUSED),
        NoSuchMoment: Kind("no_such_moment", Exit.REFUSED),
        NoSuchStep: Kind("no_such_step", Exit.REFUSED),
        NothingSelected: Kind("nothing_selected", Exit.REFUSED),
        IncidentTooLong: Kind("incident_too_long", Exit.REFUSED),
        TooManyEvents: Kind("too_many_events", Exit.REFUSED),
        AlreadyThere: Kind("already_there", Exit.REFUSED),
        BundleRefused: Kind("bundle_refused", Exit.REFUSED),
        QuestionTooLong: Kind("question_too_long", Exit.REFUSED),
        GuardTimeout: Kind("guard_timeout", Exit.REFUSED),
        GuardReentered: Kind("guard_reentered", Exit.REFUSED),
        ReauthRequired: Kind("reauth_required", Exit.REFUSED),
        RefreshError: Kind("refresh_failed", Exit.REFUSED),
        RefreshTimedOut: Kind("refresh_timed_out", Exit.REFUSED),
        TokensElsewhere: Kind("tokens_elsewhere", Exit.REFUSED),
        LedgerBehindStore: Kind("ledger_behind_store", Exit.REFUSED),
        TokensChanged: Kind("tokens_changed", Exit.REFUSED),
        # The ledger and its history.
        NoLedgerThere: Kind("no_ledger", Exit.STORAGE),
        NotALedger: Kind("not_a_ledger", Exit.STORAGE),
        LedgerStorageError: Kind("ledger_storage", Exit.STORAGE),
        UnsafeFileSystem: Kind("unsafe_file_system", Exit.STORAGE),
        AuditFileError: Kind("audit_file", Exit.STORAGE),
        AuditFileDamaged: Kind("audit_file_damaged", Exit.STORAGE),
        AuditFileHeld: Kind("audit_file_held", Exit.STORAGE),
        CorruptHistory: Kind("corrupt_history", Exit.STORAGE),
        UnknownEventTag: Kind("unknown_event_tag", Exit.STORAGE),
        # The token store.
        TokenStoreError: Kind("token_store", Exit.STORAGE),
        TokenStoreUnavailable: Kind("token_store_unavailable", Exit.STORAGE),
        TokenPermissionDenied: Kind("token_permission_denied", Exit.STORAGE),
        TokenIOError: Kind("token_io", Exit.STORAGE),
        TokenSerializationError: Kind("tokens_unreadable", Exit.STORAGE),
        TokensNotFound: Kind("tokens_not_found", Exit.STORAGE),
        TokensNotSaved: Kind("tokens_not_saved", Exit.STORAGE),
        KeyringUnavailable: Kind("keyring_unavailable", Exit.STORAGE),
        KeyringCannotKeep: Kind("keyring_cannot_keep", Exit.STORAGE),
        TokenLifecycleClearError: Kind("logout_failed", Exit.STORAGE),
        LifecycleReleaseFailed: Kind("release_failed", Exit.STORAGE),
        TokenLoadAndClearFailed: Kind("token_load_and_clear_failed", Exit.STORAGE),
        TokenClearFailed: Kind("token_clear_failed", Exit.STORAGE),
        TokenClearAndRestoreFailed: Kind("token_clear_and_restore_failed", Exit.STORAGE),
        AuthStatusRehydrateError: Kind("status_unreadable", Exit.STORAGE),
        ForeignError: Kind("foreign", Exit.STORAGE),
        # The machine, whoever is in front of it, and what nobody foresaw.
        OSError: Kind("io", Exit.STORAGE),
        MemoryError: Kind("out_of_memory", Exit.STORAGE),
        KeyboardInterrupt: Kind("interrupted", Exit.INTERRUPTED),
        BaseException: Kind("internal", Exit.STORAGE),
    }
)
"""Every code: the table that the documentation shows."""


def kind_of(error: BaseException) -> Kind:
    """The row of an error: that of its class, or of the nearest class it is made from."""
    return next(ERRORS[made_from] for made_from in type(error).__mro__ if made_from in ERRORS)
