"""Sends one request to the bucket until it is answered, with a client that is made when it is needed.

boto3 costs 30 MB and half a second of CPU, so it is imported at the first request and not before.
The SDK's own retries are off: they do not end when the agent is told to, and send a body from where the last
attempt left it. What still fails after our attempts is for the caller, who tries the whole dump again later.
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import tenacity

from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.gc_pause import uncollected
from dumpagent.secrets import hide
from dumpagent.settings import S3
from dumpagent.store.clock import StoreClock
from dumpagent.store.pace import Pace
from dumpagent.store.protocol import Body, Corrupted, Expired, Link
from dumpagent.store.s3.profile import Digest
from dumpagent.store_settings import Access, for_replica

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3.client import S3Client

    from dumpagent.store.s3.session import Connected

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.2, 5.0
_LONGEST_ASKED_S = 30.0
_WORTH_ANOTHER = (Unreachable, Corrupted)
# A store, or a proxy before it, may leave a header out for ever; a connection that breaks leaves out another each time.
_LACKING_TIMES = 3
# The SDK's chain is asked for other credentials at most once in this time.
_RENEW_AFTER_S = 60.0
# Source: Alibaba Cloud OSS and Tencent COS, error codes for requests in path style.
_WANTS_VIRTUAL_HOSTS = {"SecondLevelDomainForbidden", "PathStyleDomainForbidden"}
_ALWAYS_ANSWERED = {
    "head_object": ("ContentLength", "ETag", "LastModified"),
    "get_object": ("ContentLength", "ETag", "LastModified"),
    "upload_part": ("ETag",),
    "create_multipart_upload": ("UploadId",),
}
# What a look at a key says that is free. Of a HEAD it is no error, and no reason to look for one.
ABSENT = ("404", "NoSuchKey", "NotFound")
_growing = tenacity.wait_exponential_jitter(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)


def _wait_s(state: tenacity.RetryCallState) -> float:
    """Give the growing wait, or the one that the store asked for: a store that is busy counts who comes too early."""
    raised = state.outcome.exception() if state.outcome else None
    asked_s = raised.retry_after_s if isinstance(raised, Unreachable) else 0.0
    return max(_growing(state), min(asked_s, _LONGEST_ASKED_S))


class Requests:
    """Makes requests to the bucket of `settings`. Safe to use from several threads.

    At most `attempts` for each, with growing waits that `stop` ends. `pace` says how fast bodies may be sent. `access` is for the replica, which the SDK's own variables are not about. `reads_only` is for somebody who fetches
    dumps: hints ask for no more rights than that takes.
    """

    def __init__(
        self,
        settings: S3,
        *,
        stop: threading.Event,
        attempts: int = 4,
        pace: Pace | None = None,
        access: Access | None = None,
        reads_only: bool = False,
        clock: StoreClock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._reads_only, self._monotonic = settings, reads_only, monotonic
        self._access, self._clock = access, clock or StoreClock()
        self._pace = pace if pace and pace.has_limit else None
        self._attempts, self._stop = attempts, stop
        self._lock = threading.Lock()  # never held during a request
        self._connected: Future[Connected] | None = None
        self._renew_at = 0.0
        self._lacked: dict[str, tuple[tuple[str, ...], int]] = {}
        self._virtual_hosts = self._signs_bodies = False

    @property
    def name(self) -> str:
        at = f" at {hide(self._settings.endpoint_url)}" if self._settings.endpoint_url else " (AWS)"
        return f"bucket {self._settings.bucket}{at}"

    def connect(self) -> S3Client:
        """Give the client, made by the first thread that asks; the others wait for it."""
        return self._current().result().client

    def send(
        self,
        doing: str,
        operation: str,
        *,
        body: Body | None = None,
        digest: Digest = Digest.NONE,
        **parameters: Any,
    ) -> Any:
        """Send until there is an answer, a refusal, or the attempts are used up; give what `once` gives.

        The request is made anew each time: body, digest, and after Expired credentials too. Those are worth one attempt
        more, at once; who gets the same ones again need not ask a third time. Raises what the last attempt raised.
        """

        def send() -> Any:
            if body is None:
                return self.once(doing, operation, **parameters)
            # Of the body of the attempt before nobody knows how far it was read.
            data = body.data if isinstance(body.data, bytes) else body.data.anew()
            digests = digest_of(Body(data, body.crc32), digest)  # reads the bytes, at any pace
            if self._pace:
                data = self._pace.paced(data)
            return self.once(doing, operation, Body=data, **digests, **parameters)

        def send_with_fresh_credentials() -> Any:
            try:
                return send()
            except Expired:
                return send()

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_WORTH_ANOTHER),
            stop=tenacity.stop_after_attempt(self._attempts) | tenacity.stop_when_event_set(self._stop),
            wait=_wait_s,
            sleep=tenacity.sleep_using_event(self._stop),
            reraise=True,
        )
        return retrying(send_with_fresh_credentials)

    def once(self, doing: str, operation: str, **parameters: Any) -> Any:
        """Make one request and give the SDK's answer, None of a HEAD where nothing is there.

        Raises Refused, Unreachable, and what reading the body raised.

        Refused credentials are looked up anew: where the SDK's chain gives others by now, Expired is raised, and the
        same request can help.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        from dumpagent.store.s3.errors import speaks_of_credentials, translate
        from dumpagent.store.s3.session import BadEndpoint

        connected: Future[Connected] | None = None
        try:
            connected = self._current()
            answer = getattr(connected.result().client, operation)(Bucket=self._settings.bucket, **parameters)
        except (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError, BadEndpoint) as error:
            if (failure := getattr(parameters.get("Body"), "failure", None)) is not None:
                raise failure from error  # the dump could not be read: the store has nothing to do with it
            if operation == "head_object" and isinstance(error, ClientError):
                if error.response.get("Error", {}).get("Code") in ABSENT:
                    return None
            told = translate(error, doing=doing, where=self.name, reads_only=self._reads_only)
            if self._access:
                told.hint = for_replica(told.hint)
            if connected and isinstance(error, ClientError) and self._learns_from(error):
                raise Expired(str(told), hint=told.hint) from error
            if connected and speaks_of_credentials(error) and self._has_renewed(connected):
                raise Expired(str(told), hint=told.hint) from error
            if connected and isinstance(error, BotoCoreError) and "SSL" in type(error).__name__:
                self._forget(connected)  # the file with the CAs may have been replaced
            raise told from error
        # The standard library takes headers that the connection's end cut off for all of them.
        lacking = tuple(field for field in _ALWAYS_ANSWERED.get(operation, ()) if field not in answer)
        if not self._lacks_as_ever(operation, lacking):
            raise Unreachable(f"{doing} in {self.name}: the answer was cut off")
        return answer

    def _lacks_as_ever(self, operation: str, lacking: tuple[str, ...]) -> bool:
        """Say whether an answer can be taken: it is whole, or the store has left out the same three times in a row."""
        if not lacking:
            self._lacked.pop(operation, None)
            return True
        with self._lock:
            before, times = self._lacked.get(operation, (lacking, 0))
            times = times + 1 if before == lacking else 1
            self._lacked[operation] = (lacking, times)
        return times >= _LACKING_TIMES and len(lacking) == 1 and "UploadId" not in lacking

    def link(self, key: str, for_s: float) -> Link:
        """Give a link to the object `key`, which ends with the credentials that sign it. Raises Refused, Unreachable.

        Source: S3 User Guide, "Download and upload objects with presigned URLs": at most 7 days.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        from dumpagent.store.s3.credentials import expiry_of
        from dumpagent.store.s3.errors import translate
        from dumpagent.store.s3.session import BadEndpoint

        try:
            connected = self._current().result()
            if connected.credentials is not None:
                connected.credentials.get_frozen_credentials()  # renews them if they end soon
            now, ends = time.time(), expiry_of(connected.credentials)
            until = now + for_s if ends is None else min(now + for_s, ends)
            url = connected.client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._settings.bucket, "Key": key},
                ExpiresIn=max(1, int(until - now)),
            )
        except (BotoCoreError, ClientError, OSError, BadEndpoint) as error:
            raise translate(error, doing=f"making a link to {key}", where=self.name) from error
        token = connected.credentials and connected.credentials.token
        return Link(url, until, at_most=bool(token) and ends is None)

    # -- the client ---------------------------------------------------------------------------------------------

    def _current(self) -> Future[Connected]:
        with self._lock:
            connected = self._connected
            if connected is not None:
                return connected
            connected = self._connected = Future()
        try:
            with uncollected():
                connected.set_result(self._connect())
        except BaseException as error:
            self._forget(connected)
            connected.set_exception(error)
            raise
        return connected

    def _forget(self, connected: Future[Connected]) -> None:
        with self._lock:
            if self._connected is connected:
                self._connected = None

    def _has_renewed(self, refused: Future[Connected]) -> bool:
        """Ask the SDK's chain anew, if it is time; say whether the next request goes with other credentials."""
        with self._lock:
            if self._connected is not refused:
                return True  # another thread has renewed them
            if self._monotonic() < self._renew_at:
                return False
            self._renew_at = self._monotonic() + _RENEW_AFTER_S
        try:
            fresh = self._connect()
            if _keys_of(fresh) == _keys_of(refused.result()):
                return False
        except Exception:  # noqa: BLE001 - no other credentials can be had: the store's refusal is what is told
            return False
        renewed: Future[Connected] = Future()
        renewed.set_result(fresh)
        with self._lock:
            if self._connected is refused:
                self._connected = renewed
        return True

    def _learns_from(self, error: ClientError) -> bool:
        """Say whether the next request goes otherwise: by the store's clock, in virtual-host style, with signed bodies."""
        from dumpagent.store.s3.errors import code_and_status, refuses_unsigned_body

        code, _ = code_and_status(error)
        headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if self._clock.learns_from(code, str(headers.get("date", ""))):
            return True
        wants_hosts = code in _WANTS_VIRTUAL_HOSTS and self._settings.addressing_style == "auto"
        with self._lock:
            virtual_hosts = self._virtual_hosts or wants_hosts
            signs_bodies = self._signs_bodies or refuses_unsigned_body(error)
            if (virtual_hosts, signs_bodies) == (self._virtual_hosts, self._signs_bodies):
                return False
            self._virtual_hosts, self._signs_bodies, self._connected = virtual_hosts, signs_bodies, None
        return True

    def _connect(self) -> Connected:
        from dumpagent.store.s3.session import connect

        return connect(
            self._settings,
            self._access,
            self._clock,
            virtual_hosts=self._virtual_hosts,
            signs_bodies=self._signs_bodies,
            reads_only=self._reads_only,
        )


def _keys_of(connected: Connected) -> object:
    if connected.credentials is None:
        return None
    keys = connected.credentials.get_frozen_credentials()
    return keys.access_key, keys.secret_key, keys.token


def code_of(error: DumpagentError) -> str:
    """Give the store's own code behind a refusal, empty if there is none."""
    return _answer_of(error)[0]


def status_of(error: DumpagentError) -> int:
    """Give the HTTP status behind a refusal, 0 if there is none."""
    return _answer_of(error)[1]


def _answer_of(error: DumpagentError) -> tuple[str, int]:
    from botocore.exceptions import ClientError

    from dumpagent.store.s3.errors import code_and_status

    cause = error.__cause__
    return code_and_status(cause) if isinstance(cause, ClientError) else ("", 0)


def digest_of(body: Body, digest: Digest) -> dict[str, str]:
    """Give the digest of `body` as the SDK's parameters."""
    if digest in (Digest.MD5, Digest.ASKED_FOR_MD5):
        if (md5 := body.md5()) is not None:
            return {"ContentMD5": base64.b64encode(md5).decode()}
        # A FIPS machine without MD5: the header that every S3 SDK sends, which most stores keep and AWS verifies.
        return {"ChecksumCRC32": base64_of(body.crc32)}
    if digest in (Digest.CRC32, Digest.ASKED_FOR_CRC32):
        return {"ChecksumCRC32": base64_of(body.crc32)}
    return {}


def base64_of(crc32: int) -> str:
    """Give a CRC32 as it stands in x-amz-checksum-crc32."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()
