"""A webhook on loopback, for daemons that notify."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.harness.stores.server import HOST


class Webhook(ThreadingHTTPServer):
    """Refuses the first `refusals` messages and keeps the others; while it `hangs`, it takes one and never answers."""

    daemon_threads = True

    def __init__(self, path: str = "/hook", *, refusals: int = 0) -> None:
        super().__init__((HOST, 0), _Hook)
        self.url = f"http://{HOST}:{self.server_address[1]}{path}"
        self.bodies: list[bytes] = []
        self.asked, self.refusals = 0, refusals
        self.hangs = False
        self.over = threading.Event()


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        hook = self.server
        assert isinstance(hook, Webhook)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hook.asked += 1
        if hook.hangs:
            hook.over.wait(120)
            return
        taken = hook.asked > hook.refusals
        if taken:
            hook.bodies.append(body)
        self.send_response(200 if taken else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(hook: Webhook) -> Iterator[Webhook]:
    """Let it answer while the block runs."""
    threading.Thread(target=hook.serve_forever, daemon=True).start()
    try:
        yield hook
    finally:
        hook.over.set()
        hook.shutdown()
        hook.server_close()
