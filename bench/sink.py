"""An S3 server on loopback that keeps no bytes: it costs less CPU than any client, so that clients are what is measured.

It sums the CRC32 of what it is sent (0.06 CPU-s/GiB), refuses a wrong x-amz-checksum-crc32 as AWS does, and tells at
/_report what it holds. One thread, one process; TLS runs over memory, so that a record costs no system call of its own.

    python -m bench.sink --certificates DIRECTORY      prints "http PORT https PORT" when it listens
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import selectors
import socket
import ssl
import sys
import time
import urllib.parse
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from isal import isal_zlib

_RECEIVE_BYTES = 256 << 10
_NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@dataclass
class Stored:
    """What is known of one object or part. `first_byte` and `last_byte` are CLOCK_MONOTONIC seconds."""

    size_bytes: int
    crc32: int
    etag: str
    first_byte: float = 0.0
    last_byte: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class Upload:
    key: str
    metadata: dict[str, str]
    checksums: bool
    parts: dict[int, Stored] = field(default_factory=dict)


@dataclass
class Bucket:
    objects: dict[str, Stored] = field(default_factory=dict)
    uploads: dict[str, Upload] = field(default_factory=dict)
    wire_bytes: int = 0
    requests: int = 0
    connections: int = 0
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))


class Connection:
    """One client; `receive` gives decrypted bytes without blocking, None if there are none yet. Raises EOFError."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None, bucket: Bucket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock, self._bucket = sock, bucket
        self._raw = memoryview(bytearray(_RECEIVE_BYTES))
        self._plain = memoryview(bytearray(_RECEIVE_BYTES + 16384))
        self._tls: ssl.SSLObject | None = None
        if context:
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def receive(self) -> memoryview | None:
        if self._tls is None:
            got = self._pull()
            return None if got is None else self._raw[:got]
        filled = 0
        while True:
            try:  # record by record: a read gives no more than one
                while filled < _RECEIVE_BYTES:
                    got = int(self._tls.read(16384, self._plain[filled:]))  # with a buffer it gives a count
                    if not got:
                        raise EOFError
                    filled += got
                return self._plain[:filled]
            except ssl.SSLWantReadError:
                self._flush()
                if filled:
                    return self._plain[:filled]
            except ssl.SSLZeroReturnError:
                raise EOFError from None
            pulled = self._pull()
            if pulled is None:
                return None
            self._incoming.write(self._raw[:pulled])

    def _pull(self) -> int | None:
        try:
            got = self.sock.recv_into(self._raw)
        except BlockingIOError:
            return None
        if not got:
            raise EOFError
        self._bucket.wire_bytes += got
        return got

    def send(self, data: bytes) -> None:
        if self._tls is None:
            self._put(data)
        else:
            self._tls.write(data)
            self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            self._put(self._outgoing.read())

    def _put(self, data: bytes) -> None:
        self.sock.setblocking(True)  # answers are small and fit the socket's buffer
        try:
            self.sock.sendall(data)
        finally:
            self.sock.setblocking(False)


Steps = Generator[None, None, None]


class Body:
    """Takes a request's body as it comes: HTTP chunks and aws-chunked framing are taken off, the rest is summed."""

    def __init__(self, headers: dict[str, str], *, keep: bool) -> None:
        self.size_bytes = self.crc32 = 0
        self.first_byte = self.last_byte = 0.0
        self.kept: list[bytes] | None = [] if keep else None
        self._http_chunked = "chunked" in headers.get("transfer-encoding", "")
        self._left = 0 if self._http_chunked else int(headers.get("content-length", 0))
        self._outer = _Unchunk() if self._http_chunked else None
        aws = headers.get("x-amz-content-sha256", "").startswith("STREAMING-")
        aws = aws or "aws-chunked" in headers.get("content-encoding", "")
        self._inner = _Unchunk() if aws else None

    @property
    def complete(self) -> bool:
        return self._outer.ended if self._outer else self._left == 0

    def take(self, data: memoryview) -> int:
        """Take what belongs to this body; give how many bytes that was."""
        if self._outer:
            return self._outer.feed(data, self._unframed)
        used = min(len(data), self._left)
        self._left -= used
        self._unframed(data[:used])
        return used

    def _unframed(self, data: memoryview) -> None:
        if self._inner:
            self._inner.feed(data, self._payload)
        else:
            self._payload(data)

    def _payload(self, data: memoryview) -> None:
        self.last_byte = time.monotonic()
        self.first_byte = self.first_byte or self.last_byte
        self.size_bytes += len(data)
        self.crc32 = isal_zlib.crc32(data, self.crc32)
        if self.kept is not None:
            self.kept.append(bytes(data))


class _Unchunk:
    """Takes off HTTP's chunked framing, of which aws-chunked is a dialect. Source: RFC 9112, section 7.1."""

    def __init__(self) -> None:
        self.ended = False
        self._line = b""
        self._left = 0
        self._after_chunk = False
        self._trailer = False

    def feed(self, data: memoryview, payload: object) -> int:
        assert callable(payload)
        at = 0
        while at < len(data) and not self.ended:
            if self._left:
                piece = data[at : at + self._left]
                payload(piece)
                at += len(piece)
                self._left -= len(piece)
                self._after_chunk = self._left == 0
                continue
            end = bytes(data[at : at + 4096]).find(b"\n")
            if end < 0:
                self._line += bytes(data[at:])
                return len(data)
            line = (self._line + bytes(data[at : at + end])).rstrip(b"\r")
            self._line = b""
            at += end + 1
            if self._trailer:
                self.ended = not line
            elif self._after_chunk:
                self._after_chunk = False
            else:
                self._left = int(line.split(b";")[0], 16)
                self._trailer = self._left == 0
        return at


def serve(connection: Connection, bucket: Bucket) -> Steps:
    """Answer requests on one connection; yields whenever there is nothing to read yet."""
    rest = b""
    while True:
        head = bytearray(rest)
        while (end := head.find(b"\r\n\r\n")) < 0:
            data = connection.receive()
            if data is None:
                yield
            else:
                head += data
        rest = bytes(head[end + 4 :])
        lines = bytes(head[:end]).decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
        }
        body = Body(headers, keep=method == "POST")  # XML
        if headers.get("expect", "").lower() == "100-continue":
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        rest = rest[body.take(memoryview(rest)) :]
        while not body.complete:
            data = connection.receive()
            if data is None:
                yield
                continue
            rest = bytes(data[body.take(data) :])
        bucket.requests += 1
        status, more, content = answer(bucket, method, target, headers, body)
        if "content-length" not in more:
            more = {**more, "content-length": str(len(content))}
        told = "".join(f"{name}: {value}\r\n" for name, value in more.items())
        connection.send(f"HTTP/1.1 {status}\r\n{told}\r\n".encode() + (b"" if method == "HEAD" else content))


Answer = tuple[str, dict[str, str], bytes]


def _error(status: str, code: str) -> Answer:
    return status, {"content-type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()


def _xml(root: str, inside: str, **headers: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} {_NS}>{inside}</{root}>'
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return "200 OK", {"content-type": "application/xml", **more}, text.encode()


def answer(bucket: Bucket, method: str, target: str, headers: dict[str, str], body: Body) -> Answer:
    """Do what the request asks. Source: S3 API Reference."""
    path, _, query_text = target.partition("?")
    query = dict(urllib.parse.parse_qsl(query_text, keep_blank_values=True))
    if path == "/_report":
        return "200 OK", {"content-type": "application/json"}, json.dumps(_report(bucket)).encode()
    if path == "/_forget":
        bucket.objects.clear()
        bucket.uploads.clear()
        bucket.wire_bytes = bucket.requests = bucket.connections = 0
        return "200 OK", {}, b""
    key = urllib.parse.unquote(path.lstrip("/").partition("/")[2])
    if not key:
        return _on_bucket(bucket, query)
    if "uploadId" in query:
        return _on_upload(bucket, method, key, query, headers, body)
    if method == "POST" and "uploads" in query:
        upload_id = f"upload{next(bucket.numbers)}"
        checksums = "x-amz-checksum-algorithm" in headers
        bucket.uploads[upload_id] = Upload(key, _metadata(headers), checksums)
        more = {}
        if checksums:
            more = {
                "x_amz_checksum_algorithm": headers["x-amz-checksum-algorithm"],
                "x_amz_checksum_type": headers.get("x-amz-checksum-type", "COMPOSITE"),
            }
        return _xml(
            "InitiateMultipartUploadResult",
            f"<Bucket>b</Bucket><Key>k</Key><UploadId>{upload_id}</UploadId>",
            **more,
        )
    if method == "PUT":
        if headers.get("if-none-match") == "*" and key in bucket.objects:
            return _error("412 Precondition Failed", "PreconditionFailed")
        if _damaged(headers, body):
            return _error("400 Bad Request", "BadDigest")
        stored = bucket.objects[key] = _stored(bucket, body, _metadata(headers))
        return "200 OK", {"ETag": f'"{stored.etag}"'}, b""
    if method in ("HEAD", "GET"):
        found = bucket.objects.get(key)
        if found is None:
            return _error("404 Not Found", "NoSuchKey")
        more = {
            "ETag": f'"{found.etag}"',
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
            "content-length": str(found.size_bytes),
            **{f"x-amz-meta-{name}": value for name, value in found.metadata.items()},
        }
        return "200 OK", more, b""
    bucket.objects.pop(key, None)
    return "204 No Content", {}, b""


def _on_bucket(bucket: Bucket, query: dict[str, str]) -> Answer:
    if "uploads" in query:
        found = "".join(
            f"<Upload><Key>{upload.key}</Key><UploadId>{upload_id}</UploadId>"
            "<Initiated>2026-01-01T00:00:00.000Z</Initiated></Upload>"
            for upload_id, upload in bucket.uploads.items()
            if upload.key.startswith(query.get("prefix", ""))
        )
        return _xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{found}")
    if "location" in query:
        return _xml("LocationConstraint", "")
    found = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;{stored.etag}&quot;</ETag><Size>{stored.size_bytes}</Size></Contents>"
        for key, stored in bucket.objects.items()
        if key.startswith(query.get("prefix", ""))
    )
    return _xml("ListBucketResult", f"<IsTruncated>false</IsTruncated>{found}")


def _on_upload(
    bucket: Bucket, method: str, key: str, query: dict[str, str], headers: dict[str, str], body: Body
) -> Answer:
    upload = bucket.uploads.get(query["uploadId"])
    if upload is None:
        return _error("404 Not Found", "NoSuchUpload")
    if method == "PUT":
        if _damaged(headers, body):
            return _error("400 Bad Request", "BadDigest")
        part = upload.parts[int(query["partNumber"])] = _stored(bucket, body, {})
        return "200 OK", {"ETag": f'"{part.etag}"'}, b""
    if method == "DELETE":
        del bucket.uploads[query["uploadId"]]
        return "204 No Content", {}, b""
    if method == "GET":
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size_bytes}</Size></Part>"
            for number, part in sorted(upload.parts.items())
        )
        return _xml("ListPartsResult", f"<IsTruncated>false</IsTruncated>{parts}")
    if headers.get("if-none-match") == "*" and key in bucket.objects:
        return _error("412 Precondition Failed", "PreconditionFailed")
    named = [
        int(entry.text or 0)
        for entry in ET.fromstring(b"".join(body.kept or [])).iter()
        if entry.tag.endswith("PartNumber")
    ]
    if any(number not in upload.parts for number in named):
        return _error("400 Bad Request", "InvalidPart")
    crc32 = size_bytes = 0
    for number in sorted(named):
        part = upload.parts[number]
        crc32 = isal_zlib.crc32_combine(crc32, part.crc32, part.size_bytes)
        size_bytes += part.size_bytes
    first = min(upload.parts[number].first_byte for number in named)
    last = max(upload.parts[number].last_byte for number in named)
    etag = f"{next(bucket.numbers):032x}-{len(named)}"
    bucket.objects[key] = Stored(size_bytes, crc32, etag, first, last, upload.metadata)
    del bucket.uploads[query["uploadId"]]
    return _xml("CompleteMultipartUploadResult", f"<Key>k</Key><ETag>&quot;{etag}&quot;</ETag>")


def _stored(bucket: Bucket, body: Body, metadata: dict[str, str]) -> Stored:
    etag = f"{next(bucket.numbers):032x}-0"  # the form of an ETag that is no MD5
    return Stored(body.size_bytes, body.crc32, etag, body.first_byte, body.last_byte, metadata)


def _metadata(headers: dict[str, str]) -> dict[str, str]:
    return {name[11:]: value for name, value in headers.items() if name.startswith("x-amz-meta-")}


def _damaged(headers: dict[str, str], body: Body) -> bool:
    told = headers.get("x-amz-checksum-crc32")
    return told is not None and int.from_bytes(base64.b64decode(told), "big") != body.crc32


def _report(bucket: Bucket) -> dict[str, object]:
    return {
        "wire_bytes": bucket.wire_bytes,
        "requests": bucket.requests,
        "connections": bucket.connections,
        "objects": {
            key: {
                "size_bytes": stored.size_bytes,
                "crc32": stored.crc32,
                "first_byte": stored.first_byte,
                "last_byte": stored.last_byte,
            }
            for key, stored in bucket.objects.items()
        },
    }


def make_certificate(directory: Path) -> ssl.SSLContext:
    """Write `ca.pem`, a certificate for 127.0.0.1 and localhost that clients trust, and give a server's context."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=30))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (directory / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "server.pem").write_bytes(pem + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "server.pem")
    return context


def run(certificates: Path) -> None:
    """Serve on two free ports of 127.0.0.1 until the process is ended."""
    context = make_certificate(certificates)
    bucket = Bucket()
    poll = selectors.EpollSelector()
    ports = {}
    for scheme, tls in (("http", None), ("https", context)):
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener.setblocking(False)
        ports[scheme] = listener.getsockname()[1]
        poll.register(listener, selectors.EVENT_READ, (listener, tls))
    print(f"http {ports['http']} https {ports['https']}", flush=True)
    while True:
        for ready, _ in poll.select():
            if isinstance(ready.data, tuple):
                listener, tls = ready.data
                accepted, _ = listener.accept()
                bucket.connections += 1
                connection = Connection(accepted, tls, bucket)
                steps = serve(connection, bucket)
                poll.register(accepted, selectors.EVENT_READ, steps)
            else:
                try:
                    next(ready.data)
                except (EOFError, OSError, StopIteration, ssl.SSLError):
                    sock = ready.fileobj
                    poll.unregister(sock)
                    assert isinstance(sock, socket.socket)
                    sock.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--certificates", type=Path, required=True)
    try:
        run(parser.parse_args().certificates)
    except KeyboardInterrupt:
        sys.exit(0)
