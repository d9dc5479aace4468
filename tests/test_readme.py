"""The README's examples are run, and their output is what the README shows."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from oauth_server.client import OAuthClient
from oauth_server.running import running_server

from ledger import PersistedTokens, RefreshError

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


def test_the_refresh_function_shown_works_at_a_real_server() -> None:
    with running_server() as server, OAuthClient(server) as client:
        names: dict[str, Any] = {"TOKEN_URL": f"{server.url}/token", "ID": server.client_id, "time": time}
        exec(blocks("python")[1], names)
        old = PersistedTokens("external_tokens", refresh_token=client.login().refresh_token)
        new = names["refresh"](old)
        assert client.resource(new.primary_secret) == 200 and new.refresh_token != old.refresh_token
        with pytest.raises(RefreshError) as refusal:
            names["refresh"](old)
        assert (refusal.value.permanent, refusal.value.error, refusal.value.status) == (True, "invalid_grant", 400)
