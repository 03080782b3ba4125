"""One object of a bucket over boto3: looked at under its key, put under a key that is free.

What a store may not know is tried, left out where it is refused, and remembered in the profile.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from dumpagent.dumps.keys import trial_key
from dumpagent.dumps.metadata import with_known_names
from dumpagent.errors import Refused
from dumpagent.part_sizes import SENT_BYTES, Limits
from dumpagent.settings import S3
from dumpagent.store.clock import StoreClock
from dumpagent.store.md5 import has_md5
from dumpagent.store.pace import Pace
from dumpagent.store.protocol import TLS_BLOCK_BYTES, Body, LookRefused, Occupied, StoredObject, TooLarge
from dumpagent.store.s3.learn import Tried, try_condition, try_conditions, try_digests
from dumpagent.store.s3.options import UNKNOWN_STATUSES, Feature, Option, may_be_unknown
from dumpagent.store.s3.profile import Digest, Profile
from dumpagent.store.s3.request import ABSENT, Requests, code_of, status_of
from dumpagent.store.tags import tags_of
from dumpagent.store_settings import Access
from dumpagent.units import KIB, MIB

# Infrequent access bills an object for 128 KiB and 30 days. Source: Amazon S3 pricing, "S3 Standard-IA".
_SMALL_BYTES = 128 * KIB
_INFREQUENT = {"STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"}
_RESERVED = "reserved"  # the metadata by which version 0.1 told a reservation
NOT_ALLOWED = ("403", "AccessDenied", "Forbidden")
_NAMES_CLASS = {"InvalidStorageClass"}  # MinIO, Swift
# Ceph RGW without that class, which it accepts for a multipart upload all the same.
_MAY_MEAN_CLASS = {"InvalidArgument"}
_NEVER = {501, 505}


class S3Objects:
    """One bucket of an S3-compatible store; see `Store` for what the calls do.

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
        clock = StoreClock(
            self.profile.clock_ahead_s or 0.0,
            learnt=lambda ahead_s: self._learn(clock_ahead_s=ahead_s),
        )
        self._requests = Requests(
            settings,
            stop=self._stop,
            attempts=attempts,
            pace=pace,
            access=access,
            reads_only=reads_only,
            clock=clock,
        )
        self._is_condition_tried = False
        self._lock = threading.Lock()  # of the profile; never held during a request

    @property
    def name(self) -> str:
        return self._requests.name

    @property
    def limits(self) -> Limits:
        plain = self._settings.endpoint_url.lower().startswith("http:")
        usual = Limits()
        bounds = (self.profile.body_max_bytes, self._settings.part_size_bytes or None, usual.part_max_bytes)
        most_bytes = min(bound for bound in bounds if bound is not None)
        return replace(
            usual,
            block_bytes=SENT_BYTES if plain else TLS_BLOCK_BYTES,
            parts=1 if self.profile.multipart is False else usual.parts,
            part_max_bytes=max(most_bytes, usual.part_min_bytes),
            part_large_bytes=(self._pace and self._pace.part_bytes) or usual.part_large_bytes,
        )

    def warm_up(self) -> None:
        """Load the SDK and make its client, which the first request would have to wait for. Asks nothing.

        Half a second of CPU and 30 MB. Raises what the SDK raises, as the first request would.
        """
        self._requests.connect()

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self, key: str) -> StoredObject | None:
        if self.profile.head is not False:
            try:
                answer = self._call(f"looking at {key}", "head_object", Key=key, ChecksumMode="ENABLED")
                if answer is None:
                    return None
                if "ContentLength" in answer:
                    return object_of(key, answer)
                return self._look_by_get(key)
            except Refused as error:
                if status_of(error) not in UNKNOWN_STATUSES:
                    raise
                refused = error
            # The answer to a HEAD has no body, and so no reason; and some stores and proxies do not know it.
            try:
                found = self._look_by_get(key)
            except LookRefused as error:
                if code_of(refused) in NOT_ALLOWED:
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
            if code_of(error) in ABSENT:
                return None
            if code_of(error) in NOT_ALLOWED or may_be_unknown(error):
                raise LookRefused(str(error), hint=error.hint) from error.__cause__
            raise
        answer["Body"].close()
        return object_of(key, answer)

    # -- putting ------------------------------------------------------------------------------------------------

    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        if not self._heeds_conditions():
            self._refuse_taken(key)
        self._put(key, body, metadata)

    def _heeds_conditions(self) -> bool:
        """Say whether the store keeps what stands under a key from being overwritten. Tries it out, the first time."""
        profile = self.profile
        if not self._settings.endpoint_url or profile.conditional is False:
            return profile.conditional is not False
        if not self._is_condition_tried and profile.conditional_complete is None:
            try:
                if not try_condition(self._tried(), trial_key(self._settings.prefix)):
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

        self._negotiate(send, [*self._wished(body.size_bytes, metadata), UNLESS_THERE])

    def must_reserve(self) -> bool:
        if not self._settings.endpoint_url:
            return False
        if self.profile.conditional_complete is None:
            heeds = self._heeds_conditions() and try_conditions(
                self._tried(), trial_key(self._settings.prefix)
            )
            self._learn(conditional_complete=heeds)
        return self.profile.conditional_complete is not True

    def _tried(self) -> Tried:
        """Give the store with which is tried what it does."""
        raise NotImplementedError

    def _digest(self) -> Digest:
        """Give the digest that goes with every body: the cheapest that this store refuses when it is wrong."""
        if self.profile.digest is None:
            if self._settings.endpoint_url:
                self._learn(
                    digest=try_digests(self._tried(), trial_key(self._settings.prefix), has_md5=has_md5())
                )
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
        if self._settings.tags and (tags := tags_of(self._settings.tags, metadata)):
            wished.append(Option(Feature.TAGS, {"Tagging": tags}))
        storage_class = self._settings.storage_class
        is_small = size_bytes is not None and size_bytes < _SMALL_BYTES and storage_class in _INFREQUENT
        if storage_class and not is_small:
            wished.append(Option(Feature.STORAGE_CLASS, {"StorageClass": storage_class}))
        return wished

    # -- one request --------------------------------------------------------------------------------------------

    def _learn(self, **what: Any) -> None:
        with self._lock:
            before = self.profile
            now = self.profile = replace(self.profile, **what)
        if now != before:
            self._learnt(before, now)

    def _call(self, doing: str, operation: str, *, body: Body | None = None, **parameters: Any) -> Any:
        """Send until there is an answer, a refusal, or the attempts are used up. Raises Refused, Unreachable."""
        try:
            return self._requests.send(doing, operation, body=body, **parameters)
        except TooLarge as error:
            if body is None or body.size_bytes <= Limits().part_min_bytes:
                raise Refused(str(error), hint=error.hint) from error.__cause__
            half_bytes = max(Limits().part_min_bytes, body.size_bytes // 2 // MIB * MIB)
            self._learn(body_max_bytes=min(self.profile.body_max_bytes or half_bytes, half_bytes))
            raise


UNLESS_THERE = Option(Feature.CONDITION, {"IfNoneMatch": "*"})


def negotiate(
    send: Callable[..., Any],
    options: list[Option],
    *,
    known: Callable[[Feature], bool | None],
    learn: Callable[[Feature, bool], None],
) -> tuple[Any, set[Feature]]:
    """Give what `send` answers with all options that the store does not refuse, and which those were.

    Where a refusal may be about an option, one more is left out each time: the last one that was left out before it
    succeeds is unknown to the store, and each that was sent is known. Raises what the request with all of them raised,
    or the store's word that a right is missing.
    """
    kept = [option for option in options if known(option.feature) is not False]
    first: Refused | None = None
    dropped: Option | None = None
    while True:
        try:
            answer = send(**{name: value for option in kept for name, value in option.parameters.items()})
        except Refused as error:
            first = first or error
            guilty = _suspect(error, kept, known) if may_be_unknown(error) else None
            if guilty is None:
                # A missing right shows once the option that was refused before it is left out.
                told = error if status_of(error) == 403 else first
                raise told from told.__cause__
            kept, dropped = [option for option in kept if option is not guilty], guilty
        else:
            if dropped:
                learn(dropped.feature, False)
            for option in kept:
                learn(option.feature, True)
            return answer, {option.feature for option in kept}


def _suspect(error: Refused, kept: list[Option], known: Callable[[Feature], bool | None]) -> Option | None:
    """Give the option to leave out next: the one that is named, else those first of which nothing is known."""
    storage_class = next((option for option in kept if option.feature is Feature.STORAGE_CLASS), None)
    if storage_class and code_of(error) in _NAMES_CLASS:
        return storage_class
    order = list(Feature)
    by_order = sorted(kept, key=lambda option: order.index(option.feature))
    untried = [option for option in by_order if known(option.feature) is None]
    if untried:
        return untried[0]
    if storage_class and code_of(error) in _MAY_MEAN_CLASS:
        return storage_class
    return by_order[0] if by_order and status_of(error) in _NEVER else None


# -- what the SDK's answers mean ---------------------------------------------------------------------------------


def object_of(key: str, answer: Mapping[str, Any]) -> StoredObject:
    """Give what a HEAD or a GET tells of an object."""
    metadata = with_known_names(answer.get("Metadata", {}))
    checksum = None
    if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        checksum = crc32_of(answer.get("ChecksumCRC32"))
    size_bytes = answer.get("ContentLength", 0)
    _, slash, whole = str(answer.get("ContentRange") or "").partition("/")
    if slash and whole.isdigit():
        size_bytes = int(whole)
    return StoredObject(
        key=key,
        size_bytes=size_bytes,
        etag=etag_of(answer),
        modified=modified_of(answer),
        metadata=metadata,
        crc32=checksum,
        storage_class=answer.get("StorageClass", "STANDARD"),
        reserved=size_bytes == 0 and _RESERVED in metadata,
    )


def etag_of(entry: Mapping[str, Any]) -> str:
    """Give the ETag without its quotes; a proxy that compresses makes it weak, which the store itself does not know."""
    return str(entry.get("ETag") or "").removeprefix("W/").strip('"')


def modified_of(entry: Mapping[str, Any]) -> float:
    """Give when the object was made, 0 where the store does not tell."""
    modified = entry.get("LastModified")
    return modified.timestamp() if modified else 0.0


def crc32_of(text: str | None) -> int | None:
    """Read x-amz-checksum-crc32; None for none, and for one over the parts' checksums, which ends in "-<parts>"."""
    if not text or "-" in text:
        return None
    try:
        return int.from_bytes(base64.b64decode(text), "big")
    except ValueError:
        return None
