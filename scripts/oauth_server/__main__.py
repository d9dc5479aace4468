"""Run the authorization server: ``python -m oauth_server``. Prints one JSON line when it is ready."""

import argparse
import json
import os
import secrets
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

import django
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler

from oauth_server.running import REDIRECT_URI

CLIENT_ID = "agents"
USERNAME = "person"


class _Server(ThreadedWSGIServer):
    request_queue_size = 128


class _Handler(WSGIRequestHandler):
    # Answers are small and written in parts; waiting to fill a packet would add 40 ms to each.
    disable_nagle_algorithm = True


def main() -> None:
    """Serve until a signal arrives, or the starter's end of our standard input closes."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    signal.signal(signal.SIGINT, _stop)
    with tempfile.TemporaryDirectory(prefix="oauth-server-") as folder:
        os.environ["OAUTH_SERVER_DATABASE"] = str(Path(folder, "oauth.sqlite3"))
        os.environ["OAUTH_SERVER_ACCESS_TOKEN_SECONDS"] = str(arguments.access_token_seconds)
        os.environ["DJANGO_SETTINGS_MODULE"] = "oauth_server.settings"
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        password = _create_account()
        with _Server(("127.0.0.1", arguments.port), _Handler) as server:
            server.set_app(WSGIHandler())
            if arguments.until_eof:
                threading.Thread(target=_stop_at_eof, daemon=True).start()
            _announce(f"http://127.0.0.1:{server.server_port}", password)
            server.serve_forever(poll_interval=0.1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="oauth_server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (the default) takes a free one")
    parser.add_argument("--access-token-seconds", type=int, default=2, help="how long an access token lives")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input is closed")
    return parser.parse_args()


def _create_account() -> str:
    """One person and one public client, as a command line tool or an agent is one; returns the password."""
    # Models can be imported only once Django is set up.
    from django.contrib.auth import get_user_model  # noqa: PLC0415
    from oauth2_provider.models import get_application_model  # noqa: PLC0415

    password = secrets.token_urlsafe(16)
    user = get_user_model().objects.create_user(USERNAME, password=password)
    get_application_model().objects.create(
        client_id=CLIENT_ID,
        name="Agents",
        user=user,
        client_type="public",
        authorization_grant_type="authorization-code",
        redirect_uris=REDIRECT_URI,
        skip_authorization=True,
    )
    return password


def _announce(url: str, password: str) -> None:
    ready = {"url": url, "client_id": CLIENT_ID, "username": USERNAME, "password": password}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _stop_at_eof() -> None:
    """Nobody is left who could stop this server, so it stops itself."""
    sys.stdin.read()
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
