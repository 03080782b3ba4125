"""What an uploader's connection does on slow lines, and when the store answers before it has everything."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.errors import Refused
from dumpagent.settings import S3
from dumpagent.store.protocol import Body
from dumpagent.store.s3.profile import Digest, Profile
from dumpagent.store.s3.store import S3Store
from dumpagent.store.s3.tls import PatientSocket
from tests.harness.stores.certificates import make_certificates

ERROR = b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>over</Message></Error>"
ANSWER = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (
    len(ERROR),
    ERROR,
)


@pytest.fixture
def hasty_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A store that answers at once that the credentials are over, and hangs up without reading the body."""
    made = make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(made.key_and_certificate))
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):  # the listener is shut down at the end
            while True:
                connection, _ = listener.accept()
                with (
                    contextlib.suppress(OSError),
                    context.wrap_socket(connection, server_side=True) as secured,
                ):
                    head = b""
                    while b"\r\n\r\n" not in head:
                        head += secured.recv(1000)
                    secured.sendall(ANSWER)
                    time.sleep(0.1)  # or the reset could be faster than the answer

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    for name, value in {
        "AWS_CA_BUNDLE": str(made.ca),
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def test_an_answer_before_the_end_of_the_body_is_heard(hasty_server: str) -> None:
    """The standard library's socket meets the reset first: to the agent the store was out of reach."""
    content = bytes(32 << 20)
    store = S3Store(
        S3(bucket="dumps", endpoint_url=hasty_server), attempts=1, profile=Profile(digest=Digest.CRC32)
    )
    with pytest.raises(Refused, match="ExpiredToken"):
        store.send_part("k", "upload", 1, Body(content, zlib.crc32(content)))


def a_line(kind: type[socket.socket]) -> tuple[socket.socket, socket.socket]:
    """Give the two ends of a line that holds next to nothing; the first one loses patience after a second."""
    first, reader = socket.socketpair()
    writer = kind(first.family, first.type, first.proto, fileno=first.detach())
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.settimeout(1)
    return writer, reader


@pytest.mark.parametrize(("kind", "arrives"), [(PatientSocket, True), (socket.socket, False)])
def test_a_line_that_is_slow_is_not_dead(kind: type[socket.socket], *, arrives: bool) -> None:
    writer, reader = a_line(kind)
    received = bytearray()

    def read_slowly() -> None:
        while piece := reader.recv(16 << 10):
            received.extend(piece)
            time.sleep(0.1)

    thread = threading.Thread(target=read_slowly, daemon=True)
    content = bytes(range(256)) * (1 << 10)
    with reader:
        thread.start()
        with writer:
            if arrives:
                writer.sendall(content)
            else:
                with pytest.raises(TimeoutError):
                    writer.sendall(content)
        thread.join(10)
    assert (bytes(received) == content) is arrives


def test_a_line_that_takes_nothing_is_dead() -> None:
    writer, reader = a_line(PatientSocket)
    with reader, writer, pytest.raises(TimeoutError):
        writer.sendall(bytes(1 << 20))


def test_no_bytes_ask_the_kernel_nothing() -> None:
    writer, reader = a_line(PatientSocket)
    with writer:
        reader.close()
        writer.sendall(b"")
        with pytest.raises(BrokenPipeError):
            writer.sendall(b"x")
