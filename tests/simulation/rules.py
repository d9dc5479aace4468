"""What must hold, written down once more from the rules alone: it shares no code with the ledger's own decisions.

Told of every event, every write to a store, every refresh token sent and every call's end, it keeps a picture of its
own and speaks up at the first thing that may not be. A login may be lost, but never without one of a few excuses.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from simulation.agents import FINGERPRINTS, Call, Process
from simulation.authorization_server import Age, AuthorizationServer, age_of, refresh_token_of

from ledger.errors import LedgerStorageError
from ledger.guard import GuardTimeout
from ledger.keys import LeaseKey
from ledger.lifecycle import TokenLifecycleClearError
from ledger.marker import marker_attempt, marker_event
from ledger.refresh_errors import (
    LedgerBehindStore,
    ReauthRequired,
    RefreshError,
    RefreshTimedOut,
    TokensElsewhere,
    TokensNotSaved,
)
from ledger.store_errors import TokenStoreError
from ledger.stores.base import TokenStore
from ledger.tokens import PersistedTokens

EXPECTED = {
    "fresh": (
        RefreshError,
        ReauthRequired,
        RefreshTimedOut,
        TokensNotSaved,
        TokensElsewhere,
        LedgerBehindStore,
        TokenStoreError,
        LedgerStorageError,
        GuardTimeout,
    ),
    "login": (TokensNotSaved, TokenStoreError, LedgerStorageError, GuardTimeout),
    "logout": (TokenLifecycleClearError, LedgerBehindStore, LedgerStorageError, GuardTimeout),
}
"""What a call may raise."""


class Cancelled(BaseException):
    """Ends a call from outside, as Ctrl-C does."""


@dataclass(slots=True)
class Attempt:
    """A refresh attempt, from its event on."""

    id: str
    call: Call
    process: Process
    started_s: float
    duration_s: float
    spends: Age | None
    began_on: str | None
    closed_at_version: int | None = None
    closed_as: str | None = None


@dataclass(slots=True)
class Rotation:
    """A refresh token the server has replaced, and what became of its successor."""

    attempt: str
    call: Call
    stored: bool = False
    in_time: bool = False
    excuse: str | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """A lease as one of its events leaves it."""

    live: bool = False
    dead_end: bool = False
    event: str | None = None
    age: Age | None = None
    open: str | None = None


@dataclass(slots=True)
class Lease:
    """A lease, as its events tell."""

    now: Standing = Standing()
    past: list[Standing] = field(default_factory=lambda: [Standing()])
    authors: list[Call | None] = field(default_factory=lambda: [None])
    generation: int = 0
    published_at: int = 0
    published: dict[str, Age] = field(default_factory=dict)
    in_force: list[tuple[float, Standing]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    last_closed: str | None = None

    @property
    def version(self) -> int:
        """How many events there are."""
        return len(self.past) - 1

    def copy(self) -> "Lease":
        """The lease as a backup keeps it."""
        return replace(
            self,
            past=list(self.past),
            authors=list(self.authors),
            published=dict(self.published),
            in_force=list(self.in_force),
            failures=list(self.failures),
        )


class Rules:
    """Watches one simulated world."""

    def __init__(self, server: AuthorizationServer, *, has_one_store: bool) -> None:
        self.server = server
        self.has_one_store = has_one_store
        self.has_one_time = True
        self.broken: list[str] = []
        self.leases: dict[str, Lease] = {}
        self.attempts: dict[str, Attempt] = {}
        self.rotations: dict[Age, Rotation] = {}
        self.sent_by: dict[Age, list[str]] = {}
        self.marked: dict[str, Age] = {}
        self.excuses: dict[str, list[str]] = {}
        self.logged_out: set[str] = set()
        self.is_older_copy = False
        self._fingerprints: dict[str, Age] = {}

    def expect(self, holds: bool, otherwise: str) -> None:
        """Speak up unless it holds."""
        if not holds:
            self.broken.append(otherwise)

    def excuse(self, lineage: str, why: str) -> None:
        """From here on this login may be lost."""
        self.excuses.setdefault(lineage, []).append(why)

    def lease(self, key: LeaseKey | str) -> Lease:
        """The picture of one lease."""
        return self.leases.setdefault(str(key), Lease())

    def go_back(self, leases: dict[str, Lease]) -> None:
        """The ledger is an older copy from here on."""
        self.leases = leases
        self.is_older_copy = True
        still_open = {lease.now.open for lease in leases.values()}
        for attempt in self.attempts.values():
            if attempt.id not in still_open and attempt.closed_at_version is None:
                attempt.closed_at_version, attempt.closed_as = 0, "forgotten"

    def settled(self, key: LeaseKey, stores: list[TokenStore]) -> None:
        """Everything is recovered on one lease: nothing is left over, and what was lost is on record."""
        now = self.lease(key).now
        if now.live or self.is_older_copy:
            return
        for store in stores:
            self.expect(store.load(key) is None, f"tokens are left over after the logout of {key}")

    # The ledger

    def appended(self, stream: str, version: int, tag: str, event: dict[str, Any], call: Call, now_s: float) -> None:
        """An event is on record."""
        lease = self.lease(stream)
        self.expect(version == lease.version + 1, f"version {version} follows {lease.version}")
        match tag:
            case "lease.acquired":
                standing = self._acquired(lease, event, call)
            case "lease.refreshed":
                standing = self._refreshed(lease, event, call)
            case "lease.refresh_started":
                standing = self._started(lease, event, call, now_s)
            case "lease.refresh_failed":
                standing = self._failed(lease, event, call, now_s)
            case "lease.released":
                self.expect(call.kind == "logout", f"{call.name} released a lease and is no logout")
                standing = Standing()
            case "lease.restored":
                standing = self._restored(lease, event, call)
            case _:
                self.broken.append(f"{tag} is nothing that these agents do")
                standing = lease.now
        if lease.now.open not in (None, standing.open):
            attempt = self.attempts[lease.now.open or ""]
            attempt.closed_at_version = version
            if attempt.closed_as is None:
                attempt.closed_as = tag
        if standing.open is not None:
            self.attempts[standing.open].closed_at_version = None
        if standing.event != lease.now.event:
            lease.last_closed = None
        lease.now = standing
        lease.past.append(standing)
        lease.authors.append(call)
        lease.in_force.append((now_s, standing))

    def _publishes(self, lease: Lease, event: dict[str, Any], age: Age | None, call: Call) -> Standing:
        self.expect(event["generation"] == lease.generation + 1, "generations are counted one by one")
        self.expect(event["published_at"] > lease.published_at, "publication times only grow")
        lease.generation, lease.published_at = event["generation"], event["published_at"]
        if age is None:
            self.broken.append(f"{call.name} published tokens that it has not saved")
            return lease.now
        lease.published[event["id"]] = age
        return Standing(True, False, event["id"], age)

    def _acquired(self, lease: Lease, event: dict[str, Any], call: Call) -> Standing:
        if event.get("attempt") is None:
            self.expect(call.kind == "login" and call.tokens is not None, f"{call.name} acquired and is no login")
            return self._publishes(lease, event, None if call.tokens is None else age_of(call.tokens), call)
        self.expect(lease.now.live, f"{call.name} brought a lease back to life that was logged out")
        return self._publishes(lease, event, self._saved_for(lease, event, call), call)

    def _refreshed(self, lease: Lease, event: dict[str, Any], call: Call) -> Standing:
        self.expect(
            lease.now.open is not None and event["attempt"] == lease.now.open,
            f"{call.name} completed attempt {event['attempt']}, which is not the open one",
        )
        return self._publishes(lease, event, self._saved_for(lease, event, call), call)

    def _saved_for(self, lease: Lease, event: dict[str, Any], call: Call) -> Age | None:
        age = self.marked.get(event["id"])
        if age is not None and lease.now.age is not None:
            self.expect(age[0] == lease.now.age[0], f"{call.name} published tokens of another login")
            self.expect(age[1] > lease.now.age[1], f"{call.name} published tokens no newer than those in force")
        return age

    def _started(self, lease: Lease, event: dict[str, Any], call: Call, now_s: float) -> Standing:
        self.expect(lease.now.live and not lease.now.dead_end, "an attempt began that had nothing to refresh")
        self.expect(lease.now.open is None, "two attempts are open at once")
        if lease.last_closed is not None and lease.last_closed in call.waited_for:
            self.expect(
                self.attempts[lease.last_closed].closed_as != "failed",
                f"{call.name} waited for attempt {lease.last_closed}, which failed, and tries again itself",
            )
        age = lease.now.age
        if age is not None:
            self._fingerprints.setdefault(FINGERPRINTS.fingerprint(refresh_token_of(age)), age)
        spends = self._fingerprints.get(event["fingerprint"])
        self.expect(spends == age, f"{call.name} is about to spend {spends}, and {age} is in force")
        self.attempts[event["id"]] = Attempt(
            event["id"], call, call.process, now_s, event["duration_ms"] / 1000, spends, lease.now.event
        )
        call.attempt = event["id"]
        return replace(lease.now, open=event["id"])

    def _failed(self, lease: Lease, event: dict[str, Any], call: Call, now_s: float) -> Standing:
        self.expect(event.get("attempt") == lease.now.open, "an attempt was closed that is not open")
        attempt = self.attempts[lease.now.open or ""]
        if event.get("abandoned", False):
            gone = not attempt.process.alive and attempt.process.machine is call.process.machine
            passed_s = now_s - attempt.started_s if self.has_one_time else call.paused_s
            over = passed_s > attempt.duration_s - 0.001
            self.expect(gone or over, f"{call.name} took attempt {attempt.id} over, whose time is not over")
            attempt.closed_as = "abandoned"
        else:
            self.expect(attempt.call is call, f"{call.name} closed an attempt of {attempt.call.name}")
            attempt.closed_as = "failed"
            lease.failures.append(event)
        self._told_truly(event, attempt, call)
        lease.last_closed = attempt.id
        return replace(lease.now, open=None, dead_end=bool(event["permanent"]))

    def _told_truly(self, event: dict[str, Any], attempt: Attempt, call: Call) -> None:
        """How an attempt ended is on record, and is what the server and the stores know of it."""
        was_sent = any(attempt.id in attempts for attempts in self.sent_by.values())
        brought = [rotation for rotation in self.rotations.values() if rotation.attempt == attempt.id]
        so_it_is = {
            "not_sent": not was_sent,
            "unanswered": was_sent,
            "answered": was_sent and not brought,
            "not_saved": bool(brought),
            "interrupted": not was_sent,
            "abandoned": attempt.closed_as == "abandoned",
        }
        ended = str(event.get("ended"))
        self.expect(so_it_is.get(ended, False), f"{call.name} recorded that {attempt.id} ended {ended}, and it did not")

    def _restored(self, lease: Lease, event: dict[str, Any], call: Call) -> Standing:
        undone = event.get("compensates")
        self.expect(undone == lease.version, "a restore undoes something else than the latest event")
        author = lease.authors[-1]
        assert author is not None
        if author is not call:
            # A recovery: of a login whose tokens were never stored, or were cleared by a logout that got no further.
            age = None if author.tokens is None else age_of(author.tokens)
            gone = age is not None and (age not in self.marked.values() or age[0] in self.logged_out)
            self.expect(gone or self.is_older_copy, f"{call.name} undid an event of {author.name}")
        captured = event.get("captured_at_version")
        standing = Standing() if captured is None else lease.past[captured]
        replaced = lease.past[-2]
        self.expect(
            standing in (Standing(), replaced), f"{call.name} brought {standing} back, and {replaced} had been replaced"
        )
        self.expect(event.get("published_by") == standing.event, "a restore names another publisher than there was")
        return standing

    # The stores

    def saved(
        self, store: TokenStore, key: LeaseKey, before: PersistedTokens | None, after: PersistedTokens, call: Call
    ) -> None:
        """Tokens are in place."""
        lease, age = self.lease(key), age_of(after)
        event = marker_event(after)
        self.expect(event is not None, f"{call.name} saved unmarked tokens")
        if event is not None:
            self.marked[event] = age
        rotation = self.rotations.get(age)
        if rotation is not None:
            rotation.stored = True
            rotation.in_time = rotation.in_time or self.attempts[rotation.attempt].closed_as != "abandoned"
        in_force = lease.now.age
        self.expect(lease.now.live, f"{call.name} saved tokens of a lease that is logged out")
        if in_force is not None:
            self.expect(age[0] == in_force[0], f"{call.name} saved {age} over the login {in_force} in force")
            self.expect(age[1] >= in_force[1], f"{call.name} saved {age}, older than {in_force} in force")
        if before is not None and age_of(before)[0] == age[0]:
            self.expect(age >= age_of(before), f"{call.name} saved {age} over the newer {age_of(before)}")

    def cleared(self, store: TokenStore, key: LeaseKey, before: PersistedTokens | None, call: Call) -> None:
        """Tokens are gone."""
        if before is None:
            return
        lease = self.lease(key)
        if call.kind == "logout":
            self.logged_out.add(age_of(before)[0])
            self.excuse(age_of(before)[0], f"{call.name} has cleared its tokens")
            return
        known = marker_event(before) in lease.published or marker_attempt(before) in self.attempts
        self.expect(known and not lease.now.live, f"{call.name} cleared tokens that nobody has logged out")

    # The server

    def sent(self, call: Call, age: Age) -> None:
        """A refresh token is on its way."""
        call.sent += 1
        attempt = self.attempts.get(call.attempt or "")
        if attempt is None:
            self.broken.append(f"{call.name} sent a refresh token without an attempt on record")
            return
        lease = self.lease(call.key)
        earlier = self.sent_by.setdefault(age, [])
        self.expect(attempt.id not in earlier, f"{call.name} sent {age} twice in one attempt")
        self.expect(attempt.spends == age, f"{call.name} sent {age}, its attempt is about {attempt.spends}")
        closed_at = attempt.closed_at_version
        overtaken = closed_at is not None and closed_at > call.saw_version
        self.expect(
            overtaken or lease.now.open == attempt.id, f"{call.name} sent {age} for an attempt it knew to be closed"
        )
        for other in earlier:
            if self.attempts[other].closed_at_version is None:
                self.expect(overtaken, f"{age} is exchanged twice at once: by {other} and by {attempt.id}")
        if overtaken:
            self.excuse(age[0], f"{call.name} was overtaken between its last check and its send")
        earlier.append(attempt.id)

    def spent_again(self, call: Call, age: Age, attempt: str) -> None:
        """A refresh token that has a successor already came to the server."""
        successor = (age[0], age[1] + 1)
        rotation = self.rotations[successor]
        why = rotation.excuse
        if why is None and not rotation.in_time and self.attempts[rotation.attempt].closed_as == "abandoned":
            why = f"{rotation.call.name} had not saved {successor} when it was taken over"
        if why is None and self.attempts[attempt].closed_as is not None:
            why = f"{call.name} was overtaken before its request arrived"
        self.expect(why is not None, f"{call.name} spent {age} again though {successor} was there to be used")
        self.excuse(age[0], why or "")

    def rotated(self, call: Call, age: Age, attempt: str) -> Rotation:
        """The server has replaced a refresh token."""
        rotation = Rotation(attempt, call)
        self.rotations[(age[0], age[1] + 1)] = rotation
        return rotation

    def lost(self, age: Age, why: str) -> None:
        """The successor of a spent refresh token will never be stored."""
        rotation = self.rotations[age]
        if not rotation.stored and rotation.excuse is None:
            rotation.excuse = why
            self.excuse(age[0], why)

    def crashed(self, process: Process) -> None:
        """A process is gone, with all that only it knew."""
        for age, rotation in self.rotations.items():
            if rotation.call.process is process:
                self.lost(age, f"{process.name} crashed before {age} was saved")
        for task in process.tasks:
            self._login_lost(task.call, "crashed before its tokens were saved")

    def revoked(self, call: Call, lineage: str) -> None:
        """The server is told that a login is over."""
        now = self.lease(call.key).now
        self.expect(not now.live or now.age is None or now.age[0] != lineage, f"{call.name} revoked the login in force")

    # The calls

    def ended(self, call: Call, outcome: Any, failure: BaseException | None, now_s: float) -> None:
        """A call has come to its end."""
        if failure is None:
            if call.kind == "fresh":
                self._kept_what_came(call)
                self._returned(call, outcome)
            return
        if isinstance(failure, Cancelled):
            return
        self.expect(isinstance(failure, EXPECTED[call.kind]), f"{call.name} raised {failure!r}")
        if call.kind == "login":
            self._login_lost(call, f"raised {type(failure).__name__}")
        if isinstance(failure, TokensNotSaved) and call.kind == "fresh":
            self.lost(age_of(failure.tokens), f"the store refused the tokens of {call.name}")
        self._kept_what_came(call)
        standings = self._during(call)
        match failure:
            case ReauthRequired():
                self.expect(
                    any(not standing.live or standing.dead_end for standing in standings),
                    f"{call.name} was told to log in again though the lease was live all the time: {failure}",
                )
            case RefreshError() if call.sent == 0:
                self.expect(
                    any(event.get("error") == failure.error for event in self.lease(call.key).failures),
                    f"{call.name} got a failure that nobody recorded: {failure}",
                )
            case LedgerBehindStore():
                self.expect(self.is_older_copy, f"{call.name} took the ledger for an older copy")
            case TokensElsewhere() if self.has_one_store:
                ages = [standing.age for standing in standings if standing.age is not None]
                self.expect(
                    self.is_older_copy or any(age[0] in self.excuses for age in ages),
                    f"{call.name} was told that the tokens are elsewhere, and there is no other store",
                )
            case _:
                pass

    def _kept_what_came(self, call: Call) -> None:
        now = self.lease(call.key).now
        for age, rotation in self.rotations.items():
            if rotation.call is call and not rotation.stored and rotation.excuse is None:
                overtaken = not now.live or now.event != self.attempts[rotation.attempt].began_on
                self.expect(overtaken, f"{call.name} threw {age} away, the only live token there is")

    def _during(self, call: Call) -> list[Standing]:
        in_force = self.lease(call.key).in_force
        begun = [standing for at_s, standing in in_force if at_s >= call.started_s]
        before = [standing for at_s, standing in in_force if at_s < call.started_s]
        return [before[-1] if before else Standing(), *begun]

    def _returned(self, call: Call, tokens: PersistedTokens) -> None:
        event = marker_event(tokens)
        self.expect(
            any(standing.live and standing.event == event for standing in self._during(call)),
            f"{call.name} returned {age_of(tokens)}, which was not in force at any time of the call",
        )

    def _login_lost(self, call: Call, how: str) -> None:
        if call.tokens is None:
            return
        age = age_of(call.tokens)
        if age not in self.marked.values():
            self.excuse(age[0], f"{call.name} {how}")
        elif (standing := self.lease(call.key).now.age) is not None and how.startswith("raised"):
            # Its bytes are in place of those of the login before it, which stands again.
            self.excuse(standing[0], f"{call.name} {how}, but had saved its tokens")
