"""One SDK client for one bucket: made when it is needed, renewed when credentials change, one request at a time.

boto3 costs 30 MB and half a second of CPU, so it is imported at the first request and not before.
Each request is one attempt of the SDK's; trying again is done in `attempts`, where a stop can end it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from dumpagent import __version__
from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.gc_pause import uncollected
from dumpagent.secrets import NET, hide
from dumpagent.settings import S3
from dumpagent.store.clock import StoreClock
from dumpagent.store.protocol import Expired, Link
from dumpagent.store_settings import Access, for_replica

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from botocore.exceptions import ClientError
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
# A store, or a proxy before it, may leave a header out for ever; a connection that breaks leaves out another each time.
_LACKING_TIMES = 3
# The SDK's chain is asked for other credentials at most once in this time.
_RENEW_AFTER_S = 60.0
_CONNECTIONS = 16  # kept open for the threads that ask at once
# Source: Alibaba Cloud OSS and Tencent COS, error codes for requests in path style.
_WANTS_VIRTUAL_HOSTS = {"SecondLevelDomainForbidden", "PathStyleDomainForbidden"}
_ALWAYS_ANSWERED = {
    "head_object": ("ContentLength", "ETag", "LastModified"),
    "get_object": ("ContentLength", "ETag", "LastModified"),
    "upload_part": ("ETag",),
    "create_multipart_upload": ("UploadId",),
}


@dataclass(frozen=True, slots=True)
class _Connected:
    """A client with the credentials that it signs with."""

    client: S3Client
    credentials: Credentials | None


class SdkClient:
    """Makes requests to the bucket of `settings`. Safe to use from several threads.

    `access` is for the replica, which the SDK's own variables are not about. `reads_only` is for somebody who fetches
    dumps: hints ask for no more rights than that takes.
    """

    def __init__(
        self,
        settings: S3,
        *,
        access: Access | None = None,
        reads_only: bool = False,
        clock: StoreClock | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._reads_only, self._monotonic = settings, reads_only, monotonic
        self._access, self._clock = access, clock or StoreClock()
        self._lock = threading.Lock()  # never held during a request
        self._connected: Future[_Connected] | None = None
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

    def request(self, doing: str, operation: str, **parameters: Any) -> Any:
        """Make one request and give the SDK's answer. Raises Refused, Unreachable, and what reading the body raised.

        Refused credentials are looked up anew: where the SDK's chain gives others by now, Expired is raised, and the
        same request can help.
        """
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError

        from dumpagent.store.s3.errors import speaks_of_credentials, translate

        connected: Future[_Connected] | None = None
        try:
            connected = self._current()
            answer = getattr(connected.result().client, operation)(Bucket=self._settings.bucket, **parameters)
        except (BotoCoreError, ClientError, ResponseParserError, HTTPError, OSError, _BadEndpoint) as error:
            if (failure := getattr(parameters.get("Body"), "failure", None)) is not None:
                raise failure from error  # the dump could not be read: the store has nothing to do with it
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
        except (BotoCoreError, ClientError, OSError, _BadEndpoint) as error:
            raise translate(error, doing=f"making a link to {key}", where=self.name) from error
        token = connected.credentials and connected.credentials.token
        return Link(url, until, at_most=bool(token) and ends is None)

    # -- the client ---------------------------------------------------------------------------------------------

    def _current(self) -> Future[_Connected]:
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

    def _forget(self, connected: Future[_Connected]) -> None:
        with self._lock:
            if self._connected is connected:
                self._connected = None

    def _has_renewed(self, refused: Future[_Connected]) -> bool:
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
        renewed: Future[_Connected] = Future()
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

    def _connect(self) -> _Connected:
        import boto3
        from botocore.config import Config
        from botocore.handlers import validate_bucket_name

        from dumpagent.store.s3.session import new_session
        from dumpagent.store.s3.signing import sign_with
        from dumpagent.store.s3.tls import blockwise

        core = new_session(self._access)
        session = boto3.session.Session(botocore_session=core)
        credentials = session.get_credentials()
        _learn_secrets(credentials)
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
            # setting the SDK would hash each body with SHA-256 for its signature, which few stores ask for.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"payload_signing_enabled": self._signs_bodies, "addressing_style": self._style(core)},
            # AWS_ENDPOINT_URL is the first store's, whose setting has it already.
            ignore_configured_endpoint_urls=self._access is not None,  # type: ignore[call-arg]
        )
        try:
            with nullcontext() if self._reads_only else blockwise():
                client: S3Client = session.client(
                    "s3",
                    endpoint_url=self._settings.endpoint_url or None,
                    # A store of one's own has no regions, but the signature needs one.
                    region_name=session.region_name or ("us-east-1" if own_endpoint else None),
                    verify=core.get_config_variable("ca_bundle"),
                    config=config,
                )
        except ValueError as error:  # an endpoint URL or a region that the SDK cannot parse
            raise _BadEndpoint(str(error)) from error
        # The SDK would ask before each body whether it may send it: a round trip more for each part.
        client.meta.events.register_last("before-call.s3", _send_at_once)
        sign_with(client, self._clock)
        if own_endpoint:
            client.meta.events.register_last("before-call.s3.HeadBucket", _know_no_region)
        if ":" in self._settings.bucket:  # Ceph RGW's tenant:bucket, which the SDK's own check refuses
            client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
        return _Connected(client, credentials)

    def _style(self, core: Any) -> Literal["auto", "path", "virtual"]:
        """Give the addressing style: the setting, the SDK's own configuration, or what usually works."""
        if self._virtual_hosts:
            return "virtual"
        if self._settings.addressing_style != "auto":
            return cast("Literal['path', 'virtual']", self._settings.addressing_style)
        configured = (core.get_scoped_config().get("s3") or {}).get("addressing_style")
        if configured in ("path", "virtual"):
            return cast("Literal['path', 'virtual']", configured)
        return "path" if self._settings.endpoint_url else "auto"


class _BadEndpoint(ValueError):
    """The SDK cannot make a client of these settings."""


def _keys_of(connected: _Connected) -> object:
    if connected.credentials is None:
        return None
    keys = connected.credentials.get_frozen_credentials()
    return keys.access_key, keys.secret_key, keys.token


def _learn_secrets(found: Any) -> None:
    """Hide what a profile or a file of the SDK's holds. What is renewed is known by its form, and costs a request."""
    from botocore.credentials import RefreshableCredentials

    if found is not None and not isinstance(found, RefreshableCredentials):
        NET.learn(found.secret_key)
        NET.learn(found.token or "")


def _send_at_once(params: dict[str, Any], **_more: object) -> None:
    params["headers"].pop("Expect", None)


@dataclass(frozen=True, slots=True)
class _NotAsked:
    """The answer to a request that was not made."""

    status_code: int = 200


def _know_no_region(**_more: object) -> Any:
    """After a redirection the SDK would ask for the bucket's region by a HEAD, be redirected, and ask again without end."""
    return _NotAsked(), {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}}


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
