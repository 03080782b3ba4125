"""One small HTTP server for /metrics, /healthz and /readyz that nobody can make wait or grow.

It owns no thread: `turn` does what can be done without waiting, `fd` becomes readable when there is something to do.
Mount mode polls it in its one loop (a fork beside a thread is asking for trouble), upload mode gives it a thread.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from dumpagent.errors import BadSettings
from dumpagent.secrets import hide

_REQUEST_MOST_BYTES = 8192
_CLIENTS_MOST = (
    16  # the oldest is dropped for the next: Prometheus twice, a probe, and someone curious fit well
)
_CLIENT_S = 10.0  # Prometheus gives up after 10 s too (scrape_timeout)
_ACCEPT_AGAIN_S = 1.0
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error",
            503: "Service Unavailable"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Page:
    """What one path answers."""

    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Page]]


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    until: float
    request: bytes = b""
    reply: memoryview = field(default_factory=lambda: memoryview(b""))
    answered: bool = False


def listen(port: int, address: str = "") -> socket.socket:
    """Give a listening socket; an empty `address` means all of them, IPv6 and IPv4.

    Raises BadSettings when the port cannot be had.
    """
    try:
        if address:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            listener = socket.create_server((address, port), family=family, backlog=16)
        elif socket.has_dualstack_ipv6():
            listener = socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=16, dualstack_ipv6=True
            )
        else:
            listener = socket.create_server(("", port), backlog=16)
    except OSError as error:
        raise BadSettings(
            f"METRICS_PORT is {port}, which cannot be listened on{f' at {address}' if address else ''}: {error.strerror}",
            hint="another process has the port (hostNetwork?): set METRICS_PORT to a free one, or to 0 for no metrics",
        ) from error
    listener.setblocking(False)
    return listener


class StatusServer:
    """Serves `pages` on `listener`, which it owns. A path's function is called when the path is asked for."""

    def __init__(
        self, listener: socket.socket, pages: Pages, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._listener, self._pages, self._monotonic = listener, pages, monotonic
        self._epoll = select.epoll()
        self._clients: dict[int, _Client] = {}  # oldest first
        self._accepting = False
        self._accept_at = 0.0
        self._accept()

    @property
    def port(self) -> int:
        """Give the port, for those who asked for any."""
        return int(self._listener.getsockname()[1])

    @property
    def fd(self) -> int:
        """Give the descriptor that becomes readable when `turn` has something to do."""
        return self._epoll.fileno()

    @property
    def fds(self) -> Iterator[int]:
        """Give every descriptor that is open now: a forked child must not keep the port."""
        return iter((self.fd, self._listener.fileno(), *self._clients))

    def turn(self) -> None:
        """Do all that can be done without waiting."""
        now = self._monotonic()
        if not self._accepting and now >= self._accept_at:
            self._accept()
        for fd, _ in self._epoll.poll(0):
            if fd == self._listener.fileno():
                self._welcome(now)
            elif fd in self._clients:
                self._attend(fd, self._clients[fd])
        for fd, client in list(self._clients.items()):
            if now >= client.until:
                self._drop(fd)

    def serve(self, stopped: Callable[[], bool]) -> None:
        """Turn until `stopped()`, for a thread of its own; looks at it once a second."""
        while not stopped():
            select.select([self.fd], [], [], 1.0)
            self.turn()
        self.close()

    def close(self) -> None:
        """Close the port and every connection."""
        for fd in list(self._clients):
            self._drop(fd)
        self._epoll.close()
        self._listener.close()

    def _accept(self) -> None:
        self._epoll.register(self._listener, select.EPOLLIN)
        self._accepting = True

    def _welcome(self, now: float) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                if len(self._clients) >= _CLIENTS_MOST:
                    self._drop(next(iter(self._clients)))
                self._clients[connection.fileno()] = _Client(connection, now + _CLIENT_S)
                self._epoll.register(connection, select.EPOLLIN)
        except BlockingIOError:
            return
        except OSError:  # no descriptors, no memory: the listener would stay readable, and we would spin
            self._epoll.unregister(self._listener)
            self._accepting, self._accept_at = False, now + _ACCEPT_AGAIN_S

    def _attend(self, fd: int, client: _Client) -> None:
        try:
            if client.reply:
                client.reply = client.reply[client.connection.send(client.reply) :]
            else:
                received = client.connection.recv(_REQUEST_MOST_BYTES)
                if not received:
                    self._drop(fd)
                    return
                if client.answered:
                    return  # what comes after the request is read and forgotten: unread, it would reset the answer
                client.request += received
                if b"\r\n\r\n" not in client.request and len(client.request) < _REQUEST_MOST_BYTES:
                    return
                client.reply = memoryview(self._answer(client.request))
                client.answered = True
                self._epoll.modify(fd, select.EPOLLOUT)
            if client.answered and not client.reply:
                client.connection.shutdown(socket.SHUT_WR)
                self._epoll.modify(fd, select.EPOLLIN)
        except BlockingIOError:
            return
        except OSError:
            self._drop(fd)

    def _drop(self, fd: int) -> None:
        self._clients.pop(fd).connection.close()  # which takes it out of the epoll set too

    def _answer(self, request: bytes) -> bytes:
        method, _, rest = request.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
        path = rest.split(" ", 1)[0].split("?", 1)[0]
        page = (
            self._page(method, path) if rest and b"\r\n\r\n" in request else Page(b"no HTTP request\n", 400)
        )
        head = (
            f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\nContent-Type: {page.content_type}\r\n"
            f"Content-Length: {len(page.body)}\r\nConnection: close\r\n\r\n"
        )
        return head.encode("latin-1") + (b"" if method == "HEAD" else page.body)

    def _page(self, method: str, path: str) -> Page:
        if method not in ("GET", "HEAD"):
            return Page(b"GET and HEAD only\n", 405)
        if path not in self._pages:
            return Page(f"here are {' '.join(self._pages)}\n".encode(), 404)
        try:
            return self._pages[path]()
        except Exception as error:  # noqa: BLE001 - a page that fails is the asker's to see, not the daemon's end
            return Page(f"{type(error).__name__}: {hide(str(error))}\n".encode(), 500)
