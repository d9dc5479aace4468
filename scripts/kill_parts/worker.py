"""One agent of the campaign: logs in, refreshes and logs out until it is killed."""

import contextlib
import mmap
import random
import time
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
from oauth_server.client import OAuthClient, OAuthError, TokenAnswer

from ledger import (
    ANY,
    Credentials,
    FileTokenStore,
    GuardTimeout,
    LeaseKey,
    LeaseLedger,
    PersistedAuthMode,
    PersistedTokens,
    ReauthRequired,
    RefreshError,
    RefreshTimedOut,
    TokensElsewhere,
)
from ledger.stores.base import Expectation

__all__ = ["HTTP_TIMEOUT_S", "KEYS", "REFRESH_DEADLINE_S", "Moment", "Task", "credentials_of", "work"]

KEYS = (LeaseKey("dev", "one"), LeaseKey("dev", "two"), LeaseKey("dev", "three"))

REFRESH_DEADLINE_S = 3.0
HTTP_TIMEOUT_S = 2.0
ALWAYS_REFRESH_S = 3600.0
LOGOUTS = 0.05

_PERMANENT = frozenset({"invalid_grant", "invalid_client", "unauthorized_client"})


class Moment(IntEnum):
    """What an agent is doing; the campaign reads it when it has killed one."""

    IDLE = 0
    LOGIN = 1
    FRESH = 2
    EXCHANGE = 3
    SAVE = 4
    RECORD = 5
    LOGOUT = 6


class Task(NamedTuple):
    """Where an agent works.

    Attributes:
        client: Made before the fork, since that takes its time, and not yet connected.
        moments: One byte for each agent slot, shared with the campaign.
        slot: This agent's.
    """

    url: str
    tokens: Path
    client: OAuthClient
    moments: mmap.mmap
    slot: int
    seed: int


class _TellingStore(FileTokenStore):
    """Tells when it saves, and that what follows a save is its record."""

    def __init__(self, root: Path, task: Task) -> None:
        super().__init__(root)
        self._task = task

    def save(self, key: LeaseKey, tokens: PersistedTokens, *, expect: Expectation = ANY) -> None:
        _tell(self._task, Moment.SAVE)
        super().save(key, tokens, expect=expect)
        _tell(self._task, Moment.RECORD)


def _tell(task: Task, moment: Moment) -> None:
    task.moments[task.slot] = moment


def credentials_of(task: Task, actor: str) -> Credentials:
    """The credentials an agent uses; close their ledger."""
    ledger = LeaseLedger.open(task.url, actor=actor)
    return Credentials(ledger, _TellingStore(task.tokens, task), refresh_deadline=REFRESH_DEADLINE_S)


def work(task: Task) -> None:
    """Use the keys until killed."""
    choices = random.Random(task.seed)
    credentials = credentials_of(task, f"agent-{task.slot}-{task.seed}")
    while True:
        key = choices.choice(KEYS)
        with contextlib.suppress(RefreshError, RefreshTimedOut, GuardTimeout, OAuthError, httpx.HTTPError):
            if choices.random() < LOGOUTS:
                _tell(task, Moment.LOGOUT)
                credentials.logout(key)
            else:
                _use(credentials, key, task)
        _tell(task, Moment.IDLE)
        time.sleep(choices.uniform(0, 0.02))


def _use(credentials: Credentials, key: LeaseKey, task: Task) -> None:
    _tell(task, Moment.FRESH)
    try:
        credentials.fresh(key, partial(_refresh, task), window=ALWAYS_REFRESH_S, leeway=ALWAYS_REFRESH_S)
    except (ReauthRequired, TokensElsewhere):
        _tell(task, Moment.LOGIN)
        credentials.login(key, _persisted(task.client.login()))


def _refresh(task: Task, tokens: PersistedTokens) -> PersistedTokens:
    _tell(task, Moment.EXCHANGE)
    try:
        return _persisted(task.client.refresh(tokens.refresh_token or ""))
    except OAuthError as error:
        raise RefreshError(error.error in _PERMANENT, error.error, error.status, error.retry_after) from error


def _persisted(answer: TokenAnswer) -> PersistedTokens:
    return PersistedTokens(
        PersistedAuthMode.EXTERNAL_TOKENS,
        primary_secret=answer.access_token,
        refresh_token=answer.refresh_token,
        expires_at=answer.expires_at,
        scopes=answer.scopes,
    )
