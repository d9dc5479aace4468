"""One agent process, ``python -m demo_parts.agent NAME``: says "ready", reads its plan, works to its end."""

import random
import sys
import time
from typing import Protocol

from oauth_server.client import OAuthClient

from demo_parts.naive import NaiveAccess
from demo_parts.plan import Plan
from demo_parts.through_ledger import LedgerAccess

SECONDS_BETWEEN_REQUESTS = 0.15


class Access(Protocol):
    """How an agent comes by an access token."""

    def token(self) -> str:
        """An access token good for use now."""
        ...

    def token_after_refusal(self) -> str:
        """Another one, because the server refused the last."""
        ...

    def close(self) -> None:
        """Let go of what is held open."""


def main() -> None:
    """Everything is imported before the agent says that it is ready, so that all begin together."""
    (name,) = sys.argv[1:]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    plan = Plan.from_line(sys.stdin.buffer.readline())
    with OAuthClient(plan.server) as client:
        access = _access(plan, client, name)
        try:
            _work(plan, client, access)
        finally:
            access.close()


def _access(plan: Plan, client: OAuthClient, name: str) -> Access:
    if plan.half == "naive":
        return NaiveAccess(plan, client, name)
    return LedgerAccess(plan, client, name)


def _work(plan: Plan, client: OAuthClient, access: Access) -> None:
    time.sleep(max(plan.begin_at - time.time(), 0))
    while time.time() < plan.stop_at:
        status = client.resource(access.token())
        if status == 401:
            status = client.resource(access.token_after_refusal())
        if status not in (200, 401):
            raise RuntimeError(f"the resource answered HTTP {status}")
        time.sleep(SECONDS_BETWEEN_REQUESTS * random.uniform(0.8, 1.2))


if __name__ == "__main__":
    main()
