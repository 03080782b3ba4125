"""Signs requests by the store's clock, and links with version 4 of the signature."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from botocore import auth

from dumpagent.store.clock import StoreClock

if TYPE_CHECKING:
    from botocore.awsrequest import AWSRequest
    from mypy_boto3_s3.client import S3Client

_AHEAD = "dumpagent_clock_ahead_s"  # in the context of a request
_REQUESTS, _LINKS = "s3v4-by-the-stores-clock", "s3v4-by-the-stores-clock-query"


class _ByStoresClock:
    """Moves the time that the SDK signs with to the store's."""

    def _modify_request_before_signing(self, request: AWSRequest) -> None:
        by_ours = dt.datetime.strptime(request.context["timestamp"], auth.SIGV4_TIMESTAMP).replace(
            tzinfo=dt.UTC
        )
        by_the_stores = by_ours + dt.timedelta(seconds=request.context.get(_AHEAD, 0.0))
        request.context["timestamp"] = by_the_stores.strftime(auth.SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)  # type: ignore[misc]


class _SignedRequest(_ByStoresClock, auth.S3SigV4Auth):
    """A request with its signature in a header."""


class _SignedLink(_ByStoresClock, auth.S3SigV4QueryAuth):
    """A link with its signature in the query."""


auth.AUTH_TYPE_MAPS.update({_REQUESTS: _SignedRequest, _LINKS: _SignedLink})


def sign_with(client: S3Client, clock: StoreClock) -> None:
    """Let `client` sign by that clock.

    Links of version 2, which the SDK would make, show the key and are refused by newer regions and stores.
    """

    def choose(signature_version: Any, context: dict[str, Any], **_more: object) -> str | None:
        context[_AHEAD] = clock.ahead_s
        if not isinstance(signature_version, str) or signature_version.startswith(("v4a", "v4-s3express")):
            return None  # no signature, or one that AWS alone knows
        if signature_version.endswith("-query"):
            return _LINKS
        by_the_stores = clock.ahead_s and signature_version in ("s3v4", "v4")
        return _REQUESTS if by_the_stores else None  # where the clocks agree the SDK's own will do

    signer: Callable[..., Any] = choose
    client.meta.events.register_first("choose-signer.s3", signer)
