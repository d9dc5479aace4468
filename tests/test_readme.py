"""The README's examples are run, and their output is what the README shows."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from oauth_server.client import OAuthClient
from oauth_server.running import running_server

from ledger import Credentials, LeaseKey, LeaseLedger, MemoryTokenStore, PersistedTokens, RefreshError

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

VARYING = (
    (re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"), "TIME"),
    (re.compile(r"\S+@\S+ pid \d+"), "ACTOR"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "ID"),
    (re.compile(r"digest [0-9a-f]{16}"), "DIGEST"),
    (re.compile(r"/\S+/(?=\w+\.(?:html|audit\.db))"), "FOLDER/"),
    (re.compile(r"[\d,]+ bytes"), "SIZE"),
    (re.compile(r" +"), " "),
    (re.compile(r" $", re.MULTILINE), ""),
)


def comparable(output: str) -> str:
    """The output without what differs from run to run: times, the actor, and the columns' widths."""
    for pattern, constant in VARYING:
        output = pattern.sub(constant, output)
    return output.strip()


def run(command: list[str], folder: Path) -> str:
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "200",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(language: str) -> list[str]:
    return [text for found, text in BLOCK.findall(README) if found == language]


def test_the_first_example_has_at_most_ten_lines() -> None:
    assert len([line for line in blocks("python")[0].splitlines() if line.strip()]) <= 10


def test_every_session_shown_does_what_it_shows(tmp_path: Path) -> None:
    printed = BLOCK.findall(README)[1][1]
    assert run([sys.executable, "-c", blocks("python")[0]], tmp_path) == printed
    for session in blocks("console"):
        for shown in session.split("$ ")[1:]:
            command, _, output = shown.partition("\n")
            assert comparable(run(["sh", "-c", command], tmp_path)) == comparable(output), command


def test_every_example_passes_the_strictest_type_check_as_it_stands(tmp_path: Path) -> None:
    files = [tmp_path / f"example_{number}.py" for number in range(len(blocks("python")))]
    for file, block in zip(files, blocks("python"), strict=True):
        file.write_text(block, "utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", *map(str, files)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "MYPYPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextlib.contextmanager
def server_that_answers(granted: dict[str, Any]) -> Iterator[str]:
    """A token endpoint at a loopback address that grants whatever it is asked, in these words."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps(granted).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/token"
        finally:
            server.shutdown()
            thread.join()


ASSUMED_S = 3600
LIFETIMES: dict[str, tuple[dict[str, Any], int]] = {
    "a number": ({"expires_in": 900}, 900),
    "a float": ({"expires_in": 900.5}, 900),
    "text": ({"expires_in": "900"}, 900),
    "zero": ({"expires_in": 0}, 0),
    "nothing": ({}, ASSUMED_S),
    "null": ({"expires_in": None}, ASSUMED_S),
    "no number": ({"expires_in": "an hour"}, ASSUMED_S),
    "a list": ({"expires_in": [900]}, ASSUMED_S),
    "infinity": ({"expires_in": float("inf")}, ASSUMED_S),
}


@pytest.mark.parametrize("said", LIFETIMES)
def test_the_refresh_function_shown_keeps_the_login_whatever_the_server_says_of_its_end(said: str) -> None:
    answer, lifetime = LIFETIMES[said]
    key = LeaseKey("dev", "openai")
    with (
        server_that_answers({"access_token": "a2", "refresh_token": "r2", **answer}) as url,
        LeaseLedger.open("memory://") as ledger,
    ):
        names: dict[str, Any] = {"TOKEN_URL": url, "ID": "agent"}
        exec(blocks("python")[1], names)
        credentials = Credentials(ledger, MemoryTokenStore())
        credentials.login(
            key, PersistedTokens("external_tokens", primary_secret="a1", refresh_token="r1", expires_at=0)
        )
        earliest = int(time.time())
        tokens = credentials.fresh(key, names["refresh"])
        assert (tokens.primary_secret, tokens.refresh_token) == ("a2", "r2")
        assert tokens.expires_at is not None
        assert earliest + lifetime <= tokens.expires_at <= int(time.time()) + lifetime


def test_the_refresh_function_shown_works_at_a_real_server() -> None:
    with running_server() as server, OAuthClient(server) as client:
        names: dict[str, Any] = {"TOKEN_URL": f"{server.url}/token", "ID": server.client_id}
        exec(blocks("python")[1], names)
        old = PersistedTokens("external_tokens", refresh_token=client.login().refresh_token)
        new = names["refresh"](old)
        assert client.resource(new.primary_secret) == 200 and new.refresh_token != old.refresh_token
        with pytest.raises(RefreshError) as refusal:
            names["refresh"](old)
        assert (refusal.value.permanent, refusal.value.error, refusal.value.status) == (True, "invalid_grant", 400)
