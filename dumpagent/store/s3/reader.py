"""A bucket as it is asked: what is there, what it is made of, and every request until it is answered.

What a store may not know is tried, left out where it is refused, and remembered in the profile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from dumpagent.dumps.keys import trial_key
from dumpagent.errors import Refused, Unreachable
from dumpagent.settings import S3
from dumpagent.store.attempts import Attempts
from dumpagent.store.clock import StoreClock
from dumpagent.store.pace import Pace
from dumpagent.store.protocol import (
    BLOCK_BYTES,
    TLS_BLOCK_BYTES,
    Body,
    Limits,
    Link,
    LookRefused,
    NoRanges,
    Occupied,
    Replaced,
    StoredObject,
    TooLarge,
)
from dumpagent.store.s3.answers import digest_of, etag_of, modified_of, object_of
from dumpagent.store.s3.client import SdkClient, code_of, status_of
from dumpagent.store.s3.options import UNKNOWN_STATUSES, may_be_unknown
from dumpagent.store.s3.profile import Digest, Profile
from dumpagent.store_settings import Access
from dumpagent.units import MIB

_READ_BYTES = 256 << 10  # stays in the processor's cache until it is summed and written
_GONE = ("404", "NoSuchKey", "NotFound")
_NOT_ALLOWED = ("403", "AccessDenied", "Forbidden")


class S3Reader:
    """One bucket of an S3-compatible store as it is asked; see `Store` for what the calls do.

    `stop` ends waits between attempts. `pace` says how fast bodies may be sent. `profile` is what an earlier run learnt;
    `learnt` is told every change of it. `access` is for the replica. `reads_only` is for somebody who fetches dumps: hints
    ask for no more rights than that takes.
    """

    def __init__(
        self,
        settings: S3,
        *,
        access: Access | None = None,
        stop: threading.Event | None = None,
        profile: Profile | None = None,
        learnt: Callable[[Profile, Profile], None] = lambda _before, _now: None,
        attempts: int = 4,
        pace: Pace | None = None,
        reads_only: bool = False,
    ) -> None:
        self.profile = profile or Profile()
        self._settings, self._learnt = settings, learnt
        self._stop = stop or threading.Event()
        self._pace = pace
        self._attempts = Attempts(attempts, self._stop)
        clock = StoreClock(
            self.profile.clock_ahead_s or 0.0,
            learnt=lambda ahead_s: self._learn(clock_ahead_s=ahead_s),
        )
        self._client = SdkClient(settings, access=access, reads_only=reads_only, clock=clock)
        self._lock = threading.Lock()  # of the profile; never held during a request

    @property
    def name(self) -> str:
        return self._client.name

    @property
    def limits(self) -> Limits:
        plain = self._settings.endpoint_url.lower().startswith("http:")
        usual = Limits()
        bounds = (self.profile.body_max_bytes, self._settings.part_size_bytes or None, usual.part_max_bytes)
        most_bytes = min(bound for bound in bounds if bound is not None)
        return replace(
            usual,
            block_bytes=BLOCK_BYTES if plain else TLS_BLOCK_BYTES,
            parts=1 if self.profile.multipart is False else usual.parts,
            part_max_bytes=max(most_bytes, usual.part_min_bytes),
            part_large_bytes=(self._pace and self._pace.part_bytes) or usual.part_large_bytes,
        )

    def warm_up(self) -> None:
        """Load the SDK and make its client, which the first request would have to wait for. Asks nothing.

        Half a second of CPU and 30 MB. Raises what the SDK raises, as the first request would.
        """
        self._client.connect()

    # -- asking -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        try:
            self._listing("listing", MaxKeys=1, Prefix=self._settings.prefix)
        except Refused as error:
            if code_of(error) in _NOT_ALLOWED or may_be_unknown(error):
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

    def look(self, key: str) -> StoredObject | None:
        if self.profile.head is not False:
            try:
                answer = self._call(f"looking at {key}", "head_object", Key=key, ChecksumMode="ENABLED")
                if "ContentLength" in answer:
                    return object_of(key, answer)
                return self._look_by_get(key)
            except Refused as error:
                if code_of(error) in _GONE:
                    return None
                if status_of(error) not in UNKNOWN_STATUSES:
                    raise
                refused = error
            # The answer to a HEAD has no body, and so no reason; and some stores and proxies do not know it.
            try:
                found = self._look_by_get(key)
            except LookRefused as error:
                if code_of(refused) in _NOT_ALLOWED:
                    raise
                raise error from error.__cause__
            if status_of(refused) != 403:
                self._learn(head=False)
            return found
        return self._look_by_get(key)

    def _look_by_get(self, key: str) -> StoredObject | None:
        """Look by reading the first byte. Raises LookRefused where that is refused too."""
        try:
            try:
                answer = self._call(f"looking at {key}", "get_object", Key=key, Range="bytes=0-0")
            except Refused as error:
                if status_of(error) != 416:  # an empty object has no first byte
                    raise
                answer = self._call(f"looking at {key}", "get_object", Key=key)
        except Refused as error:
            if code_of(error) in _GONE:
                return None
            if code_of(error) in _NOT_ALLOWED or may_be_unknown(error):
                raise LookRefused(str(error), hint=error.hint) from error.__cause__
            raise
        answer["Body"].close()
        return object_of(key, answer)

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
        return self._client.link(key, for_s)

    # -- one request --------------------------------------------------------------------------------------------

    def _learn(self, **what: Any) -> None:
        with self._lock:
            before = self.profile
            now = self.profile = replace(self.profile, **what)
        if now != before:
            self._learnt(before, now)

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
                return self._client.request(doing, operation, **parameters)
            fresh = body.anew()
            digests = digest_of(fresh, digest)  # reads the bytes, at any pace
            data = self._pace.paced(fresh.data) if self._pace else fresh.data
            return self._client.request(doing, operation, Body=data, **digests, **parameters)

        try:
            return self._attempts.until_answered(send)
        except TooLarge as error:
            if body is None or body.size_bytes <= Limits().part_min_bytes:
                raise Refused(str(error), hint=error.hint) from error.__cause__
            half_bytes = max(Limits().part_min_bytes, body.size_bytes // 2 // MIB * MIB)
            self._learn(body_max_bytes=min(self.profile.body_max_bytes or half_bytes, half_bytes))
            raise
