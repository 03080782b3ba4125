"""A company's web proxy: tunnels by CONNECT for https, passes whole requests on for http, and remembers to where."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from urllib.parse import urlsplit

from tests.harness.stores.server import HOST

_TIMEOUT_S = 60.0


class ForwardProxy:
    """Listens to the end of its `with` block. `tunnels` and `passed` are the host:port of each request, in order.

    Source: RFC 9110, section 9.3.6 (CONNECT); RFC 9112, section 3.2.2 (absolute-form).
    """

    def __init__(self) -> None:
        self.tunnels: list[str] = []
        self.passed: list[str] = []
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.url = f"http://{HOST}:{self._listener.getsockname()[1]}"
        self._ending = threading.Event()
        self._acceptor = threading.Thread(target=self._accept, name="proxy", daemon=True)

    def __enter__(self) -> ForwardProxy:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()

    def _accept(self) -> None:
        while not self._ending.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="proxy", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(_TIMEOUT_S)
        with client, contextlib.suppress(OSError):
            read = b""
            while b"\r\n\r\n" not in read:
                more = client.recv(65536)
                if not more:
                    return
                read += more
            method, target, rest = read.split(b" ", 2)
            if method == b"CONNECT":
                self.tunnels.append(target.decode())
                host, _, port = target.decode().partition(":")
                first = b""
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                address = urlsplit(target.decode())
                self.passed.append(address.netloc)
                host, port = str(address.hostname), str(address.port)
                path = address._replace(scheme="", netloc="").geturl()
                # One request a connection, so that the next one says again where it is for.
                first = b" ".join([method, path.encode(), rest]).replace(
                    b"\r\n", b"\r\nConnection: close\r\n", 1
                )
            with socket.create_connection((host, int(port)), timeout=_TIMEOUT_S) as store:
                store.sendall(first)
                self._carry(client, store)

    def _carry(self, client: socket.socket, store: socket.socket) -> None:
        """Carry bytes both ways until either side has no more."""
        while not self._ending.is_set():
            readable, _, _ = select.select([client, store], [], [], 1.0)
            for side in readable:
                data = side.recv(1 << 16)
                if not data:
                    return
                (store if side is client else client).sendall(data)
