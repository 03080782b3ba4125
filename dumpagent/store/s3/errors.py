"""What the S3 SDK raises, as our two kinds of error, each with what happened and what a person does next."""

from __future__ import annotations

from typing import Any

from botocore import exceptions as sdk

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.store.protocol import Corrupted, Expired, NoSuchUpload, Occupied

# Error codes by what they ask of a person. Source: S3 API Reference, "Error responses"; Ceph RGW and Swift s3api use the same
# names, older or smaller stores the HTTP status alone.
_HINTS: dict[str, str] = {
    "NoSuchBucket": "create the bucket, or correct S3_BUCKET (and S3_ENDPOINT_URL: the bucket is looked for there)",
    "AccessDenied": (
        "give these credentials s3:PutObject, s3:GetObject, s3:ListBucket and s3:AbortMultipartUpload on the bucket and its objects"
    ),
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID: the store does not know this key (revoked, or of another store?)",
    "SignatureDoesNotMatch": "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: they do not belong together, or the store knows neither",
    "ExpiredToken": "renew the temporary credentials (AWS_SESSION_TOKEN); with IRSA check that the pod's token file is refreshed",
    "InvalidToken": "AWS_SESSION_TOKEN does not belong to these keys; remove it for long-lived keys",
    "RequestTimeTooSkewed": "the clocks of this node and the store differ by more than 15 minutes: mend NTP on the node",
    "InvalidBucketName": "correct S3_BUCKET: 3 to 63 lower-case letters, digits, dots and hyphens",
    "QuotaExceeded": "the store's quota is used up: raise it or delete old dumps; nothing is deleted here meanwhile",
    "NoSuchKey": "`dumpagent ls` shows what is there",
    "MissingContentLength": "the store cannot take chunked requests; please report this with the name of the store",
}
_NO_CONNECTION = "check S3_ENDPOINT_URL (scheme, host, port), DNS and network policies from this pod to the store; dumps wait meanwhile"
# What a person at the other end of the road does instead.
_READER_HINTS = {
    _HINTS[
        "AccessDenied"
    ]: "these credentials need s3:ListBucket on the bucket and s3:GetObject on its objects",
    _HINTS["NoSuchBucket"]: "correct S3_BUCKET (and S3_ENDPOINT_URL: the bucket is looked for there)",
    _HINTS[
        "RequestTimeTooSkewed"
    ]: "this machine's clock and the store's differ by more than 15 minutes: correct yours",
    _NO_CONNECTION: "check S3_ENDPOINT_URL (scheme, host, port), and that this machine reaches it (VPN, proxy)",
}
_SAME_HINT = {
    "403": "AccessDenied",
    "Forbidden": "AccessDenied",
    "AllAccessDisabled": "AccessDenied",
    "AccountProblem": "AccessDenied",
    "UnrecognizedClientException": "InvalidAccessKeyId",
    "ExpiredTokenException": "ExpiredToken",
    "TokenRefreshRequired": "ExpiredToken",
    "InvalidClientTokenId": "InvalidToken",
    "AuthFailure": "SignatureDoesNotMatch",
    "RequestExpired": "RequestTimeTooSkewed",
    "411": "MissingContentLength",
    "QuotaExceededException": "QuotaExceeded",
    "InsufficientStorage": "QuotaExceeded",
    "507": "QuotaExceeded",
}
_WRONG_REGION = {
    "301",
    "PermanentRedirect",
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
}
# Worth another try soon. Source: S3 API Reference, "Error responses", codes with status 5xx, 408 and 429.
_PASSING = {
    "InternalError",
    "SlowDown",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "OperationAborted",
    "ConditionalRequestConflict",
    "BandwidthLimitExceeded",
}
_CORRUPTED = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_OCCUPIED = {"PreconditionFailed", "412"}


def translate(error: Exception, *, doing: str, where: str, reads_only: bool = False) -> DumpagentError:
    """Give the error of ours that `error` of the SDK means. `doing` and `where` begin the message.

    `reads_only`: to somebody who fetches dumps, from wherever he is, and needs no right to write.
    """
    if isinstance(error, sdk.ClientError):
        translated = _from_answer(error, f"{doing} in {where}")
    else:
        translated = _from_connection(error, f"{doing} in {where}")
    if reads_only:
        translated.hint = _READER_HINTS.get(translated.hint, translated.hint)
    return translated


def code_and_status(error: sdk.ClientError) -> tuple[str, int]:
    """Give the store's error code and the HTTP status of its answer."""
    answer: dict[str, Any] = dict(error.response)
    return str(answer.get("Error", {}).get("Code", "")), int(
        answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )


def _from_answer(error: sdk.ClientError, what: str) -> DumpagentError:
    code, status = code_and_status(error)
    text = str(error.response.get("Error", {}).get("Message", "") or "").strip()
    if error.operation_name.startswith("AssumeRole"):
        return Refused(
            f"{what}: no credentials, STS answered {status} {code} ({text})",
            hint="check AWS_ROLE_ARN, the role's trust policy, and that the token in AWS_WEB_IDENTITY_TOKEN_FILE is refreshed",
        )
    said = f"{what}: the store answered {status} {code}" + (f" ({text})" if text and text != code else "")
    if code == "NoSuchUpload":
        return NoSuchUpload(said)
    if code in _OCCUPIED or status == 412:
        return Occupied(said)
    # The answer to a HEAD has no body, and so no code: 400 is all that it says of a token that is over.
    if code in _EXPIRED or (code == "400" and error.operation_name == "HeadObject"):
        return Expired(said, hint=_HINTS["ExpiredToken"])
    if code in _CORRUPTED:
        return Corrupted(said, hint="the bytes were damaged between here and the store; they are sent again")
    if code in _WRONG_REGION or (status in (301, 307, 400) and "region" in text.lower()):
        region = (
            error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
        )
        expected = str(error.response.get("Error", {}).get("Region", "") or region)
        return Refused(
            said, hint=f"set AWS_DEFAULT_REGION to the bucket's region{f': {expected}' if expected else ''}"
        )
    if code in _PASSING or status >= 500 or status in (408, 429):
        return Unreachable(
            said, hint="nothing to do if it passes; if it lasts, look at the store's own health"
        )
    hint = (
        _HINTS.get(code)
        or _HINTS.get(_SAME_HINT.get(code, ""), "")
        or _HINTS.get(_SAME_HINT.get(str(status), ""), "")
    )
    return Refused(said, hint=hint)


def _from_connection(error: Exception, what: str) -> DumpagentError:
    text = " ".join(str(error).split())
    if (
        isinstance(error, OSError) and error.filename
    ):  # the web identity's token, while the pod is being set up
        return Refused(
            f"{what}: {error.filename} cannot be read: {error.strerror}",
            hint="correct AWS_WEB_IDENTITY_TOKEN_FILE, or mount the token that it names",
        )
    if isinstance(error, sdk.NoCredentialsError | sdk.PartialCredentialsError):
        return Refused(
            f"{what}: no credentials were found ({text})",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, or an AWS profile",
        )
    if isinstance(error, sdk.NoRegionError):
        return Refused(f"{what}: no region is known", hint="set AWS_DEFAULT_REGION to the bucket's region")
    if isinstance(error, sdk.ProxyConnectionError):
        return Unreachable(
            f"{what}: {text}", hint="correct HTTPS_PROXY, or name the store's host in NO_PROXY"
        )
    if isinstance(error, sdk.SSLError):
        return Unreachable(
            f"{what}: {text}",
            hint="for a private CA set AWS_CA_BUNDLE to a readable file with its certificate; else check S3_ENDPOINT_URL's host name and http/https",
        )
    if isinstance(
        error, sdk.ParamValidationError | sdk.InvalidS3AddressingStyleError | sdk.UnknownServiceError
    ):
        return Refused(f"{what}: {text}", hint="check S3_BUCKET and S3_ENDPOINT_URL")
    if isinstance(error, sdk.EndpointConnectionError | sdk.ConnectTimeoutError | sdk.ConnectionClosedError):
        return Unreachable(f"{what}: {text}", hint=_NO_CONNECTION)
    if isinstance(
        error, sdk.CredentialRetrievalError | sdk.MetadataRetrievalError | sdk.UnauthorizedSSOTokenError
    ):
        return Unreachable(
            f"{what}: {text}",
            hint="the credential provider gave nothing: check AWS_ROLE_ARN and its token file",
        )
    return Unreachable(
        f"{what}: {type(error).__name__}: {text}",
        hint="nothing to do if it passes; if it lasts, look at the store's health and the network between; dumps wait meanwhile",
    )
