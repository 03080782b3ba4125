"""The store over boto3: AWS S3 and every server that speaks its language.

boto3 costs 30 MB and half a second of CPU, so it is imported at the first request and not before.
Each request is one attempt of the SDK's; trying again is done here, where a stop can end it.
"""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dumpagent import __version__
from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.gc_pause import uncollected
from dumpagent.secrets import NET, hide
from dumpagent.settings import MIB, S3
from dumpagent.store.protocol import (
    BLOCK_BYTES,
    TLS_BLOCK_BYTES,
    Body,
    Corrupted,
    Expired,
    Limits,
    LookRefused,
    NoSuchUpload,
    Occupied,
    OpenUpload,
    Part,
    Replaced,
    StoredObject,
    trial_key,
)
from dumpagent.store.s3.attempts import Attempts
from dumpagent.store.s3.profile import Digest, Profile
from dumpagent.store.s3.versions import erase

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
_READ_BYTES = 1 * MIB
_ALWAYS_ANSWERED = {
    "head_object": ("ContentLength", "ETag", "LastModified"),
    "get_object": ("ContentLength", "ETag", "LastModified"),
    "upload_part": ("ETag",),
    "create_multipart_upload": ("UploadId",),
}
_CONNECTIONS = 16  # kept open for the threads that ask at once
_RESERVED = "reserved"


class S3Store:
    """One bucket of an S3-compatible store; see `Store` for what the calls do.

    `stop` ends waits between attempts. `profile` is what an earlier run learnt; `learnt` is told every change of it.
    `reads_only` is for somebody who fetches dumps: hints ask for no more rights than that takes.
    """

    def __init__(
        self,
        settings: S3,
        *,
        stop: threading.Event | None = None,
        profile: Profile | None = None,
        learnt: Callable[[Profile, Profile], None] = lambda _before, _now: None,
        attempts: int = 4,
        reads_only: bool = False,
    ) -> None:
        plain = settings.endpoint_url.lower().startswith("http:")
        self.limits = Limits(block_bytes=BLOCK_BYTES if plain else TLS_BLOCK_BYTES)
        self.profile = profile or Profile()
        self._settings = settings
        self._learnt = learnt
        self._attempts = Attempts(attempts, stop or threading.Event())
        self._reads_only = reads_only
        self._lock = threading.RLock()
        self._client: S3Client | None = None

    @property
    def name(self) -> str:
        at = f" at {hide(self._settings.endpoint_url)}" if self._settings.endpoint_url else " (AWS)"
        return f"bucket {self._settings.bucket}{at}"

    def warm_up(self) -> None:
        """PreparedJob the SDK and make its client, which the first request would have to wait for. Asks nothing.

        Half a second of CPU and 30 MB. Raises what the SDK raises, as the first request would.
        """
        self._connected()

    # -- asking -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        try:
            self._call("listing", "list_objects_v2", MaxKeys=1, Prefix=self._settings.prefix)
        except Refused as error:
            if _code(error) in ("AccessDenied", "403"):
                raise LookRefused(str(error), hint=error.hint) from error
            raise

    def look(self, key: str) -> StoredObject | None:
        try:
            answer = self._call(
                f"looking at {key}",
                "head_object",
                Key=key,
                ChecksumMode="ENABLED",
            )
        except Refused as error:
            if _code(error) in ("404", "NoSuchKey", "NotFound"):
                return None
            if _code(error) in ("403", "AccessDenied", "Forbidden"):
                raise LookRefused(str(error), hint=error.hint) from error
            raise
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        checksum = None
        if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            checksum = _crc32_of(answer.get("ChecksumCRC32"))
        return StoredObject(
            key=key,
            size_bytes=answer["ContentLength"],
            etag=answer["ETag"].strip('"'),
            modified=answer["LastModified"].timestamp(),
            metadata=metadata,
            crc32=checksum,
            storage_class=answer.get("StorageClass", "STANDARD"),
            reserved=answer["ContentLength"] == 0 and _RESERVED in metadata,
        )

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        more: dict[str, Any] = {}
        while True:
            answer = self._call(f"listing{_below(prefix)}", "list_objects_v2", Prefix=prefix, **more)
            for entry in answer.get("Contents", []):
                yield StoredObject(
                    key=entry["Key"],
                    size_bytes=entry["Size"],
                    etag=entry["ETag"].strip('"'),
                    modified=entry["LastModified"].timestamp(),
                    storage_class=entry.get("StorageClass", "STANDARD"),
                )
            if not answer.get("IsTruncated"):
                return
            more = {"ContinuationToken": answer["NextContinuationToken"]}

    def read(
        self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        last = "" if length is None else str(start + length - 1)
        asked: dict[str, Any] = {} if etag is None else {"IfMatch": f'"{etag}"'}
        if start or length is not None:
            asked["Range"] = f"bytes={start}-{last}"
        try:
            answer = self._call(f"reading {key}", "get_object", Key=key, **asked)
        except Occupied as error:  # 412 means "another object stands there" to a reader too
            raise Replaced(str(error)) from error
        try:
            # Neither condition nor range is honoured by every store; gluing other bytes on would go unnoticed.
            if etag is not None and answer["ETag"].strip('"') != etag:
                raise Replaced(f"reading {key} in {self.name}: it is another object now")
            if "Range" in asked and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise Refused(
                    f"reading {key} in {self.name}: the store gives no part of an object, only all of it",
                    hint="delete the .part file to fetch it from its beginning",
                )
        except Refused:
            answer["Body"].close()
            raise
        try:
            yield from answer["Body"].iter_chunks(_READ_BYTES)
        except Exception as error:  # the SDK raises its own, urllib3's and the socket's errors from a body
            raise Unreachable(f"reading {key} in {self.name}: {type(error).__name__}: {error}") from error
        finally:
            answer["Body"].close()

    # -- writing ------------------------------------------------------------------------------------------------

    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        digest = self._digest()
        self._create(
            f"writing {key}",
            "put_object",
            body=body,
            digest=digest,
            Key=key,
            Metadata=dict(metadata),
        )

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        self._digest()
        return self._begin(key, metadata)

    def must_reserve(self) -> bool:
        if not self._settings.endpoint_url:
            return False
        if self.profile.conditional_complete is None:
            self._learn(conditional_complete=self._try_completion())
        return self.profile.conditional_complete is not True

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        answer = self._call(
            f"writing part {number} of {key}",
            "upload_part",
            body=body,
            digest=self._digest(),
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
        )
        return Part(number, body.size_bytes, answer["ETag"].strip('"'), body.crc32)

    def parts(self, key: str, upload_id: str) -> list[Part]:
        found: list[Part] = []
        more: dict[str, Any] = {}
        while True:
            try:
                answer = self._call(
                    f"listing parts of {key}", "list_parts", Key=key, UploadId=upload_id, **more
                )
            except Refused as error:
                if _code(error) == "NoSuchKey":  # Ceph RGW 16 says so of an upload that was aborted
                    raise NoSuchUpload(str(error)) from error
                raise
            found += [
                Part(
                    part["PartNumber"],
                    part["Size"],
                    part["ETag"].strip('"'),
                    _crc32_of(part.get("ChecksumCRC32")),
                )
                for part in answer.get("Parts", [])
            ]
            if not answer.get("IsTruncated"):
                return found
            more = {"PartNumberMarker": answer["NextPartNumberMarker"]}

    def complete(
        self, key: str, upload_id: str, parts: list[Part], *, crc32: int, replace: bool = False
    ) -> None:
        listed: list[dict[str, Any]] = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        whole: dict[str, Any] = {}
        if self.profile.whole_checksum:
            for entry, part in zip(listed, parts, strict=True):
                if part.crc32 is not None:
                    entry["ChecksumCRC32"] = _base64_of(part.crc32)
            whole = {"ChecksumCRC32": _base64_of(crc32), "ChecksumType": "FULL_OBJECT"}
        request = {"Key": key, "UploadId": upload_id, "MultipartUpload": {"Parts": listed}, **whole}
        send = self._call if replace else self._conditionally
        send(f"completing {key}", "complete_multipart_upload", **request)

    def abort(self, key: str, upload_id: str) -> None:
        try:
            self._call(f"aborting the upload of {key}", "abort_multipart_upload", Key=key, UploadId=upload_id)
        except NoSuchUpload:
            pass
        except Refused as error:
            if _code(error) not in ("404", "NoSuchKey"):
                raise

    def open_uploads(self, prefix: str) -> list[OpenUpload]:
        found: list[OpenUpload] = []
        more: dict[str, Any] = {}
        while True:
            answer = self._call(
                f"listing uploads{_below(prefix)}", "list_multipart_uploads", Prefix=prefix, **more
            )
            found += [
                OpenUpload(entry["Key"], entry["UploadId"], entry["Initiated"].timestamp())
                for entry in answer.get("Uploads", [])
            ]
            if not answer.get("IsTruncated"):
                return found
            more = {"KeyMarker": answer["NextKeyMarker"], "UploadIdMarker": answer["NextUploadIdMarker"]}

    def delete(self, key: str) -> None:
        self._call(f"deleting {key}", "delete_object", Key=key)

    def erase(self, key: str) -> None:
        """Delete the object with all its versions. No error if there is none. Raises Refused, Unreachable."""
        erase(self._call, key)

    # -- one store's ways ---------------------------------------------------------------------------------------

    def _learn(self, **what: Any) -> None:
        with self._lock:
            before, self.profile = self.profile, replace(self.profile, **what)
        if self.profile != before:
            self._learnt(before, self.profile)

    def _digest(self) -> Digest:
        """Give the digest that this store verifies: try the cheapest that it refuses when it is wrong.

        Tried on a part of a multipart upload that is aborted, so that nothing is ever stored by it. The upload has a
        key of its own: whoever finds it open after a kill knows what it is.
        """
        with self._lock:
            if self.profile.digest is None:
                found = Digest.CRC32 if not self._settings.endpoint_url else self._try_digests()
                self._learn(digest=found)
            return self.profile.digest or Digest.NONE

    def _try_digests(self) -> Digest:
        key = trial_key(self._settings.prefix)
        upload_id = self._begin(key, {})
        try:
            data = b"does this store verify what it is told?"
            wrong = {
                Digest.CRC32: {"ChecksumCRC32": _base64_of(1)},
                Digest.MD5: {"ContentMD5": base64.b64encode(bytes(16)).decode()},
            }
            for digest, header in wrong.items():
                try:
                    self._once(
                        "trying digests",
                        "upload_part",
                        Key=key,
                        UploadId=upload_id,
                        PartNumber=1,
                        Body=data,
                        **header,
                    )
                except Corrupted:
                    return digest
                except Refused as error:
                    if _status(error) == 501:
                        continue  # does not know the header
                    # Some stores have codes of their own for a digest that does not fit; anything but a 400, and
                    # a 400 that is about the credentials, says nothing of digests.
                    if _status(error) != 400 or "Token" in _code(error):
                        raise
                    return digest
            return Digest.NONE
        finally:
            try:
                self.abort(key, upload_id)
            except Refused:
                pass  # credentials that may only write: an upload without parts stays open, which costs nothing

    def _try_completion(self) -> bool:
        """Say whether the store heeds the condition when it completes an upload of a key that is taken."""
        key = trial_key(self._settings.prefix)
        data = b"does this store keep what is there?"
        body = Body(data, zlib.crc32(data))
        try:
            self.put(key, body, {})
        except Occupied:
            pass  # tried before
        upload_id = self._begin(key, {})
        part = self.send_part(key, upload_id, 1, body)
        try:
            self.complete(key, upload_id, [part], crc32=body.crc32)
        except Occupied:
            self.abort(key, upload_id)
            return True
        return False

    def _begin(self, key: str, metadata: Mapping[str, str]) -> str:
        parameters: dict[str, Any] = {"Key": key, "Metadata": dict(metadata)}
        if self.profile.whole_checksum is not False:
            try:
                answer = self._classed(
                    f"beginning {key}",
                    "create_multipart_upload",
                    ChecksumAlgorithm="CRC32",
                    ChecksumType="FULL_OBJECT",
                    **parameters,
                )
            except Refused as error:
                if isinstance(error, Expired) or _status(error) not in (400, 501):
                    raise
            else:
                # A store that does not know checksums leaves them out of its answer.
                self._learn(whole_checksum=answer.get("ChecksumType") == "FULL_OBJECT")
                return str(answer["UploadId"])
        answer = self._classed(f"beginning {key}", "create_multipart_upload", **parameters)
        self._learn(whole_checksum=False)
        return str(answer["UploadId"])

    def _create(self, doing: str, operation: str, **parameters: Any) -> Any:
        return self._classed(doing, operation, conditional=True, **parameters)

    def _classed(self, doing: str, operation: str, *, conditional: bool = False, **parameters: Any) -> Any:
        """Send with the configured storage class; where the store does not know it, with the store's own."""
        send = self._conditionally if conditional else self._call
        storage_class = self._settings.storage_class
        if not storage_class or self.profile.storage_class is False:
            return send(doing, operation, **parameters)
        try:
            answer = send(doing, operation, StorageClass=storage_class, **parameters)
        except Refused as error:
            # InvalidStorageClass: MinIO, Swift. InvalidArgument: Ceph RGW without that class.
            if _code(error) not in ("InvalidStorageClass", "InvalidArgument"):
                raise
            answer = send(doing, operation, **parameters)
            self._learn(storage_class=False)
            return answer
        self._learn(storage_class=True)
        return answer

    def _conditionally(self, doing: str, operation: str, **parameters: Any) -> Any:
        """Send with `If-None-Match: *`; where the store refuses that header, without (callers look before)."""
        if self.profile.conditional is not False:
            try:
                return self._call(doing, operation, IfNoneMatch="*", **parameters)
            except Refused as error:
                if _status(error) != 501:
                    raise
                self._learn(conditional=False)
        return self._call(doing, operation, **parameters)

    # -- one request --------------------------------------------------------------------------------------------

    def _call(
        self,
        doing: str,
        operation: str,
        *,
        body: Body | None = None,
        digest: Digest = Digest.NONE,
        **parameters: Any,
    ) -> Any:
        """Send until there is an answer, a refusal, or the attempts are used up. Raises Refused, Unreachable."""

        def send() -> Any:
            if body is None:
                return self._once(doing, operation, **parameters)
            fresh = body.anew()
            return self._once(doing, operation, Body=fresh.data, **_digest_of(fresh, digest), **parameters)

        return self._attempts.until_answered(send)

    def _once(self, doing: str, operation: str, **parameters: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError
        from urllib3.exceptions import HTTPError

        from dumpagent.store.s3.errors import translate

        client: S3Client | None = None
        try:
            client = self._connected()
            answer = getattr(client, operation)(Bucket=self._settings.bucket, **parameters)
        except (BotoCoreError, ClientError, HTTPError, OSError, ValueError) as error:
            # ValueError: what the SDK raises for an endpoint URL or a region that it cannot parse.
            if (failure := getattr(parameters.get("Body"), "failure", None)) is not None:
                raise failure from error  # the dump could not be read: the store has nothing to do with it
            refused = translate(error, doing=doing, where=self.name, reads_only=self._reads_only)
            if isinstance(refused, Expired):
                self._forget(client)
            raise refused from error
        # The standard library takes headers that the connection's end cut off for all of them.
        if any(field not in answer for field in _ALWAYS_ANSWERED.get(operation, ())):
            raise Unreachable(f"{doing} in {self.name}: the answer was cut off")
        return answer

    def _forget(self, client: S3Client | None) -> None:
        """Let the next request ask the SDK's chain for credentials anew, if nobody has done that since."""
        with self._lock:
            if self._client is client:
                self._client = None

    def _connected(self) -> S3Client:
        with self._lock:
            if self._client is None:
                with uncollected():
                    self._client = self._connect()
            return self._client

    def _connect(self) -> S3Client:
        import boto3
        from botocore.config import Config

        from dumpagent.store.s3.session import new_session
        from dumpagent.store.s3.tls import blockwise

        session = boto3.session.Session(botocore_session=new_session())
        _learn_secrets(session.get_credentials())
        own_endpoint = bool(self._settings.endpoint_url)
        config = Config(
            connect_timeout=CONNECT_TIMEOUT_S,
            max_pool_connections=_CONNECTIONS,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": 1},
            tcp_keepalive=True,
            user_agent_extra=f"dumpagent/{__version__}",
            # Our own digest header stands beside each body. The SDK's would be a trailer over https,
            # which makes the request chunked, which Ceph RGW refuses with 411; and without either
            # setting the SDK would hash each body with SHA-256 for its signature.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={
                "payload_signing_enabled": False,
                "addressing_style": "path" if own_endpoint else "auto",
            },
        )
        with nullcontext() if self._reads_only else blockwise():
            client: S3Client = session.client(
                "s3",
                endpoint_url=self._settings.endpoint_url or None,
                # A store of one's own has no regions, but the signature needs one.
                region_name=session.region_name or ("us-east-1" if own_endpoint else None),
                config=config,
            )
        # The SDK would ask before each body whether it may send it: a round trip more for each part.
        client.meta.events.register_last("before-call.s3", _send_at_once)
        return client


def _below(prefix: str) -> str:
    return f" {prefix}" if prefix else ""


def _learn_secrets(found: Any) -> None:
    """Hide what a profile or a file of the SDK's holds. What is renewed is known by its form, and costs a request."""
    from botocore.credentials import RefreshableCredentials

    if found is not None and not isinstance(found, RefreshableCredentials):
        NET.learn(found.secret_key)
        NET.learn(found.token or "")


def _send_at_once(params: dict[str, Any], **_more: object) -> None:
    params["headers"].pop("Expect", None)


def _code(error: DumpagentError) -> str:
    """Give the store's own code behind a refusal, empty if there is none."""
    from botocore.exceptions import ClientError

    from dumpagent.store.s3.errors import code_and_status

    return code_and_status(error.__cause__)[0] if isinstance(error.__cause__, ClientError) else ""


def _status(error: DumpagentError) -> int:
    from botocore.exceptions import ClientError

    from dumpagent.store.s3.errors import code_and_status

    return code_and_status(error.__cause__)[1] if isinstance(error.__cause__, ClientError) else 0


def _digest_of(body: Body, digest: Digest) -> dict[str, str]:
    if digest is Digest.CRC32:
        return {"ChecksumCRC32": _base64_of(body.crc32)}
    if digest is Digest.MD5:
        if (md5 := body.md5()) is not None:
            return {"ContentMD5": base64.b64encode(md5).decode()}
        # A FIPS machine without MD5: the header that every S3 SDK sends, which most stores keep and AWS verifies.
        return {"ChecksumCRC32": _base64_of(body.crc32)}
    return {}


def _base64_of(crc32: int) -> str:
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def _crc32_of(text: str | None) -> int | None:
    """Read x-amz-checksum-crc32; None for none, and for one over the parts' checksums, which ends in "-<parts>"."""
    if not text or "-" in text:
        return None
    return int.from_bytes(base64.b64decode(text), "big")
