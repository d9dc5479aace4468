"""Poolers before the PostgreSQL server: Debian's PgBouncer where it is installed, and a small one of our own."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import psycopg

__all__ = ["PGBOUNCER", "bouncer", "transaction_pool"]

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")

_START = struct.Struct("!i")
_HEAD = struct.Struct("!ci")
_PLAIN_START = 196_608


@contextmanager
def bouncer(url: str, mode: Literal["session", "transaction", "statement"], size: int = 4) -> Iterator[str]:
    """PgBouncer before the server of a URL; the URL by way of it."""
    assert PGBOUNCER is not None
    parts = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="lease-ledger-bouncer-") as folder:
        config = Path(folder) / "pgbouncer.ini"
        config.write_text(
            f"[databases]\npostgres = host={parts.hostname} port={parts.port} user={parts.username} "
            f"password={parts.password}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
            f"unix_socket_dir =\nauth_type = any\npool_mode = {mode}\ndefault_pool_size = {size}\n"
            "max_client_conn = 100\n"
        )
        started_by_root = os.geteuid() == 0
        if started_by_root:
            shutil.chown(folder, "nobody")
            shutil.chown(config, "nobody")
        process = subprocess.Popen(
            [PGBOUNCER, "-q", str(config)],
            user=pwd.getpwnam("nobody").pw_uid if started_by_root else None,
            extra_groups=[] if started_by_root else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            _wait_for(port, process)
            yield parts._replace(netloc=f"anybody@127.0.0.1:{port}").geturl()
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _wait_for(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None and time.monotonic() < deadline, "PgBouncer did not start"
        time.sleep(0.02)


@contextmanager
def transaction_pool(url: str, size: int, *, next_one: Literal["last used", "longest idle"]) -> Iterator[str]:
    """A pooler that tells each client that it has the first session of the pool; the URL by way of it.

    Args:
        url: The server.
        size: Its sessions.
        next_one: Which of the idle sessions it gives to the next transaction.
    """
    parts = urlsplit(url)
    with contextlib.ExitStack() as closing:
        server = parts._replace(query="").geturl()
        sessions = [closing.enter_context(psycopg.connect(server, autocommit=True)) for _ in range(size)]
        raw = [closing.enter_context(socket.socket(fileno=os.dup(session.fileno()))) for session in sessions]
        pool = _Pool(sessions[0].info, raw, 0 if next_one == "longest idle" else -1)
        listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        threading.Thread(target=pool.accept, args=(listener,), daemon=True).start()
        yield parts._replace(netloc=f"anybody@127.0.0.1:{listener.getsockname()[1]}").geturl()
        listener.shutdown(socket.SHUT_RDWR)


class _Pool:
    def __init__(self, first: psycopg.ConnectionInfo, sessions: list[socket.socket], take: int) -> None:
        self._first_pid = first.backend_pid
        self._version = first.parameter_status("server_version") or ""
        self._idle = list(sessions)
        self._take = take
        self._changed = threading.Condition()
        for one in self._idle:
            one.setblocking(True)

    def accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            while _start(client) != _PLAIN_START:
                client.sendall(b"N")
            known = {"server_version": self._version, "client_encoding": "UTF8", "standard_conforming_strings": "on"}
            told = b"".join(_message(b"S", f"{name}\0{value}\0".encode()) for name, value in known.items())
            key = _message(b"K", struct.pack("!ii", self._first_pid, 1))
            client.sendall(_message(b"R", b"\0\0\0\0") + told + key + _message(b"Z", b"I"))
            while (message := _receive(client))[0] != b"X":
                self._transaction(client, *message)

    def _transaction(self, client: socket.socket, kind: bytes, body: bytes) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._idle)
            session = self._idle.pop(self._take)
        try:
            while True:
                session.sendall(_message(kind, body))
                if kind in (b"Q", b"S") and _answer(session, client) == b"I":
                    return
                kind, body = _receive(client)
        finally:
            with self._changed:
                self._idle.append(session)
                self._changed.notify()


def _answer(session: socket.socket, client: socket.socket) -> bytes:
    while True:
        kind, body = _receive(session)
        client.sendall(_message(kind, body))
        if kind == b"Z":
            return body


def _message(kind: bytes, body: bytes) -> bytes:
    return _HEAD.pack(kind, len(body) + 4) + body


def _receive(end: socket.socket) -> tuple[bytes, bytes]:
    kind, length = _HEAD.unpack(_exactly(end, _HEAD.size))
    return kind, _exactly(end, length - 4)


def _start(client: socket.socket) -> int:
    (length,) = _START.unpack(_exactly(client, _START.size))
    code: int = struct.unpack("!i", _exactly(client, length - 4)[:4])[0]
    return code


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = end.recv(size - len(data))
        if not more:
            raise ConnectionResetError
        data += more
    return data
