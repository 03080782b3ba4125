"""What the S3 SDK raises, as our two kinds of error, each with what happened and what a person does next."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as sdk
from botocore.parsers import ResponseParserError

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.secrets import hide
from dumpagent.store.protocol import Corrupted, NoSuchUpload, Occupied, TooLarge

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
    "RequestTimeTooSkewed": "the clocks of this node and the store differ by more than 15 minutes, and its answers do not tell its time: mend NTP on the node",
    "InvalidBucketName": "correct S3_BUCKET: 3 to 63 lower-case letters, digits, dots and hyphens",
    "QuotaExceeded": "the store's quota is used up: raise it or delete old dumps; nothing is deleted here meanwhile",
    "NoSuchKey": "`dumpagent ls` shows what is there",
    "Denied": (
        "a policy denies it explicitly, so no further right helps: ask its owner; where the bucket asks for encryption, set "
        "S3_SSE (AES256, aws:kms or aws:kms:dsse) and S3_SSE_KMS_KEY_ID, for an ACL set S3_ACL, for tags S3_TAGS"
    ),
    "KMS": (
        "give these credentials kms:GenerateDataKey and kms:Decrypt on the bucket's KMS key, in the key's own policy too; or "
        "name another key by S3_SSE_KMS_KEY_ID"
    ),
    "Archived": (
        "the object is archived: restore it first (`aws s3api restore-object --bucket BUCKET --key KEY --restore-request Days=7`, "
        "hours for Glacier), then ask again; S3_STORAGE_CLASS=STANDARD_IA keeps dumps at hand"
    ),
    "Full": "the store has no room left: add disks or delete objects there; dumps stay on the volume meanwhile",
    "TooLarge": (
        "the largest request allowed is below 5 MiB, the smallest part of S3: raise it in the proxy before the store "
        "(nginx: client_max_body_size 64m; ingress-nginx: the annotation nginx.ingress.kubernetes.io/proxy-body-size: 64m)"
    ),
    "Unknown": "this store does not know the request; see docs/stores.md for what it must know",
    "VirtualHosts": "set S3_ADDRESSING_STYLE=virtual: this store takes the bucket in the host name only",
    "MissingContentLength": "the store cannot take chunked requests; please report this with the name of the store",
}
_NO_CONNECTION = "check S3_ENDPOINT_URL (scheme, host, port), DNS and network policies from this pod to the store; dumps wait meanwhile"
_NO_NAME = "the host of S3_ENDPOINT_URL has no address: correct it, or look at the pod's DNS (CoreDNS, ndots, a network policy for port 53); dumps wait meanwhile"
_NO_LISTENER = "nobody listens there: correct the port of S3_ENDPOINT_URL, or look whether the store runs; dumps wait meanwhile"
_NO_ANSWER = "no answer in time: a network policy or firewall drops the packets, or the store hangs; dumps wait meanwhile"
_TLS = "for a private CA set AWS_CA_BUNDLE to a readable file with its certificate; else check S3_ENDPOINT_URL's host name and http/https"
_NO_STORE = (
    "a portal, a console or a proxy answers in the store's place: check S3_ENDPOINT_URL (host, port of the S3 API and not of the "
    "console, path) and HTTPS_PROXY; dumps wait meanwhile"
)
_PROXY = "correct HTTPS_PROXY, or name the store's host in NO_PROXY (host, .domain or CIDR)"
_LOOK_AT_STORE = "look at the store's own health and log; dumps wait on the volume and are tried again"
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
    "InsufficientStorage": "Full",
    "XMinioStorageFull": "Full",
    "StorageFull": "Full",
    "507": "Full",
    "InvalidObjectState": "Archived",
    "KMS.DisabledException": "KMS",
    "KMS.NotFoundException": "KMS",
    "KMS.KMSInvalidStateException": "KMS",
    "KMS.InvalidStateException": "KMS",
    "SecondLevelDomainForbidden": "VirtualHosts",
    "PathStyleDomainForbidden": "VirtualHosts",
    "404": "NoSuchBucket",
    "413": "TooLarge",
    "EntityTooLarge": "TooLarge",
    "NotImplemented": "Unknown",
    "MethodNotAllowed": "Unknown",
    "501": "Unknown",
    "505": "Unknown",
    "405": "Unknown",
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
# Source: RFC 9110, 15.5; RFC 8470, 5.2; nginx's 499 and AWS load balancers' 460 for a connection that was closed on them.
_PASSING_STATUSES = {408, 421, 425, 429, 460, 499}
_CORRUPTED = {
    "BadDigest",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
}
_WANT_SIGNED_BODIES = {"XAmzContentSHA256Mismatch", "UnsignedPayloadNotAllowed", "MissingContentSHA256"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_TOO_LARGE = {"413", "EntityTooLarge", "RequestEntityTooLarge", "MaxMessageLengthExceeded"}
# These mean never, not later. Source: S3 API Reference, "Error responses"; RFC 9110, 15.6.2 and 15.6.6.
_NEVER = {"NotImplemented", "501", "505"}
_FULL = {"XMinioStorageFull", "StorageFull", "InsufficientStorage", "507"}
# What a store answers to credentials that it does not take, or no longer: Vault and sidecars replace files, and the
# old keys are then simply unknown.
_OF_CREDENTIALS = {
    *_EXPIRED,
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidToken",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "AccessDenied",
    "Forbidden",
    "401",
    "403",
    "Unauthorized",
    "AuthFailure",
    "RequestExpired",
    "InvalidSecurity",
    "NotSignedUp",
}
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
    if code in _TOO_LARGE or status == 413:
        return TooLarge(said, hint=_HINTS["TooLarge"])
    # The answer to a HEAD has no body, and so no code: 400 is all that it says of a token that is over.
    if code in _EXPIRED:
        return Refused(said, hint=_HINTS["ExpiredToken"])
    if special := _special_hint(code, text):
        return Refused(said, hint=special)
    if code in _CORRUPTED:
        return Corrupted(said, hint="the bytes were damaged between here and the store; they are sent again")
    if moved := _moved_to(error, status):
        return Refused(said, hint=moved)
    if code in _WRONG_REGION or (status in (301, 307, 400) and "region" in text.lower()):
        region = (
            error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
        )
        expected = str(error.response.get("Error", {}).get("Region", "") or region)
        return Refused(
            said, hint=f"set AWS_DEFAULT_REGION to the bucket's region{f': {expected}' if expected else ''}"
        )
    is_for_ever = code in _NEVER or status in (501, 505) or code in _FULL or status == 507
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    is_page = str(headers.get("content-type", "")).startswith("text/html")
    if is_page and status in (401, 403):
        return Unreachable(f"{what}: a web page answers {status}, which is no S3 store", hint=_NO_STORE)
    if not is_for_ever and (code in _PASSING or status >= 500 or status in _PASSING_STATUSES):
        if code == "500" and is_page:
            # So the SDK tells a page that came with 200, too.
            return Unreachable(f"{what}: a web page answers, which is no S3 store", hint=_NO_STORE)
        busy = Unreachable(said, hint=_LOOK_AT_STORE)
        busy.retry_after_s = _retry_after_s(error)
        return busy
    hint = (
        _HINTS.get(code)
        or _HINTS.get(_SAME_HINT.get(code, ""), "")
        or _HINTS.get(_SAME_HINT.get(str(status), ""), "")
    )
    return Refused(said, hint=hint or _DEFAULT)


def _retry_after_s(error: sdk.ClientError) -> float:
    """Source: RFC 9110, 10.2.3: seconds, or a date, which no store was seen to use."""
    asked = str(error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", ""))
    return float(asked) if asked.isdecimal() else 0.0


def _moved_to(error: sdk.ClientError, status: int) -> str:
    """Give the hint of a redirection to another address: S3 requests are signed for one, so nobody follows it."""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    to = urlsplit(str(headers.get("location", "")))
    if status not in (301, 302, 303, 307, 308) or not to.netloc or "x-amz-bucket-region" in headers:
        return ""
    where = hide(f"{to.scheme}://{to.netloc}")
    return f"the address redirects to {where}: set S3_ENDPOINT_URL to the store's own address, {where} if that is it"


_DEFAULT = (
    "the store gives no reason that is known here: look at its log for this request, and at docs/stores.md"
)


def _special_hint(code: str, text: str) -> str:
    """Give the hint of a refusal whose text says more than its code."""
    lower = text.lower()
    if code.startswith("KMS.") or "kms:" in lower or "kms key" in lower:
        return _HINTS["KMS"]
    if "explicit deny" in lower:
        return _HINTS["Denied"]
    if code == "InvalidObjectState" or ("archive" in lower and code in ("AccessDenied", "403")):
        return _HINTS["Archived"]
    return ""


def speaks_of_credentials(error: Exception) -> bool:
    """Say whether other credentials could make the same request succeed.

    The answer to a HEAD has no body, and so no code: 400 is all that it says of a token that has expired.
    """
    if not isinstance(error, sdk.ClientError):
        return False
    code, _ = code_and_status(error)
    return code in _OF_CREDENTIALS or (code == "400" and error.operation_name == "HeadObject")


def refuses_unsigned_body(error: sdk.ClientError) -> bool:
    """Say whether the store asks for the SHA-256 of each body in the signature, which S3 leaves to the client.

    Source: S3 API Reference, "Authenticating requests: using the Authorization header", x-amz-content-sha256.
    """
    code, status = code_and_status(error)
    text = str(error.response.get("Error", {}).get("Message", "") or "").lower()
    names_it = "content-sha256" in text or "unsigned-payload" in text or "unsigned payload" in text
    return code in _WANT_SIGNED_BODIES or (names_it and status in (400, 403, 501))


def _from_connection(error: Exception, what: str) -> DumpagentError:
    text = " ".join(str(error).split())
    if (
        isinstance(error, OSError) and error.filename
    ):  # the web identity's token, while the pod is being set up
        return Refused(
            f"{what}: {error.filename} cannot be read: {error.strerror}",
            hint="correct the variable that names it (AWS_WEB_IDENTITY_TOKEN_FILE, or for EKS Pod Identity AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE), or mount the token",
        )
    if isinstance(error, sdk.NoCredentialsError | sdk.PartialCredentialsError):
        return Refused(
            f"{what}: no credentials were found ({text})",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, or an AWS profile",
        )
    if isinstance(error, sdk.NoRegionError):
        return Refused(f"{what}: no region is known", hint="set AWS_DEFAULT_REGION to the bucket's region")
    if isinstance(error, ResponseParserError):
        return Unreachable(f"{what}: what answers there is no S3 store: {_cut(text)}", hint=_NO_STORE)
    if isinstance(error, sdk.ProxyConnectionError):
        return Unreachable(f"{what}: the proxy cannot be used: {text}", hint=_PROXY)
    if isinstance(error, sdk.SSLError):
        return Unreachable(f"{what}: TLS failed: {text}", hint=_TLS)
    if isinstance(
        error, sdk.ParamValidationError | sdk.InvalidS3AddressingStyleError | sdk.UnknownServiceError
    ):
        return Refused(f"{what}: {text}", hint="check S3_BUCKET and S3_ENDPOINT_URL")
    if isinstance(error, sdk.ConnectTimeoutError | sdk.ReadTimeoutError):
        return Unreachable(f"{what}: timed out: {text}", hint=_NO_ANSWER)
    if isinstance(error, sdk.EndpointConnectionError | sdk.ConnectionClosedError):
        said, hint = _connection_fault(error)
        return Unreachable(f"{what}: {said}{text}", hint=hint)
    if isinstance(
        error, sdk.CredentialRetrievalError | sdk.MetadataRetrievalError | sdk.UnauthorizedSSOTokenError
    ):
        return Unreachable(
            f"{what}: {text}",
            hint=(
                "the credential provider gave nothing: check AWS_ROLE_ARN and its token file, or for EKS Pod Identity the agent on the node "
                "(AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)"
            ),
        )
    return Unreachable(
        f"{what}: {type(error).__name__}: {text}",
        hint="look at the store's health and the network between; dumps wait on the volume and are tried again",
    )


def _cut(text: str) -> str:
    """Give the begin of what a parser says, which shows the whole answer."""
    return text if len(text) <= 160 else f"{text[:160]}..."


def _connection_fault(error: Exception) -> tuple[str, str]:
    """Say why no connection came about, and what to do: DNS, a closed port, or something between."""
    told = f"{error} {getattr(error, 'kwargs', {}).get('error', '')}".lower()
    if any(
        word in told
        for word in (
            "name resolution",
            "name or service",
            "nameresolution",
            "getaddrinfo",
            "no address",
            "failed to resolve",
        )
    ):
        return "DNS failed: ", _NO_NAME
    if "refused" in told:
        return "connection refused: ", _NO_LISTENER
    if "unreachable" in told or "no route" in told:
        return "no route: ", _NO_CONNECTION
    return "", _NO_CONNECTION
