"""A fake S3 store in this process, with the ways of stores that cannot be had here switched on one by one.

Each quirk plays what a public report tells of; `docs/stores.md` names the stores. Objects are in memory.
"""

from __future__ import annotations

import base64
import calendar
import hashlib
import os
import re
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.harness.stores.server import HOST, StoreServer

ACCESS_KEY, SECRET_KEY = "AKIAFAKESTORE0000001", "fakestoresecretfakestoresecretfakestore1"
BUCKET = "dumps"
# What a request is, by which `refuses` names it: everything but PUT, UploadPart and Complete.
OPTIONAL = (
    "list-uploads",
    "list-parts",
    "condition",
    "checksum",
    "class",
    "tags",
    "head",
    "list",
    "delete",
    "abort",
)
CODES = {
    500: "InternalError",
    501: "NotImplemented",
    405: "MethodNotAllowed",
    400: "InvalidRequest",
    403: "AccessDenied",
    404: "NoSuchKey",
    411: "MissingContentLength",
    415: "UnsupportedMediaType",
    422: "UnprocessableEntity",
    505: "HTTPVersionNotSupported",
    510: "NotExtended",
}
_EXPLICIT_DENY = (
    'User: arn:aws:sts::123456789012:assumed-role/x is not authorized to perform: s3:PutObject on resource: "arn:aws:s3:::b/k" '
    "with an explicit deny in a resource-based policy"
)
_NGINX_413 = (
    "<html><head><title>413 Request Entity Too Large</title></head><body><h1>413</h1><hr>nginx</body></html>"
)


@dataclass(frozen=True, slots=True)
class Ways:
    """How the store differs from S3; the defaults are S3's ways. Bytes, seconds."""

    equal_parts: bool = False  # Cloudflare R2
    sse_required: bool = False  # a bucket's policy
    max_body_bytes: int = 0  # nginx before the store
    drops_multipart_metadata: bool = False  # older SeaweedFS
    drops_metadata: bool = False
    renames_metadata: bool = False  # Azure behind S3Proxy
    asks_for_digest: bool = False  # a bucket with Object Lock
    verifies_digests: bool = True
    seen_after_s: float = 0  # eventual consistency
    late_complete_s: float = 0  # Complete gets no answer, and the object appears so much later
    ignores_conditions: str = ""  # "complete" (Ceph RGW 16) or "all"
    virtual_only: bool = False  # Alibaba OSS, Tencent COS
    keeps_everything: bool = False  # Object Lock, credentials without s3:DeleteObject
    part_min_bytes: int = 0  # 5 MiB on S3
    part_count: int = 10_000  # 1,000 on Swift
    weak_etags: bool = False  # nginx that compresses on the way
    lacks_headers: tuple[str, ...] = ()  # answers come without these
    chunked: bool = False  # answers have no Content-Length
    lower_case: bool = False  # names of headers, as HTTP/2 gateways give them
    http_1_0: bool = False  # and a connection for each request
    hurries_413: bool = False  # a proxy that refuses a large body before it has come, and closes
    slow_down: int = 0  # so many requests are answered 503 SlowDown first, with Retry-After
    retry_after_s: int = 0
    slow_down_status: int = 503
    complete_says: str = ""  # 200 with "error", "nothing", "blanks" before the XML, or "html"; the object is made but for "error"
    pages: int = 0  # entries per page of a listing
    ignores_list_v2: bool = False  # answers as to version 1
    moved_to: tuple[int, str] | None = None  # status and Location of every answer
    html: tuple[int, str] | None = None  # status and page of every answer: a portal, a wrong port
    clock_off_s: float = (
        0  # the store's clock is ahead of this machine's by so much, and it checks signatures by it
    )
    signed_payload_only: bool = False  # no UNSIGNED-PAYLOAD and no trailers
    ignores_start_after: bool = False
    unsorted: bool = False  # S3 Express One Zone's directory buckets
    encodes_keys: bool = False  # keys of listings are URL-encoded where that was asked for
    component_max_bytes: int = 0  # stores above a file system: 255
    no_object_below_an_object: bool = False  # the same stores: `a` and `a/b` cannot both be
    metadata_max_bytes: int = 0  # 2,048 on S3
    random_etags: bool = False  # objects encrypted with KMS
    ignores_ranges: bool = False
    hides_missing: bool = False  # credentials without s3:ListBucket: 403 where nothing is
    conflicts: int = 0  # so many conditional requests are answered 409 first
    passing: tuple[int, str, int] | None = (
        None  # status, code ("" with an HTML page) and how often, of each request
    )
    part_max_bytes: int = 0  # EntityTooLarge with 400
    lacks_multipart: bool = False
    resets: int = 0  # so many bodies are cut off half-way by a reset
    hangs_up: bool = False  # each connection is closed after its answer, which does not say so
    refuses: dict[str, int] = field(default_factory=dict)  # what of OPTIONAL -> status
    wrong_key: tuple[int, str] = (
        403,
        "InvalidAccessKeyId",
    )  # the answer to every key but the one that counts
    put_status: tuple[int, str, str] | None = None  # status, code and message of every PUT


@dataclass
class StoredBytes:
    """One object."""

    data: bytes
    metadata: dict[str, str]
    storage_class: str
    at: float
    headers: dict[str, str]
    versions: int = 1


@dataclass
class _Upload:
    key: str
    metadata: dict[str, str]
    storage_class: str
    headers: dict[str, str]
    at: float
    parts: dict[int, bytes] = field(default_factory=dict)
    etags: dict[int, str] = field(default_factory=dict)


@dataclass
class FakeStore:
    """The state of a running fake. `access_key` is the only one that it takes; tests may change it."""

    ways: Ways
    access_key: str = ACCESS_KEY
    endpoint_url: str = ""
    objects: dict[str, StoredBytes] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    began: int = 0
    refused_busy: int = 0
    completed: int = 0
    met: dict[str, int] = field(
        default_factory=dict
    )  # how often something was answered in a way of a first time
    buckets: set[str] = field(default_factory=set)  # as they stood in paths
    longest_pause_s: float = 0  # between two reads of one body

    @property
    def server(self) -> StoreServer:
        return StoreServer("fake", self.endpoint_url, ACCESS_KEY, SECRET_KEY)

    @property
    def dumps(self) -> dict[str, bytes]:
        """Give the objects that are none of the agent's own."""
        with self.lock:
            return {key: found.data for key, found in self.objects.items() if ".dumpagent/" not in key}

    @property
    def own(self) -> list[str]:
        """Give the keys of the agent's own objects."""
        with self.lock:
            return sorted(key for key in self.objects if ".dumpagent/" in key)


@contextmanager
def fake_store(
    ways: Ways | None = None, *, host: str = HOST, tls: ssl.SSLContext | None = None
) -> Iterator[FakeStore]:
    """Run a fake store on loopback with an empty bucket `dumps`; it ends with the block.

    It speaks TLS with the certificate of `tls`, which tests may change.
    """
    store = FakeStore(ways or Ways())
    handler = type("Handler", (_Handler,), {"store": store})
    kind = _Server6 if ":" in host else _Server
    server = kind((host, 0), handler)
    named = f"[{host}]" if ":" in host else host
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    store.endpoint_url = f"{'https' if tls else 'http'}://{named}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


class _Server6(_Server):
    address_family = socket.AF_INET6


_PAGE_502 = "<html><head><title>502 Bad Gateway</title></head><body><hr>nginx<br></body></html>"


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    store: FakeStore
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes | str = b"", headers: dict[str, str] | None = None) -> None:
        ways = self.store.ways
        data = body.encode() if isinstance(body, str) else body
        self.protocol_version = "HTTP/1.0" if ways.http_1_0 else "HTTP/1.1"
        self.send_response(status)
        sent = {"Content-Length": str(len(data)), **(headers or {})}
        if ways.chunked and self.command != "HEAD" and status not in (204, 304):
            del sent["Content-Length"]
            sent["Transfer-Encoding"] = "chunked"
        for name, value in sent.items():
            if name in ways.lacks_headers:
                continue
            if name == "ETag" and ways.weak_etags:
                value = f"W/{value}"
            self.send_header(name.lower() if ways.lower_case else name, value)
        self.end_headers()
        if ways.http_1_0:
            self.close_connection = True
        if self.command == "HEAD":
            return
        if "Transfer-Encoding" in sent:
            data = (b"%x\r\n%s\r\n" % (len(data), data) if data else b"") + b"0\r\n\r\n"
        self.wfile.write(data)

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query, keep_blank_values=True)
        if self.hurries():
            return
        length = int(self.headers.get("Content-Length") or 0)
        if length > 1000 and self.meets("reset", self.store.ways.resets):
            self.read_body(length // 2)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.data = self.read_body(length)
        host = self.headers.get("Host", "").split(":")[0]
        path = unquote(url.path)[1:]
        self.in_host = host.startswith(f"{BUCKET}.")
        if self.in_host:
            self.key = path
        else:
            bucket, _, self.key = path.partition("/")
            self.store.buckets.add(bucket)
        with self.store.lock:
            self.store.requests.append(f"{self.command} {self.what()} {self.key}")
        try:
            self.dispatch()
        except _Refused as refused:
            text = f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message or refused.code)}</Message></Error>"
            self.answer(refused.status, text)
        except ConnectionAbortedError:
            self.close_connection = True
        if self.store.ways.hangs_up:
            self.close_connection = True

    def meets(self, what: str, times: int) -> bool:
        """Say whether this is one of the first `times` that this is asked for `what`."""
        with self.store.lock:
            met = self.store.met[what] = self.store.met.get(what, 0) + 1
        return met <= times

    def date_time_string(self, timestamp: float | None = None) -> str:
        return super().date_time_string((timestamp or time.time()) + self.store.ways.clock_off_s)

    def hurries(self) -> bool:
        """Refuse a large body before it has come, if that is this store's way; say whether it was."""
        ways = self.store.ways
        too_large = int(self.headers.get("Content-Length") or 0) > ways.max_body_bytes
        if not ways.hurries_413 or self.command not in ("PUT", "POST") or not too_large:
            return False
        self.answer(413, _NGINX_413, {"Content-Type": "text/html", "Connection": "close"})
        self.wfile.flush()
        self.close_connection = True
        return True

    def read_body(self, left: int) -> bytes:
        """Give the body, and note the longest pause in which nothing of it came."""
        data, last = bytearray(), time.monotonic()
        while left and (got := self.rfile.read1(left)):
            data += got
            left -= len(got)
            now = time.monotonic()
            self.store.longest_pause_s, last = max(self.store.longest_pause_s, now - last), now
        return bytes(data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815 - the names that http.server asks for

    def what(self) -> str:
        for name, operation in (
            ("uploads", "create" if self.command == "POST" else "list-uploads"),
            ("partNumber", "part"),
            ("uploadId", {"POST": "complete", "DELETE": "abort", "GET": "list-parts"}.get(self.command, "?")),
        ):
            if name in self.query:
                return operation
        if self.command == "GET" and not self.key:
            return "list" if "list-type" in self.query else "list-v1"
        return {"PUT": "put", "GET": "get", "HEAD": "head", "DELETE": "delete"}.get(self.command, "?")

    def dispatch(self) -> None:
        ways, what = self.store.ways, self.what()
        if ways.html:
            self.answer(*ways.html, {"Content-Type": "text/html"})
            return
        if ways.moved_to:
            self.answer(ways.moved_to[0], "", {"Location": ways.moved_to[1]} if ways.moved_to[1] else {})
            return
        with self.store.lock:
            is_busy = self.store.refused_busy < ways.slow_down
            self.store.refused_busy += is_busy
        if is_busy:
            text = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            self.answer(
                ways.slow_down_status,
                text,
                {"Retry-After": str(ways.retry_after_s)} if ways.retry_after_s else {},
            )
            return
        authorization = self.headers.get("Authorization", "")
        if ways.virtual_only and not self.in_host:
            raise _Refused(403, "SecondLevelDomainForbidden", "Please use virtual hosted style to access.")
        if f"Credential={self.store.access_key}/" not in authorization:
            raise _Refused(
                ways.wrong_key[0], ways.wrong_key[1], "The access key Id does not exist in our records."
            )
        self.check_signature()
        if ways.passing and self.meets(f"passing {what}", ways.passing[2]):
            if ways.passing[1]:
                raise _Refused(ways.passing[0], ways.passing[1])
            self.answer(ways.passing[0], _PAGE_502, {"Content-Type": "text/html"})
            return
        self.refuse(what)
        if self.command in ("PUT", "POST"):
            self.check_body(what)
        operation: Callable[[], None] = getattr(self, "do_" + what.replace("-", "_"))
        operation()

    def refuse(self, what: str) -> None:
        """Refuse what this store does not know, or lets nobody do."""
        headers = {name.lower() for name in self.headers}
        used = {what}
        if "if-none-match" in headers:
            used.add("condition")
        if any(name.startswith("x-amz-checksum-") for name in headers):
            used.add("checksum")
        if "x-amz-storage-class" in headers:
            used.add("class")
        if "x-amz-tagging" in headers:
            used.add("tags")
        for name, status in self.store.ways.refuses.items():
            if name in used:
                code = "InvalidStorageClass" if (name, status) == ("class", 400) else CODES[status]
                raise _Refused(
                    status, code, "A header you provided implies functionality that is not implemented"
                )
        if self.store.ways.keeps_everything and what == "delete":
            raise _Refused(403, "AccessDenied", "Access Denied")

    def check_signature(self) -> None:
        ways = self.store.ways
        signed_at = calendar.timegm(time.strptime(self.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        if abs(signed_at - time.time() - ways.clock_off_s) > 900:
            raise _Refused(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
            )
        payload = self.headers.get("x-amz-content-sha256", "")
        if ways.signed_payload_only:
            if not re.fullmatch("[0-9a-f]{64}", payload):
                raise _Refused(400, "InvalidArgument", "x-amz-content-sha256 must be a valid sha256 value.")
            if payload != hashlib.sha256(self.data).hexdigest():
                raise _Refused(400, "XAmzContentSHA256Mismatch")

    def check_key(self) -> None:
        ways = self.store.ways
        if ways.component_max_bytes and any(
            len(name.encode()) > ways.component_max_bytes for name in self.key.split("/")
        ):
            raise _Refused(400, "KeyTooLongError", "Your key is too long")
        with self.store.lock:
            others = [*self.store.objects]
        if ways.no_object_below_an_object and any(
            other.startswith(f"{self.key}/") or self.key.startswith(f"{other}/") for other in others
        ):
            raise _Refused(400, "XMinioParentIsObject", "Object-prefix is already an object")
        size = sum(
            len(name) - 11 + len(value)
            for name, value in self.headers.items()
            if name.lower().startswith("x-amz-meta-")
        )
        if ways.metadata_max_bytes and size > ways.metadata_max_bytes:
            raise _Refused(400, "MetadataTooLarge", "Your metadata headers exceed the maximum allowed size")

    def check_body(self, what: str) -> None:
        ways = self.store.ways
        if what in ("put", "create"):
            self.check_key()
        if what == "create" and ways.lacks_multipart:
            raise _Refused(501, "NotImplemented")
        if what == "part" and ways.part_max_bytes and len(self.data) > ways.part_max_bytes:
            raise _Refused(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        if self.headers.get("If-None-Match") and self.meets("conflict", ways.conflicts):
            raise _Refused(409, "ConditionalRequestConflict")
        if self.command == "PUT" and ways.put_status:
            raise _Refused(*ways.put_status)
        if ways.max_body_bytes and len(self.data) > ways.max_body_bytes:
            self.answer(413, _NGINX_413, {"Content-Type": "text/html"})
            raise ConnectionAbortedError
        if what in ("put", "create") and ways.sse_required:
            if not self.headers.get("x-amz-server-side-encryption"):
                raise _Refused(403, "AccessDenied", _EXPLICIT_DENY)
        if self.command != "PUT":
            return
        md5, crc32 = self.headers.get("Content-MD5"), self.headers.get("x-amz-checksum-crc32")
        if ways.asks_for_digest and not md5 and not crc32:
            raise _Refused(
                400,
                "InvalidRequest",
                "Content-MD5 OR x-amz-checksum- HTTP header is required for Put requests with Object Lock parameters",
            )
        if ways.verifies_digests:
            wanted = zlib.crc32(self.data).to_bytes(4, "big")
            is_wrong = md5 and base64.b64decode(md5) != hashlib.md5(self.data).digest()
            if is_wrong or (crc32 and base64.b64decode(crc32) != wanted):
                raise _Refused(400, "BadDigest")

    # -- objects ------------------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, str]:
        if self.store.ways.drops_metadata:
            return {}
        renamed = self.store.ways.renames_metadata
        found = {
            name[11:].lower(): value
            for name, value in self.headers.items()
            if name.lower().startswith("x-amz-meta-")
        }
        return {name.replace("-", "_") if renamed else name: value for name, value in found.items()}

    def put(self, data: bytes, metadata: dict[str, str], headers: dict[str, str], storage_class: str) -> None:
        with self.store.lock:
            before = self.store.objects.get(self.key)
            self.store.objects[self.key] = StoredBytes(
                data, metadata, storage_class, time.time(), headers, before.versions + 1 if before else 1
            )

    def asked(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def is_taken(self, of: str) -> bool:
        ignored = self.store.ways.ignores_conditions
        return (
            self.headers.get("If-None-Match") == "*"
            and self.key in self.store.objects
            and ignored not in (of, "all")
        )

    def do_put(self) -> None:
        with self.store.lock:
            if self.is_taken("put"):
                raise _Refused(412, "PreconditionFailed")
            self.put(
                self.data, self.metadata(), self.asked(), self.headers.get("x-amz-storage-class", "STANDARD")
            )
        self.answer(200, headers={"ETag": self.etag(self.data)})

    def etag(self, data: bytes) -> str:
        return f'"{os.urandom(16).hex()}"' if self.store.ways.random_etags else _etag(data)

    def find(self) -> StoredBytes:
        with self.store.lock:
            found = self.store.objects.get(self.key)
        if found is None or time.time() - found.at < self.store.ways.seen_after_s:
            raise (
                _Refused(403, "AccessDenied") if self.store.ways.hides_missing else _Refused(404, "NoSuchKey")
            )
        return found

    def do_head(self) -> None:
        self.do_get()

    def do_get(self) -> None:
        found = self.find()
        headers = {
            "ETag": _etag(found.data),
            "Last-Modified": formatdate(found.at, usegmt=True),
            **{f"x-amz-meta-{name}": value for name, value in found.metadata.items()},
        }
        if found.storage_class != "STANDARD":
            headers["x-amz-storage-class"] = found.storage_class
        data, status = found.data, 200
        span = not self.store.ways.ignores_ranges and re.match(
            r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")
        )
        if span:
            first, last = int(span[1]), int(span[2]) if span[2] else len(data) - 1
            if first >= len(data):
                raise _Refused(416, "InvalidRange")
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            data, status = data[first : last + 1], 206
        self.answer(status, data, {**headers, "Content-Length": str(len(data))})

    def do_delete(self) -> None:
        with self.store.lock:
            self.store.objects.pop(self.key, None)
        self.answer(204)

    def do_list(self) -> None:
        prefix = self.query.get("prefix", [""])[0]
        is_v2 = "list-type" in self.query and not self.store.ways.ignores_list_v2
        after = self.query.get("continuation-token" if is_v2 else "marker", [""])[0]
        ways = self.store.ways
        if not after and is_v2 and not ways.ignores_start_after:
            after = self.query.get("start-after", [""])[0]
        with self.store.lock:
            below = [
                (k, v) for k, v in sorted(self.store.objects.items()) if k.startswith(prefix) and k > after
            ]
            page = below[: self.store.ways.pages or 1000]
            truncated = "<IsTruncated>false</IsTruncated>"
            if len(page) < len(below):
                truncated = "<IsTruncated>true</IsTruncated>"
                if is_v2:
                    truncated += f"<NextContinuationToken>{escape(page[-1][0])}</NextContinuationToken>"
            if ways.unsorted:
                page.reverse()
            encodes = ways.encodes_keys and "encoding-type" in self.query
            entries = "<EncodingType>url</EncodingType>" if encodes else ""
            entries += "".join(
                f"<Contents><Key>{quote(key) if encodes else escape(key)}</Key><Size>{len(found.data)}</Size><ETag>{escape(_etag(found.data))}</ETag>"
                f"<LastModified>{_iso(found.at)}</LastModified><StorageClass>{found.storage_class}</StorageClass></Contents>"
                for key, found in page
            )
        self.answer(200, f"<ListBucketResult>{truncated}{entries}</ListBucketResult>")

    do_list_v1 = do_list

    # -- uploads in parts ---------------------------------------------------------------------------------------

    def do_create(self) -> None:
        metadata = {} if self.store.ways.drops_multipart_metadata else self.metadata()
        with self.store.lock:
            self.store.began += 1
            upload_id = f"upload-{self.store.began}"
            self.store.uploads[upload_id] = _Upload(
                self.key,
                metadata,
                self.headers.get("x-amz-storage-class", "STANDARD"),
                self.asked(),
                time.time(),
            )
        self.answer(
            200,
            f"<InitiateMultipartUploadResult><Bucket>{BUCKET}</Bucket><Key>{escape(self.key)}</Key>"
            f"<UploadId>{upload_id}</UploadId></InitiateMultipartUploadResult>",
        )

    def upload(self) -> _Upload:
        with self.store.lock:
            found = self.store.uploads.get(self.query["uploadId"][0])
        if found is None or found.key != self.key:
            raise _Refused(404, "NoSuchUpload", "The specified upload does not exist.")
        return found

    def do_part(self) -> None:
        number = int(self.query["partNumber"][0])
        if number > self.store.ways.part_count:
            raise _Refused(400, "InvalidArgument", "Part number must be an integer between 1 and the limit")
        etag = self.etag(self.data)
        self.upload().parts[number] = self.data
        self.upload().etags[number] = etag.strip('"')
        self.answer(200, headers={"ETag": etag})

    def do_complete(self) -> None:
        with self.store.lock:
            upload = self.upload()
            numbers = [int(number) for number in re.findall(r"<PartNumber>(\d+)<", self.data.decode())]
            etags = re.findall(r"<ETag>(?:&quot;|\")?([0-9a-f]+)", self.data.decode())
            if any(
                number not in upload.parts or upload.etags[number] != etag
                for number, etag in zip(numbers, etags, strict=True)
            ):
                raise _Refused(400, "InvalidPart")
            parts = [upload.parts[number] for number in numbers]
            if self.store.ways.equal_parts and (
                len({len(part) for part in parts[:-1]}) > 1
                or (len(parts) > 1 and len(parts[-1]) > len(parts[0]))
            ):
                raise _Refused(400, "InvalidPart", "All non-trailing parts must have the same length.")
            if any(len(part) < self.store.ways.part_min_bytes for part in parts[:-1]):
                raise _Refused(400, "EntityTooSmall")
            if self.is_taken("complete"):
                raise _Refused(412, "PreconditionFailed")
            del self.store.uploads[self.query["uploadId"][0]]
        made = b"".join(parts), upload.metadata, upload.headers, upload.storage_class
        if self.store.ways.late_complete_s:
            threading.Timer(self.store.ways.late_complete_s, self.put, made).start()
            raise ConnectionAbortedError
        said = self.store.ways.complete_says
        with self.store.lock:
            self.store.completed += 1
            first = self.store.completed == 1
            if said == "error" and first:
                self.store.uploads[self.query["uploadId"][0]] = upload
        if said == "error" and first:
            self.answer(
                200,
                "<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>",
            )
            return
        self.put(*made)
        if said == "504":
            self.answer(504, _PAGE_502, {"Content-Type": "text/html"})
            return
        if said in ("nothing", "html"):
            self.answer(200, "" if said == "nothing" else "<html><body>ok<br></body></html>")
            return
        blanks = " " * 64 if said == "blanks" else ""
        self.answer(
            200,
            f'{blanks}<?xml version="1.0" encoding="UTF-8"?><CompleteMultipartUploadResult><Key>{escape(self.key)}</Key><ETag>"x-{len(parts)}"</ETag></CompleteMultipartUploadResult>',
        )

    def do_abort(self) -> None:
        self.upload()
        with self.store.lock:
            self.store.uploads.pop(self.query["uploadId"][0], None)
        self.answer(204)

    def do_list_parts(self) -> None:
        entries = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>&quot;{self.upload().etags[number]}&quot;</ETag><Size>{len(part)}</Size></Part>"
            for number, part in sorted(self.upload().parts.items())
        )
        self.answer(200, f"<ListPartsResult><IsTruncated>false</IsTruncated>{entries}</ListPartsResult>")

    def do_list_uploads(self) -> None:
        prefix = self.query.get("prefix", [""])[0]
        with self.store.lock:
            entries = "".join(
                f"<Upload><Key>{escape(upload.key)}</Key><UploadId>{upload_id}</UploadId><Initiated>{_iso(upload.at)}</Initiated></Upload>"
                for upload_id, upload in self.store.uploads.items()
                if upload.key.startswith(prefix)
            )
        self.answer(
            200,
            f"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{entries}</ListMultipartUploadsResult>",
        )


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
