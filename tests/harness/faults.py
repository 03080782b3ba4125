"""A proxy in front of a store (plain http) that breaks requests and answers the ways that networks and stores do.

    with FaultProxy(swift, once(Fault.RESET_AFTER, "UploadPart")) as proxy:
        store_of(proxy.server, bucket)          # its first part is stored, and its answer lost

What breaks is decided request by request by a plan. A random plan is given by its seed, so a run can be replayed;
with several connections at once the order of requests, and so the run, can differ all the same.
"""

from __future__ import annotations

import enum
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from email.utils import formatdate
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

from tests.harness.stores.server import HOST, StoreServer

_TIMEOUT_S = 120.0
_UPLOAD_ID = re.compile(rb"<UploadId>(.+?)</UploadId>")


class Fault(enum.Enum):
    """What happens to one request."""

    NONE = "passed on untouched"
    DELAY = "passed on a little later"
    RESET_BEFORE = "connection reset, nothing reached the store"
    RESET_AFTER = "carried out by the store, connection reset instead of the answer"
    CUT_BODY = "the store got half of the body, then both connections are reset"
    DAMAGE_BODY = "one bit of the body is flipped on its way"
    TRUNCATE_ANSWER = "half of the answer, then the connection is closed"
    HANG = "carried out, and no answer for a long time"
    ERROR_500 = "500 InternalError, nothing reached the store"
    ERROR_500_AFTER = "carried out, and answered with 500 InternalError"
    SLOW_DOWN = "503 SlowDown, nothing reached the store"
    KEY_REVOKED = "403 InvalidAccessKeyId, nothing reached the store"
    CLOCK_SKEWED = "403 RequestTimeTooSkewed from an hour ago, nothing reached the store"
    EXPIRED_TOKEN = "400 ExpiredToken, nothing reached the store"
    WRONG_REGION = "400 AuthorizationHeaderMalformed that names eu-central-1, nothing reached the store"
    ERROR_IN_200 = "200 with an error in the body, nothing reached the store"


@dataclass(frozen=True, slots=True)
class Request:
    """What a plan may look at; `operation` is the S3 API's name."""

    operation: str
    key: str
    body_bytes: int
    upload_id: str = ""
    session_token: str = ""


Plan = Callable[[Request], Fault]


def once(fault: Fault, *operations: str) -> Plan:
    """Break the first request of these operations (of any, if none is named), and no other."""
    return times(1, fault, *operations)


def times(count: int, fault: Fault, *operations: str) -> Plan:
    """Break the first `count` requests of these operations, and no other."""
    lock = threading.Lock()
    left = count

    def plan(request: Request) -> Fault:
        nonlocal left
        with lock:
            if left > 0 and (not operations or request.operation in operations):
                left -= 1
                return fault
            return Fault.NONE

    return plan


def always(fault: Fault, *operations: str) -> Plan:
    """Break every request of these operations."""
    return lambda request: fault if not operations or request.operation in operations else Fault.NONE


def at_random(seed: int, share: float, faults: Collection[Fault]) -> Plan:
    """Break this share (0 to 1) of all requests by one of `faults`. The same seed gives the same choices."""
    lock = threading.Lock()
    dice = random.Random(seed)
    choices = sorted(faults, key=lambda fault: fault.name)

    def plan(request: Request) -> Fault:
        with lock:
            broken, which = dice.random() < share, dice.choice(choices)
        return which if broken else Fault.NONE

    return plan


class FaultProxy:
    """Listens from its creation to the end of its `with` block; `plan` may be replaced at any time.

    `log` holds every request with what was done to it, oldest first; `begun` the id of every multipart upload that
    the store began, whether its answer arrived or not.
    """

    def __init__(
        self, upstream: StoreServer, plan: Plan | None = None, *, delay_s: float = 0.3, hang_s: float = 30
    ) -> None:
        if upstream.ca_bundle is not None:
            raise ValueError("the proxy speaks no TLS: put it before the store's http port")
        self.plan = plan or always(Fault.NONE)
        self.log: list[tuple[Request, Fault]] = []
        self.begun: set[str] = set()
        self._delay_s = delay_s
        self._hang_s = hang_s
        self._upstream_port = urlsplit(upstream.endpoint_url).port
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0), backlog=128)
        self.server = replace(
            upstream,
            name=f"{upstream.name}-faulty",
            endpoint_url=f"http://{HOST}:{self._listener.getsockname()[1]}",
        )
        self._acceptor = threading.Thread(target=self._accept, name="faults", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        # close() alone does not wake a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
                except OSError:
                    pass  # closed already
        self._acceptor.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), name="faults", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Serve one request and close: whoever has more to ask connects again."""
        client.settimeout(_TIMEOUT_S)
        with self._lock:
            self._open.add(client)
        try:
            self._answer(client)
        except OSError:
            pass  # either side went away, as they do
        finally:
            with self._lock:
                self._open.discard(client)
            client.close()

    def _answer(self, client: socket.socket) -> None:
        head, body = _read_request(client)
        request = _parse(head, body)
        fault = self.plan(request)
        with self._lock:
            self.log.append((request, fault))
        if fault in _CANNED:
            status, content = _CANNED[fault]
            skew_s = -3600 if fault is Fault.CLOCK_SKEWED else 0
            client.sendall(_response(status, content, now=time.time() + skew_s))
        elif fault is Fault.RESET_BEFORE:
            _reset(client)
        elif fault is Fault.CUT_BODY:
            self._ask_store(head, body[: len(body) // 2], cut=True)
            _reset(client)
        else:
            if fault is Fault.DELAY:
                self._closing.wait(self._delay_s)
            if fault is Fault.DAMAGE_BODY and body:
                middle = len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
            answer = self._ask_store(head, body)
            if request.operation == "CreateMultipartUpload" and (began := _UPLOAD_ID.search(answer)):
                self.begun.add(began[1].decode())
            if fault is Fault.RESET_AFTER:
                _reset(client)
            elif fault is Fault.HANG:
                self._closing.wait(self._hang_s)
                _reset(client)
            elif fault is Fault.ERROR_500_AFTER:
                client.sendall(_response("500 Internal Server Error", _error("InternalError")))
            elif fault is Fault.TRUNCATE_ANSWER:
                client.sendall(answer[: _half(answer)])
            else:
                client.sendall(answer)

    def _ask_store(self, head: bytes, body: bytes, *, cut: bool = False) -> bytes:
        """Give the store's whole answer; with `cut`, leave after what there is of the body, and give nothing."""
        with socket.create_connection((HOST, self._upstream_port), timeout=_TIMEOUT_S) as store:
            store.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + body)
            if cut:
                time.sleep(0.05)  # so that the store has begun to read it
                _reset(store)
                return b""
            return b"".join(iter(lambda: store.recv(1 << 20), b""))


def _read_request(client: socket.socket) -> tuple[bytes, bytes]:
    """Give the request's head, ready to be passed on, and its body. Raises ConnectionError when the client is gone."""
    read = b""
    while b"\r\n\r\n" not in read:
        read += _receive(client)
    head, _, body = read.partition(b"\r\n\r\n")
    # One request a connection, and no "100 Continue" from the store: this proxy has said it.
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"expect:", b"connection:"))]
    expected = len(kept) < len(head.split(b"\r\n")) and b"100-continue" in head.lower()
    fields = dict(line.lower().split(b":", 1) for line in kept[1:])
    if b"transfer-encoding" in fields:
        raise ValueError("a chunked request: no agent of ours sends one")
    length = int(fields.get(b"content-length", b"0"))
    if expected and len(body) < length:
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    chunks = [body]
    missing = length - len(body)
    while missing > 0:
        chunks.append(_receive(client))
        missing -= len(chunks[-1])
    return b"\r\n".join(kept) + b"\r\n\r\n", b"".join(chunks)


def _receive(client: socket.socket) -> bytes:
    chunk = client.recv(1 << 20)
    if not chunk:
        raise ConnectionError("the client is gone")
    return chunk


def _parse(head: bytes, body: bytes) -> Request:
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
    address = urlsplit(target)
    query = parse_qs(address.query, keep_blank_values=True)
    _, _, key = address.path.lstrip("/").partition("/")
    token = re.search(rb"(?i)^x-amz-security-token: *(\S+)", head, re.MULTILINE)
    (upload_id,) = query.get("uploadId", [""])
    return Request(
        _operation(method, query.keys(), bool(key)),
        key,
        len(body),
        upload_id,
        token[1].decode() if token else "",
    )


def _operation(method: str, query: Collection[str], has_key: bool) -> str:
    """Name a request as the S3 API does. Source: S3 API Reference, the request syntax of each operation."""
    if not has_key:
        return "ListMultipartUploads" if "uploads" in query else f"{method} bucket"
    if "uploads" in query:
        return "CreateMultipartUpload"
    if "uploadId" in query:
        return {
            "PUT": "UploadPart",
            "POST": "CompleteMultipartUpload",
            "DELETE": "AbortMultipartUpload",
            "GET": "ListParts",
        }[method]
    names = {"PUT": "PutObject", "GET": "GetObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}
    return names.get(method, method)


def _error(code: str, more: str = "") -> bytes:
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>by the fault proxy</Message>{more}</Error>'
    ).encode()


def _response(status: str, content: bytes, *, now: float | None = None) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nDate: {formatdate(now, usegmt=True)}\r\nContent-Type: application/xml\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + content


_CANNED = {
    Fault.ERROR_500: ("500 Internal Server Error", _error("InternalError")),
    Fault.SLOW_DOWN: ("503 Slow Down", _error("SlowDown")),
    Fault.KEY_REVOKED: ("403 Forbidden", _error("InvalidAccessKeyId")),
    Fault.CLOCK_SKEWED: ("403 Forbidden", _error("RequestTimeTooSkewed")),
    Fault.EXPIRED_TOKEN: ("400 Bad Request", _error("ExpiredToken")),
    Fault.WRONG_REGION: (
        "400 Bad Request",
        _error("AuthorizationHeaderMalformed", "<Region>eu-central-1</Region>"),
    ),
    Fault.ERROR_IN_200: ("200 OK", _error("InternalError")),
}


def _half(answer: bytes) -> int:
    """Give where to cut an answer: in the middle of its body, of its head if it has no body."""
    head_bytes = answer.find(b"\r\n\r\n") + 4
    return head_bytes + (len(answer) - head_bytes) // 2 if len(answer) > head_bytes else head_bytes // 2


def _reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN, so that the other side sees "connection reset". Source: socket(7), SO_LINGER."""
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    except OSError:
        pass  # closed already
