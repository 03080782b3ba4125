"""The store over boto3, AWS S3 and every server that speaks its language, with its uploads in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dumpagent.dumps.keys import trial_key
from dumpagent.errors import Refused, Unreachable
from dumpagent.store.protocol import Body, Expired, NoSuchUpload, Occupied, OpenUpload, Part, TooLarge
from dumpagent.store.s3.learn import Tried, try_deletion
from dumpagent.store.s3.objects import UNLESS_THERE, crc32_of, etag_of
from dumpagent.store.s3.options import Feature, Option, may_be_unknown
from dumpagent.store.s3.reader import S3Reader
from dumpagent.store.s3.request import base64_of, code_of, status_of
from dumpagent.store.s3.versions import erase

# Making an object of thousands of parts takes some stores minutes, longer than an answer is waited for.
_LATE_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


class S3Store(S3Reader):
    """One bucket of an S3-compatible store; see `Store` for what the calls do, `S3Objects` for how it is made."""

    def _tried(self) -> Tried:
        return self

    def put_if_free(self, key: str, body: Body) -> None:
        """Put an object with which the store is tried out."""
        self._put(key, body, {})

    def can_delete(self) -> bool:
        if self.profile.deletes is None:
            self._learn(deletes=try_deletion(self._call, trial_key(self._settings.prefix)))
        return self.profile.deletes is True

    def get_to_know(self) -> None:
        """Try out what the upload of a dump has to know of this store, unless that is known. Raises Refused, Unreachable."""
        self._digest()
        if self.must_reserve():
            self.can_delete()

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
                return self._requests.once(f"completing {key}", "complete_multipart_upload", **asked)
            except Expired:
                return self._requests.once(f"completing {key}", "complete_multipart_upload", **asked)

        if not replace and not self._heeds_conditions():
            self._refuse_taken(key)
        size_bytes = sum(part.size_bytes for part in parts)
        late: Unreachable | None = None
        for pause_s in (*_LATE_S, 0):
            try:
                self._negotiate(send, [] if replace else [UNLESS_THERE])
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
                self._requests.once("trying digests", operation, **asked)
            except (Unreachable, Expired):
                continue
            return
        self._requests.once("trying digests", operation, **asked)


# The store knows no uploads in parts. Source: RFC 9110, 15.5.6, 15.6.2 and 15.6.6.
_UNKNOWN = (405, 501, 505)
_WHOLE_CHECKSUM = Option(
    Feature.WHOLE_CHECKSUM, {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
)


def part_of(entry: Mapping[str, Any]) -> Part:
    """Give one part of a listing."""
    return Part(entry["PartNumber"], entry["Size"], etag_of(entry), crc32_of(entry.get("ChecksumCRC32")))


def open_upload_of(entry: Mapping[str, Any]) -> OpenUpload:
    """Give one upload of a listing. Some stores do not tell when it began."""
    started = entry.get("Initiated")
    return OpenUpload(entry["Key"], entry["UploadId"], started.timestamp() if started else 0.0)
