"""A network that fails on demand: a relay before the PostgreSQL server that cuts a connection at a chosen moment."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

__all__ = ["Relay", "relay_to"]

Moment = Literal["before", "after"]


class Relay:
    """Relays bytes both ways until told to cut.

    Attributes:
        url: The server's URL by way of this relay.
        cuts: How many connections were cut so far.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname and parts.port
        self._server = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}").geturl()
        self.cuts = 0
        self._armed: tuple[Moment, bytes, Callable[[], object]] | None = None
        self._arming = threading.Lock()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, moment: Moment, when_sent: bytes, then: Callable[[], object] = lambda: None) -> None:
        """Cut the next connection whose client sends these bytes: before they reach the server, or after.

        ``after`` waits until the server has answered, and the client never sees the answer. ``then`` is called first.
        """
        with self._arming:
            self._armed = (moment, when_sent, then)

    def close(self) -> None:
        """Cut everything and listen no more."""
        for end in [self._listener, *self._sockets]:
            _shut(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                self._sockets += [client, server]
                mute = threading.Event()
                threading.Thread(target=self._forward, args=(client, server, mute), daemon=True).start()
                threading.Thread(target=self._backward, args=(client, server, mute), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                armed = self._disarm(data)
                if armed is None:
                    server.sendall(data)
                    continue
                moment, then = armed
                then()
                if moment == "before":
                    break
                mute.set()
                server.sendall(data)
                return
        _shut(client)
        _shut(server)

    def _disarm(self, data: bytes) -> tuple[Moment, Callable[[], object]] | None:
        with self._arming:
            if self._armed is None or self._armed[1] not in data:
                return None
            moment, _, then = self._armed
            self._armed = None
            self.cuts += 1
            return moment, then

    def _backward(self, client: socket.socket, server: socket.socket, mute: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65_536):
                if mute.is_set():
                    break
                client.sendall(data)
        _shut(client)
        _shut(server)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextmanager
def relay_to(url: str) -> Iterator[Relay]:
    """A relay to the server of a URL, for as long as the block runs."""
    relay = Relay(url)
    try:
        yield relay
    finally:
        relay.close()
