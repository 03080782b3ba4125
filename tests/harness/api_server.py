"""A Kubernetes API server of one pod over TLS, for what asks it: real enough for a client, with no cluster behind it."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.harness.stores.certificates import make_certificates

POD = {
    "metadata": {"uid": "u-1", "creationTimestamp": "2026-01-01T11:59:59Z"},
    "spec": {"nodeName": "worker-1"},
}
PODS, EVENTS = "/api/v1/namespaces/shop/pods/checkout-7d4b9-x2x", "/api/v1/namespaces/shop/events"


class Cluster(ThreadingHTTPServer):
    """An API server with one pod over TLS; `answer` may be replaced. Keeps what it was asked, with which token."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.account = folder / "account"
        self.account.mkdir()
        made = make_certificates(folder)
        (self.account / "ca.crt").write_bytes(made.ca.read_bytes())
        self.turn_token("first-token")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made.certificate, made.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.asked: list[tuple[str, str, str, Any]] = []
        self.pod: dict[str, Any] = POD
        self.answer: Callable[[str, str], tuple[int, dict[str, Any]] | None] = lambda method, path: None
        self.going_on = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def turn_token(self, token: str) -> None:
        (self.account / "token").write_text(token)
        self.token = token

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def events(self) -> list[Any]:
        return [body for method, _, _, body in self.asked if method == "POST"]


class _Answers(BaseHTTPRequestHandler):
    def _do(self) -> None:
        cluster = self.server
        assert isinstance(cluster, Cluster)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = self.headers["Authorization"].removeprefix("Bearer ")
        cluster.asked.append((self.command, self.path, token, json.loads(body) if body else None))
        decided = cluster.answer(self.command, self.path)
        if token != cluster.token:
            decided = status(401, "Unauthorized")
        if decided is None:
            if (self.command, self.path) == ("GET", PODS):
                decided = 200, cluster.pod
            elif (self.command, self.path) == ("POST", EVENTS):
                decided = 201, {"kind": "Event"}
            else:
                decided = status(404, "NotFound")
        self.send_response(decided[0])
        self.end_headers()
        self.wfile.write(json.dumps(decided[1]).encode())

    def do_GET(self) -> None:
        self._do()

    def do_POST(self) -> None:
        self._do()

    def log_message(self, *_: object) -> None:
        pass


def status(code: int, reason: str, message: str = "by the test") -> tuple[int, dict[str, Any]]:
    """Give an answer that is an error, as the API server words it."""
    return code, {"kind": "Status", "reason": reason, "message": message, "code": code}
