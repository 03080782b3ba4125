"""The store over boto3: AWS S3 and every server that speaks its language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dumpagent.dumps.keys import trial_key
from dumpagent.errors import Refused, Unreachable
from dumpagent.store.md5 import has_md5
from dumpagent.store.protocol import (
    Body,
    Expired,
    LookRefused,
    NoSuchUpload,
    Occupied,
    OpenUpload,
    Part,
    TooLarge,
)
from dumpagent.store.s3.answers import base64_of, etag_of, open_upload_of, part_of
from dumpagent.store.s3.client import code_of, status_of
from dumpagent.store.s3.learn import try_condition, try_conditions, try_deletion, try_digests
from dumpagent.store.s3.options import Feature, Option, may_be_unknown, negotiate
from dumpagent.store.s3.profile import Digest
from dumpagent.store.s3.reader import S3Reader
from dumpagent.store.s3.versions import erase
from dumpagent.store.tags import tags_of
from dumpagent.units import KIB

# Infrequent access bills an object for 128 KiB and 30 days. Source: Amazon S3 pricing, "S3 Standard-IA".
_SMALL_BYTES = 128 * KIB
_INFREQUENT = {"STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"}
# Making an object of thousands of parts takes some stores minutes, longer than an answer is waited for.
_LATE_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class S3Store(S3Reader):
    """One bucket of an S3-compatible store; see `Store` for what the calls do, `S3Reader` for how it is made."""

    _is_condition_tried = False

    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        if not self._heeds_conditions():
            self._refuse_taken(key)
        self._put(key, body, metadata)

    def put_if_free(self, key: str, body: Body) -> None:
        """Put an object with which the store is tried out."""
        self._put(key, body, {})

    def _heeds_conditions(self) -> bool:
        """Say whether the store keeps what stands under a key from being overwritten. Tries it out, the first time."""
        profile = self.profile
        if not self._settings.endpoint_url or profile.conditional is False:
            return profile.conditional is not False
        if not self._is_condition_tried and profile.conditional_complete is None:
            try:
                if not try_condition(self, trial_key(self._settings.prefix)):
                    self._learn(conditional=False)
            except Refused as error:
                if not may_be_unknown(error):
                    raise
                return True  # not allowed to try; the write itself tells what is refused
        self._is_condition_tried = True
        return self.profile.conditional is not False

    def _refuse_taken(self, key: str) -> None:
        """Look before writing, where the store has no conditions. What comes between the two goes unnoticed."""
        try:
            found = self.look(key)
        except LookRefused:
            return
        if found is not None and not found.reserved:
            raise Occupied(f"writing {key} in {self.name}: another object is there")

    def _put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        def send(**options: Any) -> Any:
            return self._call(
                f"writing {key}",
                "put_object",
                body=body,
                digest=self._digest(),
                Key=key,
                Metadata=dict(metadata),
                **self._created_with(),
                **options,
            )

        self._negotiate(send, [*self._wished(body.size_bytes, metadata), _UNLESS_THERE])

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        self._digest()
        return self._begin(key, metadata)

    def _begin(self, key: str, metadata: Mapping[str, str]) -> str:
        def send(**options: Any) -> Any:
            return self._call(
                f"beginning {key}",
                "create_multipart_upload",
                Key=key,
                Metadata=dict(metadata),
                **self._created_with(),
                **options,
            )

        try:
            answer, sent = self._negotiate(send, [*self._wished(None, metadata), _WHOLE_CHECKSUM])
        except Refused as error:
            if status_of(error) not in _UNKNOWN:
                raise
            self._learn(multipart=False)
            raise TooLarge(str(error), hint=error.hint) from error.__cause__
        if Feature.WHOLE_CHECKSUM in sent:
            # A store that does not know checksums leaves them out of its answer.
            self._learn(whole_checksum=answer.get("ChecksumType") == "FULL_OBJECT")
        return str(answer["UploadId"])

    def must_reserve(self) -> bool:
        if not self._settings.endpoint_url:
            return False
        if self.profile.conditional_complete is None:
            heeds = self._heeds_conditions() and try_conditions(self, trial_key(self._settings.prefix))
            self._learn(conditional_complete=heeds)
        return self.profile.conditional_complete is not True

    def can_delete(self) -> bool:
        if self.profile.deletes is None:
            self._learn(deletes=try_deletion(self._call, trial_key(self._settings.prefix)))
        return self.profile.deletes is True

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
        etag = etag_of(answer) or (body.anew().md5() or b"").hex()  # most stores' ETag of a part is its MD5
        return Part(number, body.size_bytes, etag, body.crc32)

    def parts(self, key: str, upload_id: str) -> list[Part]:
        found: list[Part] = []
        more: dict[str, Any] = {}
        while True:
            try:
                answer = self._call(
                    f"listing parts of {key}", "list_parts", Key=key, UploadId=upload_id, **more
                )
            except Refused as error:
                if code_of(error) == "NoSuchKey":  # Ceph RGW 16 says so of an upload that was aborted
                    raise NoSuchUpload(str(error)) from error
                raise
            found += [part_of(entry) for entry in answer.get("Parts", [])]
            if not answer.get("IsTruncated"):
                return found
            marker = answer.get("NextPartNumberMarker") or (found[-1].number if found else 0)
            if marker == more.get("PartNumberMarker", 0):
                return found  # it goes on nowhere
            more = {"PartNumberMarker": marker}

    def complete(
        self, key: str, upload_id: str, parts: list[Part], *, crc32: int, replace: bool = False
    ) -> None:
        listed: list[dict[str, Any]] = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        whole: dict[str, Any] = {}
        if self.profile.whole_checksum:
            for entry, part in zip(listed, parts, strict=True):
                if part.crc32 is not None:
                    entry["ChecksumCRC32"] = base64_of(part.crc32)
            whole = {"ChecksumCRC32": base64_of(crc32), "ChecksumType": "FULL_OBJECT"}
        request = {"Key": key, "UploadId": upload_id, "MultipartUpload": {"Parts": listed}, **whole}

        def send(**options: Any) -> Any:
            asked = {**request, **options}
            try:
                return self._client.request(f"completing {key}", "complete_multipart_upload", **asked)
            except Expired:
                return self._client.request(f"completing {key}", "complete_multipart_upload", **asked)

        if not replace and not self._heeds_conditions():
            self._refuse_taken(key)
        size_bytes = sum(part.size_bytes for part in parts)
        late: Unreachable | None = None
        for pause_s in (*_LATE_S, 0):
            try:
                self._negotiate(send, [] if replace else [_UNLESS_THERE])
                return
            except Unreachable as error:
                late = error
            except (Occupied, NoSuchUpload):
                # After a request without an answer: it was carried out, or still is.
                if late is None or (
                    not replace and self._holds(key, size_bytes) is False and self._is_there(key)
                ):
                    raise
            if self._holds(key, size_bytes):
                return
            if not pause_s or self._stop.wait(pause_s):
                break
        assert late is not None  # noqa: S101 - the loop ends otherwise
        raise late

    def _holds(self, key: str, size_bytes: int) -> bool | None:
        """Say whether an object of that size is there; None if that cannot be known."""
        try:
            found = self.look(key)
        except (Refused, Unreachable):
            return None
        return found is not None and found.size_bytes == size_bytes and not found.reserved

    def _is_there(self, key: str) -> bool:
        try:
            return self.look(key) is not None
        except (Refused, Unreachable):
            return False

    def abort(self, key: str, upload_id: str) -> None:
        try:
            self._call(f"aborting the upload of {key}", "abort_multipart_upload", Key=key, UploadId=upload_id)
        except NoSuchUpload:
            pass
        except Refused as error:
            if code_of(error) not in ("404", "NoSuchKey"):
                raise

    def open_uploads(self, prefix: str) -> list[OpenUpload]:
        found: list[OpenUpload] = []
        more: dict[str, Any] = {}
        below = f" {prefix}" if prefix else ""
        while True:
            answer = self._call(f"listing uploads{below}", "list_multipart_uploads", Prefix=prefix, **more)
            found += [open_upload_of(entry) for entry in answer.get("Uploads", [])]
            if not answer.get("IsTruncated"):
                return found
            markers = answer.get("NextKeyMarker"), answer.get("NextUploadIdMarker")
            if not markers[0] or markers == tuple(more.values()):
                return found  # cut, and no word of how it goes on
            more = {"KeyMarker": markers[0], "UploadIdMarker": markers[1] or ""}

    def delete(self, key: str) -> None:
        try:
            self._call(f"deleting {key}", "delete_object", Key=key)
        except Refused as error:
            if may_be_unknown(error):
                self._learn(deletes=False)
            raise

    def erase(self, key: str) -> None:
        """Delete the object with all its versions. No error if there is none. Raises Refused, Unreachable."""
        erase(self._call, key)

    # -- the trial ----------------------------------------------------------------------------------------------

    def begin_trial(self, key: str) -> str:
        """Begin an upload with which the store is tried out."""
        return self._begin(key, {})

    def send_trial_part(self, key: str, upload_id: str, data: bytes, **header: Any) -> None:
        """Send a part, with a digest that may be wrong: a refusal is the answer, and is not tried again."""
        self._try("upload_part", Key=key, UploadId=upload_id, PartNumber=1, Body=data, **header)

    def send_trial(self, key: str, data: bytes, **header: Any) -> None:
        """Put an object, with a digest that may be wrong."""
        self._try("put_object", Key=key, Body=data, **self._created_with(), **header)

    def _try(self, operation: str, **asked: Any) -> None:
        for _ in range(2):
            try:
                self._client.request("trying digests", operation, **asked)
            except (Unreachable, Expired):
                continue
            return
        self._client.request("trying digests", operation, **asked)

    def _digest(self) -> Digest:
        """Give the digest that goes with every body: the cheapest that this store refuses when it is wrong."""
        if self.profile.digest is None:
            if self._settings.endpoint_url:
                self._learn(digest=try_digests(self, trial_key(self._settings.prefix), has_md5=has_md5()))
            else:
                self._learn(digest=Digest.CRC32)
        return self.profile.digest or Digest.NONE

    # -- options ------------------------------------------------------------------------------------------------

    def _negotiate(self, send: Callable[..., Any], options: list[Option]) -> tuple[Any, set[Feature]]:
        return negotiate(
            send,
            options,
            known=lambda feature: getattr(self.profile, feature.value),
            learn=lambda feature, knows: self._learn(**{feature.value: knows}),
        )

    def _created_with(self) -> dict[str, Any]:
        """Give what a bucket's policy may ask of every request that creates an object."""
        asked = {
            "ServerSideEncryption": self._settings.sse,
            "SSEKMSKeyId": self._settings.sse_kms_key_id,
            "ACL": self._settings.acl,
        }
        return {name: value for name, value in asked.items() if value}

    def _wished(self, size_bytes: int | None, metadata: Mapping[str, str]) -> list[Option]:
        """Give what the settings wish for an object of that size with these metadata; None: a large one."""
        wished = []
        if tags := tags_of(self._settings.tags, metadata):
            wished.append(Option(Feature.TAGS, {"Tagging": tags}))
        storage_class = self._settings.storage_class
        is_small = size_bytes is not None and size_bytes < _SMALL_BYTES and storage_class in _INFREQUENT
        if storage_class and not is_small:
            wished.append(Option(Feature.STORAGE_CLASS, {"StorageClass": storage_class}))
        return wished


# The store knows no uploads in parts. Source: RFC 9110, 15.5.6, 15.6.2 and 15.6.6.
_UNKNOWN = (405, 501, 505)
_UNLESS_THERE = Option(Feature.CONDITION, {"IfNoneMatch": "*"})
_WHOLE_CHECKSUM = Option(
    Feature.WHOLE_CHECKSUM, {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
)
