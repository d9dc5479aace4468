"""Start the authorization server as a process of its own, and stop it for certain."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

__all__ = ["REDIRECT_URI", "ServerInfo", "ServerNotStarted", "running_server"]

REDIRECT_URI = "http://127.0.0.1/callback"
"""Where an authorization code is sent. Nobody listens there: the client reads the code from the redirect."""

_SCRIPTS = Path(__file__).resolve().parents[1]


class ServerInfo(NamedTuple):
    """What the server says of itself when it is ready."""

    url: str
    client_id: str
    username: str
    password: str


class ServerNotStarted(RuntimeError):
    """The authorization server ended before it was ready; its own error is on stderr."""


@contextmanager
def running_server(*, access_token_seconds: int = 2) -> Iterator[ServerInfo]:
    """A server on a free loopback port for the time of the ``with`` block.

    It ends with the block, and also when this process is killed: its standard input is a pipe from here.
    """
    # -P: whatever lies in the current folder is not imported.
    command = [sys.executable, "-P", "-m", "oauth_server", "--until-eof"]
    command += ["--access-token-seconds", str(access_token_seconds)]
    search_path = [str(_SCRIPTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search_path)}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # Ctrl-C is for whoever started the server, who then stops it in order.
        process_group=0,
    ) as process:
        try:
            yield _read_announcement(process)
        finally:
            process.terminate()
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()


def _read_announcement(process: subprocess.Popen[str]) -> ServerInfo:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ServerNotStarted("the authorization server ended before it was ready")
    return ServerInfo(**json.loads(line))
