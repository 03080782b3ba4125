"""Makes the SDK's session with its client for one bucket, without what nobody here asks of them."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import BotoCoreError, ConnectionClosedError, ReadTimeoutError
from botocore.handlers import add_expect_header, validate_bucket_name
from botocore.loaders import Loader
from botocore.parsers import ResponseParserError
from urllib3 import HTTPResponse
from urllib3.exceptions import HTTPError

from dumpagent import __version__
from dumpagent.secrets import NET
from dumpagent.settings import S3
from dumpagent.store.clock import StoreClock
from dumpagent.store.s3.signing import sign_with
from dumpagent.store.s3.tls import blockwise
from dumpagent.store.trust import ca_file, ca_file_set
from dumpagent.store_settings import Access

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_s3.client import S3Client

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
# A page of a listing has at most 1,000 entries with keys of 1,024 bytes, each of which may take three when it is encoded.
# Source: S3 API Reference, ListObjectsV2, ListParts, ListMultipartUploads. A minute more than the store may be silent.
_ANSWER_BYTES, _ANSWER_TAGS, _ANSWER_S = 8 << 20, 100_000, 120.0
_READ_BYTES = 64 << 10
_CONNECTIONS = 16  # kept open for the threads that ask at once


class _Catalogue(Loader):
    """The SDK's models. Each time it loads one it would look into the folders of all its 400 services first.

    That is 5,000 system calls, and a tenth of the time until the first byte of the first dump.
    """

    def list_available_services(self, _type_name: str) -> list[str]:
        """Give the names of all services, of whatever type: what is asked is only whether one is there."""
        names: set[str] = set()
        for path in self.search_paths:
            with contextlib.suppress(OSError):  # the user's own folder of models is seldom there
                names.update(os.listdir(path))
        return sorted(names)


def new_session(access: Access | None = None) -> botocore.session.Session:
    """Give a session as the SDK makes it: variables, profiles and roles are read when something needs them.

    With `access`, what that says comes before the variables.
    """
    session = botocore.session.Session(profile=(access.profile if access else "") or None)
    if not session.get_config_variable("data_path"):  # AWS_DATA_PATH: models of the user's own come first
        session.register_component("data_loader", _Catalogue())
    # STS and the store alike: the SDK itself asks the other tools' variables for neither, or for one of them.
    with contextlib.suppress(BotoCoreError):  # a profile that is not there: asking for credentials tells
        session.set_config_variable("ca_bundle", _ca_file(session, access))
    if access and access.region:
        session.set_config_variable("region", access.region)
    if access and access.access_key_id:
        session.set_credentials(access.access_key_id, access.secret_access_key, access.session_token or None)
    return session


def _ca_file(session: botocore.session.Session, access: Access | None) -> str | None:
    if access and access.ca_bundle:
        return ca_file(access)
    return ca_file_set(session.get_config_variable("ca_bundle"))


# -- the client -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Connected:
    """A client with the credentials that it signs with."""

    client: S3Client
    credentials: Credentials | None


def connect(
    settings: S3,
    access: Access | None,
    clock: StoreClock,
    *,
    virtual_hosts: bool,
    signs_bodies: bool,
    reads_only: bool,
) -> Connected:
    """Make the client of the bucket in `settings`, with the credentials that the SDK's chain or `access` gives.

    boto3 costs 30 MB and half a second of CPU. Raises what the SDK raises, BadEndpoint.
    """
    import boto3

    core = new_session(access)
    session = boto3.session.Session(botocore_session=core)
    credentials = session.get_credentials()
    _learn_secrets(credentials)
    own_endpoint = bool(settings.endpoint_url)
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
        s3={
            "payload_signing_enabled": signs_bodies,
            "addressing_style": _style(settings, core, virtual_hosts=virtual_hosts),
        },
        # AWS_ENDPOINT_URL is the first store's, whose setting has it already.
        ignore_configured_endpoint_urls=access is not None,  # type: ignore[call-arg]
    )
    try:
        with contextlib.nullcontext() if reads_only else blockwise():
            client: S3Client = session.client(
                "s3",
                endpoint_url=settings.endpoint_url or None,
                # A store of one's own has no regions, but the signature needs one.
                region_name=session.region_name or ("us-east-1" if own_endpoint else None),
                verify=core.get_config_variable("ca_bundle"),
                config=config,
            )
    except ValueError as error:  # an endpoint URL or a region that the SDK cannot parse
        raise BadEndpoint(str(error)) from error
    # The SDK would ask before each body whether it may send it: a round trip more for each part.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    sign_with(client, clock)
    _bound_answers(client)
    if own_endpoint:
        client.meta.events.register_last("before-call.s3.HeadBucket", _know_no_region)
    if ":" in settings.bucket:  # Ceph RGW's tenant:bucket, which the SDK's own check refuses
        client.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    return Connected(client, credentials)


def _bound_answers(client: S3Client) -> None:
    """Let no answer be read that is larger, or takes longer, than any that a store gives.

    The SDK reads an answer to its end, whatever its size, and begins the time that it waits anew with each byte. The
    bytes of an object are left to whoever reads them.
    """
    session: Any = client._endpoint.http_session  # type: ignore[attr-defined]

    def send(request: Any, **_more: object) -> AWSResponse:
        is_object, request.stream_output = request.stream_output, True
        answer: AWSResponse = session.send(request)
        if is_object and answer.status_code < 300:
            return answer
        try:
            data = _read_all(request.url, answer.raw)
        finally:
            answer.raw.close()
            answer.raw.release_conn()
        headers: Any = answer.headers
        read: Any = HTTPResponse(io.BytesIO(data), preload_content=False)
        return AWSResponse(answer.url, answer.status_code, headers, read)

    client.meta.events.register_last("before-send.s3", cast("Callable[..., None]", send))


def _read_all(url: str, raw: Any) -> bytes:
    """Read an answer's body. Raises ResponseParserError, ReadTimeoutError, ConnectionClosedError."""
    data, until = bytearray(), time.monotonic() + _ANSWER_S
    try:
        while chunk := raw.read1(_READ_BYTES):
            data += chunk
            if len(data) > _ANSWER_BYTES or time.monotonic() > until:
                break
    except (HTTPError, OSError) as error:
        raise ConnectionClosedError(endpoint_url=url, error=error) from error
    if len(data) > _ANSWER_BYTES:
        raise ResponseParserError(f"the answer has more than {_ANSWER_BYTES >> 20} MiB")
    if chunk:
        raise ReadTimeoutError(endpoint_url=url, error=f"the answer is not whole after {_ANSWER_S:.0f} s")
    if data.count(b"<") > _ANSWER_TAGS or b"<!ENTITY" in data:
        raise ResponseParserError("the answer has more elements than any of a store, or entities of its own")
    return bytes(data)


def _style(settings: S3, core: Any, *, virtual_hosts: bool) -> Literal["auto", "path", "virtual"]:
    """Give the addressing style: the setting, the SDK's own configuration, or what usually works."""
    if virtual_hosts:
        return "virtual"
    if settings.addressing_style != "auto":
        return cast("Literal['path', 'virtual']", settings.addressing_style)
    configured = (core.get_scoped_config().get("s3") or {}).get("addressing_style")
    if configured in ("path", "virtual"):
        return cast("Literal['path', 'virtual']", configured)
    return "path" if settings.endpoint_url else "auto"


class BadEndpoint(ValueError):
    """The SDK cannot make a client of these settings."""


def _learn_secrets(found: Any) -> None:
    """Hide what a profile or a file of the SDK's holds. What is renewed is known by its form, and costs a request."""
    if found is not None and not isinstance(found, RefreshableCredentials):
        NET.learn(found.secret_key)
        NET.learn(found.token or "")


@dataclass(frozen=True, slots=True)
class _NotAsked:
    """The answer to a request that was not made."""

    status_code: int = 200


def _know_no_region(**_more: object) -> Any:
    """After a redirection the SDK would ask for the bucket's region by a HEAD, be redirected, and ask again without end."""
    return _NotAsked(), {"ResponseMetadata": {"HTTPStatusCode": 200, "HTTPHeaders": {}}}
