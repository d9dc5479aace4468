"""The authorization server of the demo behaves as its users are told: what they prove rests on it."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from oauth_server.client import OAuthClient, OAuthError, TokenAnswer
from oauth_server.running import ServerInfo, running_server
from oauth_server.stats import login_id

HOUR = 3600


@pytest.fixture(scope="module")
def server() -> Iterator[ServerInfo]:
    with running_server(access_token_seconds=HOUR) as info:
        yield info


@pytest.fixture
def client(server: ServerInfo) -> Iterator[OAuthClient]:
    with OAuthClient(server) as client:
        client.reset_stats()
        yield client


def refused(call: Callable[[], object]) -> OAuthError:
    with pytest.raises(OAuthError) as caught:
        call()
    return caught.value


def test_a_login_yields_tokens_that_open_the_resource(client: OAuthClient) -> None:
    tokens = client.login()
    assert client.resource(tokens.access_token) == 200
    assert tokens.expires_at == pytest.approx(time.time() + HOUR, abs=30)
    assert tokens.scopes == ["read"]


def test_the_wrong_password_logs_nobody_in(server: ServerInfo) -> None:
    with OAuthClient(server._replace(password="guessed")) as stranger:
        assert refused(stranger.login).status == 403


def test_a_refresh_rotates_both_tokens_and_ends_the_old_ones(client: OAuthClient) -> None:
    first = client.login()
    second = client.refresh(first.refresh_token)
    assert second.access_token != first.access_token
    assert second.refresh_token != first.refresh_token
    assert client.resource(first.access_token) == 401
    assert client.resource(second.access_token) == 200


def test_a_refresh_token_spent_twice_revokes_the_whole_family(client: OAuthClient) -> None:
    first = client.login()
    second = client.refresh(first.refresh_token)
    again = refused(lambda: client.refresh(first.refresh_token))
    assert (again.status, again.error) == (400, "invalid_grant")
    assert refused(lambda: client.refresh(second.refresh_token)).error == "invalid_grant"
    assert client.resource(second.access_token) == 401


def test_one_login_does_not_suffer_from_the_reuse_in_another(client: OAuthClient) -> None:
    mine, other = client.login(), client.login()
    client.refresh(other.refresh_token)
    refused(lambda: client.refresh(other.refresh_token))
    assert client.resource(mine.access_token) == 200
    client.refresh(mine.refresh_token)


@pytest.mark.parametrize("_round", range(5))
def test_of_many_refreshes_at_once_with_one_token_exactly_one_succeeds(
    server: ServerInfo, client: OAuthClient, _round: int
) -> None:
    tokens = client.login()
    crowd = 12
    gate = threading.Barrier(crowd)

    def spend(_number: int) -> str:
        with OAuthClient(server) as rival:
            rival.stats()  # the connection is open before the race begins
            gate.wait(30)
            try:
                rival.refresh(tokens.refresh_token)
            except OAuthError as error:
                return error.error or "?"
        return "ok"

    with ThreadPoolExecutor(crowd) as pool:
        answers = sorted(pool.map(spend, range(crowd)))
    assert answers == ["invalid_grant"] * (crowd - 1) + ["ok"]
    counts = client.stats()
    assert (counts["refreshes"], counts["invalid_grant"]) == (1, crowd - 1)
    assert counts["most_presentations"] == crowd


def test_many_agents_with_logins_of_their_own_refresh_at_once_without_an_error(
    server: ServerInfo, client: OAuthClient
) -> None:
    agents, rounds = 8, 10

    def agent(_number: int) -> None:
        with OAuthClient(server) as own:
            tokens = own.login()
            for _ in range(rounds):
                assert own.resource(tokens.access_token) == 200
                tokens = own.refresh(tokens.refresh_token)

    with ThreadPoolExecutor(agents) as pool:
        list(pool.map(agent, range(agents)))
    counts = client.stats()
    assert counts["token_requests"] == {"authorization_code": agents, "refresh_token": agents * rounds}
    assert (counts["refreshes"], counts["errors"]) == (agents * rounds, {})
    assert (counts["resource_ok"], counts["resource_401"]) == (agents * rounds, 0)


def test_a_revoked_login_is_over(client: OAuthClient) -> None:
    tokens = client.login()
    client.revoke(tokens.refresh_token)
    assert client.resource(tokens.access_token) == 401
    assert refused(lambda: client.refresh(tokens.refresh_token)).error == "invalid_grant"


def test_the_server_counts_per_login_and_from_nothing_after_a_reset(client: OAuthClient) -> None:
    first, other = client.login(), client.login()
    client.refresh(first.refresh_token)
    refused(lambda: client.refresh(first.refresh_token))
    counts = client.stats()
    assert counts["logins"][login_id(first.refresh_token)] == {"refreshes": 1, "invalid_grant": 1}
    assert counts["logins"][login_id(other.refresh_token)] == {"refreshes": 0, "invalid_grant": 0}
    assert (counts["refresh_tokens_presented"], counts["most_presentations"]) == (1, 2)
    client.reset_stats()
    counts = client.stats()
    assert (counts["token_requests"], counts["invalid_grant"], counts["logins"]) == ({}, 0, {})
    client.refresh(other.refresh_token)
    assert client.stats()["logins"] == {login_id(other.refresh_token): {"refreshes": 1, "invalid_grant": 0}}


def test_a_request_can_ask_for_a_refusal_that_changes_nothing(client: OAuthClient) -> None:
    tokens = client.login()
    fault = {"X-Fail-Status": "503", "X-Fail-Retry-After": "7"}
    error = refused(lambda: client.refresh(tokens.refresh_token, headers=fault))
    assert (error.status, error.error, error.retry_after) == (503, "temporarily_unavailable", 7)
    client.refresh(tokens.refresh_token)


@pytest.mark.parametrize("header", ["X-Delay-Ms", "X-Delay-Answer-Ms"])
def test_a_request_can_ask_to_be_delayed(client: OAuthClient, header: str) -> None:
    tokens = client.login()
    began = time.monotonic()
    client.refresh(tokens.refresh_token, headers={header: "200"})
    assert time.monotonic() - began >= 0.2


def test_a_delayed_answer_leaves_after_its_exchange_is_final(server: ServerInfo, client: OAuthClient) -> None:
    tokens = client.login()
    with ThreadPoolExecutor(1) as pool, OAuthClient(server) as slow:
        late = pool.submit(slow.refresh, tokens.refresh_token, headers={"X-Delay-Answer-Ms": "1000"})
        give_up = time.monotonic() + 10
        while client.stats()["refreshes"] == 0 and time.monotonic() < give_up:
            time.sleep(0.01)
        assert client.resource(tokens.access_token) == 401
        assert not late.done()
        assert isinstance(late.result(), TokenAnswer)


def test_an_access_token_dies_after_its_seconds_and_a_refresh_still_works() -> None:
    with running_server(access_token_seconds=1) as short, OAuthClient(short) as client:
        tokens = client.login()
        assert client.resource(tokens.access_token) == 200
        time.sleep(1.1)
        assert client.resource(tokens.access_token) == 401
        assert client.resource(client.refresh(tokens.refresh_token).access_token) == 200


def test_the_server_ends_when_its_starter_is_killed() -> None:
    program = (
        "import os, signal\n"
        "from oauth_server.running import running_server\n"
        "with running_server() as server:\n"
        "    print(server.url, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    # Reading to the end of stderr waits for the server too, which holds it open as long as it lives.
    starter = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=60)
    assert starter.returncode == -signal.SIGKILL
    with pytest.raises(httpx.ConnectError):
        httpx.get(starter.stdout.strip(), trust_env=False)
