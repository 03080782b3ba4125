"""A way to a store (plain http) whose answers can be cut, or held, after so many bytes."""

from __future__ import annotations

import re
import socket
import threading
from dataclasses import replace
from types import TracebackType
from urllib.parse import urlsplit

from tests.harness.stores.server import HOST, StoreServer

_REQUEST = re.compile(rb"^([A-Z]+) \S+ HTTP/1\.1\r$", re.MULTILINE)


class Valve:
    """Passes connections on to `upstream`. `cuts`: connection by connection, the bytes of answers after which it is cut.

    With `hold_after` every connection stops giving once so many bytes have passed over all of them, until `release`;
    `held` says that one did.
    """

    def __init__(self, upstream: StoreServer, *cuts: int, hold_after: int | None = None) -> None:
        self.held, self.passed_bytes = threading.Event(), 0
        self._cuts, self._hold_after, self._released = list(cuts), hold_after, threading.Event()
        self._upstream_port = urlsplit(upstream.endpoint_url).port
        self._lock = threading.Lock()
        self._asked = b""
        self._open: list[socket.socket] = []
        self._listener = socket.create_server((HOST, 0), backlog=64)
        port = self._listener.getsockname()[1]
        self.server = replace(upstream, name=f"{upstream.name}-valve", endpoint_url=f"http://{HOST}:{port}")
        threading.Thread(target=self._accept, name="valve", daemon=True).start()

    @property
    def methods(self) -> set[str]:
        """Give the HTTP methods that were used; they stand alone only where no request has a body."""
        return {method.decode() for method in _REQUEST.findall(self._asked)}

    def release(self) -> None:
        """Let everything pass from now on."""
        self._hold_after = None
        self._released.set()

    def cut(self) -> None:
        """Cut what is open now."""
        with self._lock:
            broken, self._open = self._open, []
        for connection in broken:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # its other end was quicker

    def __enter__(self) -> Valve:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.release()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            store = socket.create_connection((HOST, self._upstream_port))
            with self._lock:
                self._open += [client, store]
                cut_after = self._cuts.pop(0) if self._cuts else None
            for name, pump, what in (
                ("ask", self._ask, (client, store)),
                ("answer", self._answer, (store, client, cut_after)),
            ):
                threading.Thread(target=pump, name=f"valve-{name}", args=what, daemon=True).start()

    def _ask(self, client: socket.socket, store: socket.socket) -> None:
        try:
            while chunk := client.recv(1 << 16):
                with self._lock:
                    self._asked += chunk
                store.sendall(chunk)
        except OSError:
            pass  # one of them is gone, and the other is told so below
        _end(store, client)

    def _answer(self, store: socket.socket, client: socket.socket, cut_after: int | None) -> None:
        given = 0
        try:
            while chunk := store.recv(1 << 16):
                if cut_after is not None and given + len(chunk) > cut_after:
                    client.sendall(chunk[: cut_after - given])
                    break
                client.sendall(chunk)
                given += len(chunk)
                with self._lock:
                    self.passed_bytes += len(chunk)
                hold_after = self._hold_after
                if hold_after is not None and self.passed_bytes > hold_after:
                    self.held.set()
                    self._released.wait(120)
        except OSError:
            pass  # one of them is gone, and the other is told so below
        _end(store, client)


def _end(*connections: socket.socket) -> None:
    for connection in connections:
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # ended already
        connection.close()
