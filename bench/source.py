"""An S3 server on loopback that gives one file under every key: what downloads are measured against.

A thread per connection; TLS as the standard library does it. It knows HEAD, and GET with one range.

    python -m bench.source --file DUMP --certificates DIRECTORY      prints "http PORT https PORT" when it listens
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import ssl
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from bench.sink import make_certificate

_SEND_BYTES = 1 << 20
_RANGE = re.compile(rb"(?i)\r\nrange: bytes=(\d+)-(\d*)\r\n")


@dataclass(frozen=True)
class Given:
    """The file that is given, and what an agent would have noted of it."""

    fd: int
    size_bytes: int
    crc32: str

    def head(self, first: int, last: int, *, whole: bool) -> bytes:
        lines = [
            "HTTP/1.1 200 OK" if whole else "HTTP/1.1 206 Partial Content",
            f"content-length: {last - first + 1}",
            'etag: "0123456789abcdef0123456789abcdef-7"',
            "last-modified: Thu, 01 Jan 2026 00:00:00 GMT",
            "accept-ranges: bytes",
            "content-type: application/octet-stream",
            "x-amz-meta-verdict: complete",
            f"x-amz-meta-original-size: {self.size_bytes}",
            f"x-amz-meta-crc32: {self.crc32}",
        ]
        if not whole:
            lines.append(f"content-range: bytes {first}-{last}/{self.size_bytes}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _answer_all(sock: socket.socket, given: Given) -> None:
    """Answer the requests on one connection until it ends."""
    asked = b""
    while True:
        while b"\r\n\r\n" not in asked:
            got = sock.recv(1 << 16)
            if not got:
                return
            asked += got
        request, _, asked = asked.partition(b"\r\n\r\n")
        found = _RANGE.search(request + b"\r\n")
        first = int(found[1]) if found else 0
        last = min(int(found[2]), given.size_bytes - 1) if found and found[2] else given.size_bytes - 1
        sock.sendall(given.head(first, last, whole=found is None))
        if request.startswith(b"HEAD "):
            continue
        at = first
        while at <= last:
            if isinstance(sock, ssl.SSLSocket):
                piece = os.pread(given.fd, min(_SEND_BYTES, last + 1 - at), at)
                sock.sendall(piece)
                at += len(piece)
            else:
                at += os.sendfile(sock.fileno(), given.fd, at, last + 1 - at)


def _serve(listener: socket.socket, given: Given, context: ssl.SSLContext | None) -> None:
    def one(sock: socket.socket) -> None:
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with context.wrap_socket(sock, server_side=True) if context else sock as wrapped:
                _answer_all(wrapped, given)
        except OSError:
            pass  # the client has what it wanted

    while True:
        accepted, _ = listener.accept()
        threading.Thread(target=one, args=(accepted,), daemon=True).start()


def run(file: Path, crc32: str, certificates: Path) -> None:
    """Serve on two free ports of 127.0.0.1 until the process is ended."""
    given = Given(os.open(file, os.O_RDONLY), file.stat().st_size, crc32)
    context = make_certificate(certificates)
    ports = {}
    for scheme, tls in (("http", None), ("https", context)):
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        ports[scheme] = listener.getsockname()[1]
        threading.Thread(target=_serve, args=(listener, given, tls), daemon=True).start()
    print(f"http {ports['http']} https {ports['https']}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--crc32", required=True, help="of the file, eight hexadecimal digits")
    parser.add_argument("--certificates", type=Path, required=True)
    asked_for = parser.parse_args()
    try:
        run(asked_for.file, asked_for.crc32, asked_for.certificates)
    except KeyboardInterrupt:
        sys.exit(0)
