"""Headers that a store may not know: sent until it refuses one, left out from then on."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dumpagent.errors import Refused
from dumpagent.store.protocol import Corrupted, Expired, NoSuchUpload, Occupied, TooLarge
from dumpagent.store.s3.client import code_of, status_of


class Feature(enum.Enum):
    """What only some stores know; the value is the field of the profile that says whether this one does."""

    TAGS = "tags"
    STORAGE_CLASS = "storage_class"
    WHOLE_CHECKSUM = "whole_checksum"
    CONDITION = "conditional"


@dataclass(frozen=True, slots=True)
class Option:
    """A feature with the parameters that use it in one request."""

    feature: Feature
    parameters: Mapping[str, Any]


# A store that does not know a header, or a request, says so in one of these ways; nothing else is about them.
UNKNOWN_STATUSES = {400, 403, 405, 406, 411, 415, 417, 422, 501, 505, 510}
# Refusals that have nothing to do with an option, whatever their status.
_OTHER_REASONS = {
    "NoSuchBucket",
    "NoSuchKey",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "ExpiredToken",
    "ExpiredTokenException",
    "TokenRefreshRequired",
    "RequestExpired",
    "AuthFailure",
    "PermanentRedirect",
    "IncorrectEndpoint",
    "IllegalLocationConstraintException",
    "InvalidObjectState",
    "RequestTimeTooSkewed",
    "InvalidBucketName",
    "AuthorizationHeaderMalformed",
    "QuotaExceeded",
    "InvalidPart",
    "InvalidPartOrder",
    "EntityTooSmall",
    "KeyTooLongError",
    "MissingContentLength",
    "SecondLevelDomainForbidden",
    "PathStyleDomainForbidden",
}
_NAMES_CLASS = {"InvalidStorageClass"}  # MinIO, Swift
# Ceph RGW without that class, which it accepts for a multipart upload all the same.
_MAY_MEAN_CLASS = {"InvalidArgument"}
_NEVER = {501, 505}


def may_be_unknown(error: Refused) -> bool:
    """Say whether the store may have refused for an option, or a request, that it does not know."""
    if isinstance(error, Occupied | NoSuchUpload | Corrupted | TooLarge | Expired):
        return False
    return status_of(error) in UNKNOWN_STATUSES and code_of(error) not in _OTHER_REASONS


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
