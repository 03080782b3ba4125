"""A fake S3 store at the end of a long line that holds one dump and answers reads in its own way."""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PIECE_BYTES = 1 << 18


@dataclass
class FarStore:
    """`round_trip_s` before each answer, `piece_s` before each 256 KiB of a body.

    `way`: "" as S3 does; "no ranges"; "no range end" (gives all from the range's start on); "short" (ends a body of
    more than a MiB in its middle, three times); "replaced" (another object from the third range on, and no
    conditions); "endless" (no length, and bytes without end).
    """

    content: bytes
    round_trip_s: float = 0.03
    piece_s: float = 0.0
    way: str = ""
    port: int = 0
    ranges: list[tuple[int, int]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    cut: int = 0
    most_at_once: int = 0
    _at_once: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "S3_BUCKET": "dumps",
            "S3_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "far",
            "AWS_SECRET_ACCESS_KEY": "farfarfarfar",
        }

    @contextmanager
    def serving(self) -> Iterator[FarStore]:
        far = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                far._answer(self, body=False)

            def do_GET(self) -> None:
                far._answer(self, body=True)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        time.sleep(self.round_trip_s)
        self.agents.add(request.headers.get("User-Agent", ""))
        if not request.path.startswith("/dumps/x.hprof"):
            request.send_response(404)
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        first, last = 0, len(self.content) - 1
        ranged = asked is not None and self.way != "no ranges"
        if asked and ranged:
            first = int(asked[1])
            last = min(int(asked[2] or last), last) if self.way != "no range end" else last
        with self._lock:
            if body:
                self.ranges.append((first, last))
            content, etag = self.content, "a" * 32
            if self.way == "replaced" and len(self.ranges) > 3:
                content, etag = self.content[::-1], "b" * 32
        request.send_response(206 if ranged else 200)
        request.send_header("ETag", f'"{etag}"')
        request.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        request.send_header("x-amz-meta-original-size", str(len(self.content)))
        request.send_header("x-amz-meta-crc32", f"{zlib.crc32(self.content):08x}")
        request.send_header("x-amz-meta-verdict", "complete")
        if ranged:
            request.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content)}")
        if self.way == "endless" and body and last - first > 1:
            request.send_header("Connection", "close")
        else:
            request.send_header("Content-Length", str(last + 1 - first))
        request.end_headers()
        if body:
            self._send(request, content[first : last + 1])

    def _send(self, request: BaseHTTPRequestHandler, content: bytes) -> None:
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
            if self.way == "short" and len(content) > 1 << 20 and self.cut < 3:
                self.cut += 1
                content = content[: len(content) // 2]
                request.close_connection = True
        try:
            for at in range(0, len(content), _PIECE_BYTES):
                if self.piece_s:
                    time.sleep(self.piece_s)
                request.wfile.write(content[at : at + _PIECE_BYTES])
            while self.way == "endless" and len(content) > 1:
                request.wfile.write(bytes(_PIECE_BYTES))
                request.close_connection = True
        except OSError:
            request.close_connection = True  # the reader went away
        finally:
            with self._lock:
                self._at_once -= 1
