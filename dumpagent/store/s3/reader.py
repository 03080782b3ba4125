"""Reads from a bucket: what is in it, what an object holds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dumpagent.dumps.keys import trial_key
from dumpagent.errors import Refused, Unreachable
from dumpagent.store.protocol import (
    Link,
    LookRefused,
    NoRanges,
    Occupied,
    Replaced,
    StoredObject,
)
from dumpagent.store.s3.objects import NOT_ALLOWED, S3Objects, etag_of, modified_of
from dumpagent.store.s3.options import may_be_unknown
from dumpagent.store.s3.request import code_of, status_of

_READ_BYTES = 256 << 10  # stays in the processor's cache until it is summed and written


class S3Reader(S3Objects):
    """One bucket of an S3-compatible store as it is asked; see `Store` for what the calls do, `S3Objects` for how it is made."""

    # -- asking -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        try:
            self._listing("listing", MaxKeys=1, Prefix=self._settings.prefix)
        except Refused as error:
            if code_of(error) in NOT_ALLOWED or may_be_unknown(error):
                raise LookRefused(str(error), hint=error.hint) from error.__cause__
            raise
        except Unreachable as error:
            if status_of(error) < 500 or not self._answers_a_look():
                raise
            # s3rver 3.7 answers 500 to every listing of some buckets, and takes dumps all the same.
            raise LookRefused(str(error), hint=error.hint) from error.__cause__

    def _answers_a_look(self) -> bool:
        try:
            self.look(trial_key(self._settings.prefix))
        except LookRefused:
            return True
        except (Refused, Unreachable):
            return False
        return True

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        more: dict[str, Any] = {}
        below = f" {prefix}" if prefix else ""
        while True:
            answer = self._listing(f"listing{below}", Prefix=prefix, **more)
            entries = answer.get("Contents", [])
            for entry in entries:
                yield StoredObject(
                    key=entry["Key"],
                    size_bytes=entry["Size"],
                    etag=etag_of(entry),
                    modified=modified_of(entry),
                    storage_class=entry.get("StorageClass", "STANDARD"),
                )
            if not answer.get("IsTruncated"):
                return
            token = answer.get("NextContinuationToken")
            if token and self.profile.lists_v2 is not False:
                after = {"ContinuationToken": token}
            elif entries:
                self._learn(lists_v2=False)  # some take the request for version 2, and answer as to version 1
                after = {"Marker": answer.get("NextMarker") or entries[-1]["Key"]}
            else:
                return
            if after == more:
                raise Unreachable(
                    f"listing{below} in {self.name}: the store gives the same page again and again",
                    hint="the listing is not whole: look at the store's own health and log",
                )
            more = after

    def _listing(self, doing: str, **parameters: Any) -> Any:
        """List with version 2 of the request, with version 1 where the store does not know that."""
        if self.profile.lists_v2 is not False:
            try:
                return self._call(doing, "list_objects_v2", **parameters)
            except Refused as error:
                if status_of(error) == 403 or not may_be_unknown(error):
                    raise
                answer = self._call(doing, "list_objects", **parameters)
                self._learn(lists_v2=False)
                return answer
        return self._call(doing, "list_objects", **parameters)

    def read(
        self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        last = "" if length is None else str(start + length - 1)
        asked: dict[str, Any] = {"IfMatch": f'"{etag}"'} if etag else {}
        if start or length is not None:
            asked["Range"] = f"bytes={start}-{last}"
        try:
            answer = self._call(f"reading {key}", "get_object", Key=key, **asked)
        except Occupied as error:  # 412 means "another object stands there" to a reader too
            raise Replaced(str(error)) from error
        try:
            # Neither condition nor range is honoured by every store; gluing other bytes on would go unnoticed.
            if etag and etag_of(answer) != etag:
                raise Replaced(f"reading {key} in {self.name}: it is another object now")
            if "Range" in asked and not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
                raise NoRanges(
                    f"reading {key} in {self.name}: the store gives no part of an object, only all of it"
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

    def link(self, key: str, for_s: float) -> Link:
        """Give a link to the object `key` that holds for so long. Asks the store nothing. Raises Refused, Unreachable."""
        return self._requests.link(key, for_s)
