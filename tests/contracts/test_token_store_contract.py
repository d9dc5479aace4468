"""One contract, kept by every token store: whatever passes here is what a caller may rely on."""

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from keyrings.alt.file import PlaintextKeyring
from pgserver import fresh_schema

from ledger.keys import LeaseKey
from ledger.marker import mark_tokens_lifecycle_published_for_transition, marker_event
from ledger.snapshot import AuthLeaseTransition
from ledger.store_errors import TokensChanged, TokenSerializationError, TokenStoreError
from ledger.stores import (
    ANY,
    AutoTokenStore,
    FileTokenStore,
    KeyringTokenStore,
    MemoryTokenStore,
    TokenStore,
)
from ledger.stores.postgres import PostgresTokenStore
from ledger.tokens import PersistedTokens

CANARY = "canary-5f1d3a-secret"
KEY = LeaseKey("dev", "openai", "work")
TOKEN_KEY = "bGVhc2UtbGVkZ2VyIHRlc3RzJyB0b2tlbiBrZXkgIzE="


def plaintext_keyring(folder: Path) -> PlaintextKeyring:
    """A keyring of the real library that keeps its secrets in a file of this test."""
    backend = PlaintextKeyring()
    backend.file_path = str(folder / "keyring.cfg")  # pyright: ignore[reportAttributeAccessIssue]
    return backend


OPENERS: dict[str, Callable[[Path], TokenStore]] = {
    "memory": lambda folder: MemoryTokenStore(),
    "file": lambda folder: FileTokenStore(folder / "tokens"),
    "keyring": lambda folder: KeyringTokenStore(
        "lease-ledger-test", plaintext_keyring(folder), lock_root=folder / "locks"
    ),
    "auto in keyring": lambda folder: AutoTokenStore(folder / "tokens", backend=plaintext_keyring(folder)),
    "auto in file": lambda folder: AutoTokenStore(folder / "tokens"),
    "postgres": lambda folder: PostgresTokenStore(fresh_schema(folder), key=TOKEN_KEY),
}
DURABLE = [name for name in OPENERS if name != "memory"]


@pytest.fixture(autouse=True)
def no_keyring_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests of a person with an unlocked keychain must not write into it."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setattr("keyring.core._keyring_backend", None)


@pytest.fixture(params=OPENERS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> TokenStore:
    return OPENERS[request.param](tmp_path)


def marked(event: str, secret: str = CANARY) -> PersistedTokens:
    tokens = PersistedTokens(
        "claude_ai_oauth",
        primary_secret=secret,
        refresh_token=f"refresh-{secret}",
        expires_at=1_900_000_000,
        scopes=["read", "write"],
        metadata={"provider": {"plan": "max"}},
    )
    published = mark_tokens_lifecycle_published_for_transition(tokens, AuthLeaseTransition(1, 2, event))
    assert marker_event(published) == event
    return published


UNMARKED = PersistedTokens.api_key(f"api-{CANARY}")


def test_a_key_that_was_never_saved_holds_nothing(store: TokenStore) -> None:
    assert store.load(KEY) is None
    assert store.list() == []


def test_tokens_come_back_whole(store: TokenStore) -> None:
    tokens = PersistedTokens(
        "chatgpt_oauth",
        primary_secret='päß\n"wörd"\\ \N{SNOWMAN} %(x)s',
        refresh_token="r",
        id_token="i.d.t",
        account_id="acct",
        expires_at=-(2**63),
        last_refresh=2**63 - 1,
        scopes=["a", "b"],
        metadata={"big": 2**64 + 1, "float": 1.0, "none": None, "list": [{}, []]},
    )
    store.save(KEY, tokens)
    back = store.load(KEY)
    assert back == tokens
    assert back is not None and type(back.metadata["float"]) is float


def test_a_save_replaces_what_was_stored(store: TokenStore) -> None:
    store.save(KEY, marked("e1", "x" * 5000))
    store.save(KEY, UNMARKED)
    assert store.load(KEY) == UNMARKED
    assert store.list() == [KEY]


def test_a_profile_is_a_key_of_its_own(store: TokenStore) -> None:
    without = LeaseKey("dev", "openai")
    store.save(KEY, marked("e1"))
    assert store.load(without) is None
    store.save(without, UNMARKED)
    store.clear(KEY)
    assert store.load(KEY) is None
    assert store.load(without) == UNMARKED


def test_clearing_destroys_and_clearing_nothing_succeeds(store: TokenStore) -> None:
    store.clear(KEY)
    store.save(KEY, UNMARKED)
    store.clear(KEY)
    store.clear(KEY)
    assert store.load(KEY) is None
    assert store.list() == []


def test_a_cleared_key_can_be_saved_again(store: TokenStore) -> None:
    store.save(KEY, UNMARKED)
    store.clear(KEY)
    store.save(KEY, marked("e2"), expect=None)
    assert store.load(KEY) == marked("e2")


def test_the_list_is_sorted_with_a_key_before_its_profiles(store: TokenStore) -> None:
    names = ["dev:b", "dev:a:z", "dev:a", "Prod:a", "a.b:c", "dev:a:b", "a:c"]
    for name in names:
        store.save(LeaseKey.parse(name), UNMARKED)
    assert [str(key) for key in store.list()] == [
        "Prod:a",
        "a:c",
        "a.b:c",
        "dev:a",
        "dev:a:b",
        "dev:a:z",
        "dev:b",
    ]
    store.clear(LeaseKey.parse("dev:a"))
    assert LeaseKey.parse("dev:a") not in store.list()


def test_awkward_names_stay_apart(store: TokenStore) -> None:
    names = [
        "..:..:..",
        "..:..",
        ".:.",
        "con:nul",
        "con.eu:aux",
        "a:b.",
        "a:b..",
        "a:b",
        "a-b:c",
        "b:c",
        "a:b.json",
        ".hidden:a",
        "-rf:--",
        f"{'x' * 300}:y",
        f"{'x' * 300}:y:z",
        f"{'n' * 10_000}:y",
    ]
    for index, name in enumerate(names):
        store.save(LeaseKey.parse(name), PersistedTokens.api_key(f"secret {index}"), expect=None)
    for index, name in enumerate(names):
        assert store.load(LeaseKey.parse(name)) == PersistedTokens.api_key(f"secret {index}"), name
    assert {str(key) for key in store.list()} == set(names)
    for name in names:
        store.clear(LeaseKey.parse(name))
    assert store.list() == []


@pytest.mark.parametrize("name", [name for name in OPENERS if name != "keyring"])
def test_names_that_differ_only_in_case_stay_apart(name: str, tmp_path: Path) -> None:
    store = OPENERS[name](tmp_path)
    names = ["dev:a", "Dev:a", "dev:A", "DEV:A", f"{'x' * 300}:y", f"{'x' * 299}X:y"]
    for index, text in enumerate(names):
        store.save(LeaseKey.parse(text), PersistedTokens.api_key(f"secret {index}"), expect=None)
    for index, text in enumerate(names):
        assert store.load(LeaseKey.parse(text)) == PersistedTokens.api_key(f"secret {index}"), text
    assert {str(key) for key in store.list()} == set(names)
    store.clear(LeaseKey.parse("dev:a"))
    assert {str(key) for key in store.list()} == set(names) - {"dev:a"}


def test_expecting_nothing_saves_only_where_nothing_is(store: TokenStore) -> None:
    store.save(KEY, marked("e1"), expect=None)
    with pytest.raises(TokensChanged) as refused:
        store.save(KEY, marked("e2"), expect=None)
    assert (refused.value.key, refused.value.expected, refused.value.found) == (KEY, None, "e1")
    assert store.load(KEY) == marked("e1")


def test_expecting_an_event_saves_only_over_the_tokens_it_published(store: TokenStore) -> None:
    store.save(KEY, marked("e1"))
    store.save(KEY, marked("e2"), expect="e1")
    with pytest.raises(TokensChanged) as refused:
        store.save(KEY, marked("e3"), expect="e1")
    assert (refused.value.expected, refused.value.found) == ("e1", "e2")
    assert store.load(KEY) == marked("e2")


def test_expecting_an_event_where_nothing_is_stored_is_refused(store: TokenStore) -> None:
    attempts: tuple[Callable[[], object], ...] = (
        lambda: store.save(KEY, marked("e2"), expect="e1"),
        lambda: store.clear(KEY, expect="e1"),
    )
    for attempt in attempts:
        with pytest.raises(TokensChanged) as refused:
            attempt()
        assert (refused.value.expected, refused.value.found) == ("e1", None)
    assert store.load(KEY) is None


def test_a_clear_that_expects_other_tokens_destroys_nothing(store: TokenStore) -> None:
    store.save(KEY, marked("winner"))
    for expect in ("loser", None, UNMARKED):
        with pytest.raises(TokensChanged):
            store.clear(KEY, expect=expect)
    assert store.load(KEY) == marked("winner")
    store.clear(KEY, expect="winner")
    assert store.load(KEY) is None


def test_a_clear_that_expects_nothing_succeeds_where_nothing_is(store: TokenStore) -> None:
    store.clear(KEY, expect=None)
    assert store.load(KEY) is None


def test_unmarked_tokens_are_neither_nothing_nor_any_event(store: TokenStore) -> None:
    store.save(KEY, UNMARKED)
    for expect in (None, "e1"):
        with pytest.raises(TokensChanged) as refused:
            store.save(KEY, marked("e2"), expect=expect)
        assert refused.value.found is None
    assert store.load(KEY) == UNMARKED


def test_unmarked_tokens_are_replaced_by_who_names_those_very_tokens(store: TokenStore) -> None:
    store.save(KEY, UNMARKED)
    with pytest.raises(TokensChanged):
        store.save(KEY, marked("e2"), expect=PersistedTokens.api_key("another"))
    assert store.load(KEY) == UNMARKED
    store.save(KEY, marked("e2"), expect=UNMARKED)
    assert store.load(KEY) == marked("e2")


def test_marked_tokens_as_expectation_stand_for_their_event(store: TokenStore) -> None:
    store.save(KEY, marked("e1", "as stored"))
    with pytest.raises(TokensChanged) as refused:
        store.save(KEY, marked("e3"), expect=marked("e2", "as stored"))
    assert (refused.value.expected, refused.value.found) == ("e2", "e1")
    store.save(KEY, marked("e3"), expect=marked("e1", "as the caller has them"))
    assert store.load(KEY) == marked("e3")


def test_expecting_anything_is_the_default_and_shows_its_name(store: TokenStore) -> None:
    store.save(KEY, marked("e1"), expect=ANY)
    store.save(KEY, marked("e2"))
    assert store.load(KEY) == marked("e2")
    assert repr(ANY) == "ANY"


def test_tokens_that_json_cannot_carry_are_refused_and_the_old_ones_stay(store: TokenStore) -> None:
    store.save(KEY, UNMARKED)
    with pytest.raises(TokenSerializationError):
        store.save(KEY, PersistedTokens("api_key", primary_secret=CANARY, metadata={"nan": float("nan")}))
    assert store.load(KEY) == UNMARKED


def test_no_error_and_no_description_holds_a_secret(store: TokenStore) -> None:
    store.save(KEY, marked("e1"))
    attempts: list[Callable[[], object]] = [
        lambda: store.save(KEY, marked("e2"), expect="e0"),
        lambda: store.save(KEY, marked("e2"), expect=UNMARKED),
        lambda: store.clear(KEY, expect=None),
        lambda: store.save(KEY, PersistedTokens("api_key", CANARY, metadata=object())),
    ]
    for attempt in attempts:
        with pytest.raises(TokenStoreError) as failure:
            attempt()
        assert CANARY not in "".join(traceback.format_exception(failure.value)) + repr(failure.value)
    assert CANARY not in repr(store) + store.backend_name


def test_of_many_threads_that_expect_the_same_exactly_one_wins(store: TokenStore) -> None:
    contenders, rounds = 6, 10
    start = threading.Barrier(contenders, timeout=60)
    won: list[str] = []

    def race(me: int) -> None:
        for number in range(rounds):
            start.wait()
            expect = won[-1] if won else None
            start.wait()
            try:
                store.save(KEY, marked(f"{number}.{me}"), expect=expect)
            except TokensChanged:
                continue
            won.append(f"{number}.{me}")

    threads = [threading.Thread(target=race, args=(me,)) for me in range(contenders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [event.split(".")[0] for event in won] == [str(number) for number in range(rounds)]
    assert store.load(KEY) == marked(won[-1])


class SlowMemoryTokenStore(MemoryTokenStore):
    """Gives other threads all the time they need between the comparison and the write."""

    def load(self, key: LeaseKey) -> PersistedTokens | None:
        tokens = super().load(key)
        time.sleep(0.02)
        return tokens


def test_no_thread_writes_between_the_comparison_and_the_write_of_another() -> None:
    test_of_many_threads_that_expect_the_same_exactly_one_wins(SlowMemoryTokenStore())


@pytest.mark.parametrize("name", DURABLE)
def test_another_store_object_sees_the_same_tokens(name: str, tmp_path: Path) -> None:
    OPENERS[name](tmp_path).save(KEY, marked("e1"))
    other = OPENERS[name](tmp_path)
    assert other.load(KEY) == marked("e1")
    assert other.list() == [KEY]
    other.clear(KEY)
    assert OPENERS[name](tmp_path).load(KEY) is None


_RACER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("contract", sys.argv[1])
contract = importlib.util.module_from_spec(spec)
spec.loader.exec_module(contract)
store = contract.OPENERS[sys.argv[2]](Path(sys.argv[3]))
me = sys.argv[4]
print("ready", flush=True)
for round_ in sys.stdin:
    round_ = round_.strip()
    try:
        expect = None if round_ == "none" else round_
        store.save(contract.KEY, contract.marked(f"{round_}.{me}"), expect=expect)
    except contract.TokensChanged:
        print("lost", flush=True)
    else:
        print("won", flush=True)
"""


@pytest.mark.parametrize("name", DURABLE)
def test_of_many_processes_that_expect_the_same_exactly_one_wins(name: str, tmp_path: Path) -> None:
    store = OPENERS[name](tmp_path)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, __file__, name, str(tmp_path), f"p{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3]))},
        )
        for n in range(5)
    ]
    try:
        for racer in racers:
            assert racer.stdout is not None and racer.stdout.readline() == "ready\n"
        expected = "none"
        for _ in range(4):
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write(f"{expected}\n")
                racer.stdin.flush()
            outcomes = [racer.stdout.readline().strip() for racer in racers if racer.stdout is not None]
            assert sorted(outcomes) == ["lost"] * 4 + ["won"]
            stored = store.load(KEY)
            assert stored is not None
            assert marker_event(stored) == f"{expected}.p{outcomes.index('won')}"
            expected = f"{expected}.p{outcomes.index('won')}"
    finally:
        for racer in racers:
            racer.kill()
            racer.communicate()


def test_a_stored_file_is_json_that_names_its_key(tmp_path: Path) -> None:
    store = FileTokenStore(tmp_path)
    store.save(KEY, marked("e1"))
    written = json.loads(store.path_of(KEY).read_text())
    assert written.pop("lease_key") == "dev:openai:work"
    assert written == json.loads(marked("e1").to_json())
