"""Every error a caller can meet has one root, drawn as it is, and crosses a process boundary whole."""

import copy
import inspect
import pickle
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import ledger
import ledger.aio
import projections
from ledger import (
    CorruptHistory,
    Credentials,
    FileTokenStore,
    ForeignError,
    GuardReentered,
    GuardTimeout,
    IdentityError,
    KeyringCannotKeep,
    LeaseKey,
    LeaseLedger,
    LeaseLedgerError,
    LeaseTransitionError,
    LedgerBehindStore,
    LifecycleReleaseFailed,
    PersistedAuthMode,
    PersistedTokens,
    ReauthRequired,
    RefreshError,
    RefreshTimedOut,
    TokenClearAndRestoreFailed,
    TokenClearFailed,
    TokenIOError,
    TokenLoadAndClearFailed,
    TokensChanged,
    TokensElsewhere,
    TokensNotFound,
    TokensNotSaved,
    TokenStoreError,
    UnknownEventTag,
    errors,
)
from projections import BundleRefused
from projections.incident.checking import BundleFinding
from projections.input_files import InputRefused
from projections.output_files import OutputRefused
from projections.sql_limits import QuestionTooLong

KEY = LeaseKey("dev", "openai", "work")
SECRET = "s3cret"
TOKENS = PersistedTokens(
    PersistedAuthMode.EXTERNAL_TOKENS, primary_secret=SECRET, refresh_token=f"{SECRET} too", expires_at=7
)


def _exported() -> set[type[BaseException]]:
    listed = [getattr(module, name) for module in (ledger, ledger.aio, projections) for name in module.__all__]
    return {each for each in listed if inspect.isclass(each) and issubclass(each, BaseException)}


EXPORTED = sorted(_exported(), key=lambda kind: kind.__name__)


def _drawn() -> dict[str, tuple[str, str]]:
    """Each drawn class with its base and what else it is."""
    path: list[str] = []
    drawn = {}
    for indent, name, besides in re.findall(r"^((?: {4})+)(\w+)(?: \((\w+)\))?(?: {2,}|$)", errors.__doc__ or "", re.M):
        path[len(indent) // 4 - 1 :] = [name]
        drawn[name] = (path[-2] if len(path) > 1 else "Exception", besides)
    return drawn


def test_the_drawn_tree_is_the_tree() -> None:
    real = {
        kind.__name__: (kind.__bases__[0].__name__, "".join(base.__name__ for base in kind.__bases__[1:]))
        for kind in EXPORTED
        if kind.__module__.startswith("ledger.") and kind is not ForeignError
    }
    assert _drawn() == real


def test_every_exported_error_has_the_one_root() -> None:
    assert {kind for kind in EXPORTED if not issubclass(kind, LeaseLedgerError)} == {ForeignError}


class TwoFacts(Exception):
    """Can be pickled, and fails when it is unpickled: what hangs a process pool."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first}, {second}")


class SaysItTwice(Exception):
    """Arrives with another text than it left with."""

    def __init__(self, what: str) -> None:
        super().__init__(f"because {what}")


def _identity_error() -> Exception:
    with pytest.raises(IdentityError) as caught:
        LeaseKey.parse("a@b:c")
    return caught.value


MADE: dict[type[BaseException], Callable[[], BaseException]] = {
    BundleRefused: lambda: BundleRefused((BundleFinding("it differs", 1, str(KEY), 1),)),
    CorruptHistory: lambda: CorruptHistory(str(KEY), 3, "it does not follow"),
    ForeignError: lambda: ForeignError("httpx.ReadTimeout", "timed out"),
    GuardReentered: lambda: GuardReentered(KEY),
    GuardTimeout: lambda: GuardTimeout(KEY, 60.0, "ada@host pid 7"),
    IdentityError: _identity_error,
    InputRefused: lambda: InputRefused("i.json", "it is a pipe"),
    LeaseTransitionError: lambda: LeaseTransitionError("release(dev:openai)", "guard_rejected", "it is over"),
    LedgerBehindStore: lambda: LedgerBehindStore(KEY, 1, None),
    LifecycleReleaseFailed: lambda: LifecycleReleaseFailed(TwoFacts("no", "disk")),
    OutputRefused: lambda: OutputRefused("o.json", "it is there already"),
    QuestionTooLong: lambda: QuestionTooLong(2.5),
    ReauthRequired: lambda: ReauthRequired(KEY, "refused for good", "invalid_grant"),
    RefreshError: lambda: RefreshError(True, "invalid_grant", 400, 2.5),
    RefreshTimedOut: lambda: RefreshTimedOut(KEY, 3.25),
    TokenClearAndRestoreFailed: lambda: TokenClearAndRestoreFailed(TokenIOError("full"), TwoFacts("no", "disk")),
    TokenClearFailed: lambda: TokenClearFailed(SaysItTwice("of the disk")),
    TokenLoadAndClearFailed: lambda: TokenLoadAndClearFailed(TokenIOError("full"), TokensNotFound(KEY)),
    TokensChanged: lambda: TokensChanged(KEY, None, "e2"),
    TokensElsewhere: lambda: TokensElsewhere(KEY, 4),
    TokensNotFound: lambda: TokensNotFound(KEY),
    TokensNotSaved: lambda: TokensNotSaved(KEY, TOKENS, _identity_error(), TwoFacts("no", "disk")),
    UnknownEventTag: lambda: UnknownEventTag("lease.lent"),
}
"""The classes whose constructors take more than a text."""

CAUSES: tuple[Callable[[], BaseException | None], ...] = (
    lambda: None,
    lambda: OSError(28, "No space left on device", "tokens"),
    lambda: TwoFacts("no", "disk"),
    lambda: SaysItTwice("of the disk"),
    lambda: TokensNotFound(KEY),
)


def _pickled(protocol: int, error: Any) -> Any:
    return pickle.loads(pickle.dumps(error, protocol))


JOURNEYS: dict[str, Callable[[Any], Any]] = {
    "copied": copy.copy,
    "deep-copied": copy.deepcopy,
    **{f"pickled by protocol {number}": partial(_pickled, number) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
}


def _told(value: Any) -> Any:
    """What there is to compare: two exceptions are never equal."""
    return str(value) if isinstance(value, BaseException) else value


def _facts(error: BaseException) -> dict[str, Any]:
    return {name: _told(value) for name, value in vars(error).items()}


@pytest.mark.parametrize("journey", JOURNEYS)
@pytest.mark.parametrize("kind", EXPORTED)
def test_every_error_arrives_as_it_left(kind: type[BaseException], journey: str) -> None:
    make = MADE.get(kind, lambda: kind("it did not work"))
    for cause in CAUSES:
        error = make()
        error.__cause__ = cause()
        again = JOURNEYS[journey](error)
        assert type(again) is kind
        assert (str(again), repr(again), again.args) == (str(error), repr(error), error.args)
        assert _facts(again) == _facts(error)
        if kind is not ForeignError:
            assert _told(again.__cause__) == _told(error.__cause__)
        assert SECRET not in str(again) + repr(again) + repr(vars(again))


def test_a_cause_that_can_travel_arrives_as_what_it_was_and_another_names_its_class() -> None:
    ours, foreign = TokenClearFailed(TokenIOError("full")), TokenClearFailed(TwoFacts("no", "disk"))
    assert type(pickle.loads(pickle.dumps(ours)).clear_error) is TokenIOError
    stand_in = pickle.loads(pickle.dumps(foreign)).clear_error
    assert isinstance(stand_in, ForeignError)
    assert stand_in.kind == f"{TwoFacts.__module__}.TwoFacts"


def test_notes_arrive_too() -> None:
    error = ReauthRequired(KEY, "refused for good")
    error.add_note("asked twice")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["asked twice"]


def test_a_timeout_is_no_error_of_the_operating_system() -> None:
    error = GuardTimeout(KEY, 60.0, "ada@host pid 7")
    assert (error.errno, error.filename, error.args) == (None, None, (KEY, 60.0, "ada@host pid 7"))


def _fails_to_save(folder: str) -> None:
    class FullDisk(FileTokenStore):
        def save(self, key: LeaseKey, tokens: PersistedTokens, **_: Any) -> None:
            raise TwoFacts("no", "disk")

    with LeaseLedger.open("memory://") as opened:
        Credentials(opened, FullDisk(folder)).login(KEY, TOKENS)


def test_tokens_that_could_not_be_saved_come_out_of_a_process_pool(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(TokensNotSaved) as caught:
        pool.submit(_fails_to_save, str(tmp_path)).result(60)
    assert caught.value.tokens == TOKENS
    assert str(caught.value) == f"the new tokens of {KEY} could not be stored: no, disk"
    assert SECRET not in str(caught.value) + repr(caught.value)


def test_the_text_of_a_refusal_starts_with_what_happened() -> None:
    with LeaseLedger.open("memory://") as opened, pytest.raises(LeaseTransitionError) as caught:
        opened.mark_expiring(KEY)
    assert str(caught.value) == f"mark_expiring({KEY}) was refused: {KEY} holds no lease; log in first"
    assert caught.value.kind == "no_matching_transition"


def test_one_clause_catches_what_stores_and_keys_and_logouts_raise() -> None:
    for kind in (TokenStoreError, IdentityError, KeyringCannotKeep, TokenClearFailed):
        assert issubclass(kind, LeaseLedgerError)
    assert issubclass(IdentityError, ValueError)
