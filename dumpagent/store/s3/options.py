"""Headers that a store may not know, with what it says of one."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dumpagent.errors import Refused
from dumpagent.store.protocol import Corrupted, Expired, NoSuchUpload, Occupied, TooLarge
from dumpagent.store.s3.request import code_of, status_of


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


def may_be_unknown(error: Refused) -> bool:
    """Say whether the store may have refused for an option, or a request, that it does not know."""
    if isinstance(error, Occupied | NoSuchUpload | Corrupted | TooLarge | Expired):
        return False
    return status_of(error) in UNKNOWN_STATUSES and code_of(error) not in _OTHER_REASONS
