"""The settings of the store taken together: what people write for a bucket, and what contradicts itself."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from dumpagent.errors import BadSettings
from dumpagent.settings import S3
from dumpagent.store.tags import faults_of

# Source: botocore.handlers, VALID_BUCKET and the ARNs of access points; Ceph RGW's tenant:bucket.
_BUCKET = re.compile(r"(?:[a-zA-Z0-9_-]+:)?[a-zA-Z0-9._-]{1,255}|arn:[a-z0-9-]+:s3[a-z-]*:\S+")
_LEAST_PART_BYTES = 5 << 20
_OWN_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")


def settle(s3: S3, environ: Mapping[str, str]) -> tuple[S3, list[BadSettings]]:
    """Give the settings as they are meant, and what is wrong with them."""
    wrong: list[BadSettings] = []
    bucket, path = _bucket_and_path(s3.bucket)
    if path and s3.prefix.strip("/") not in ("", path):
        wrong.append(
            BadSettings(
                f"S3_BUCKET holds a prefix, {path!r}, and S3_PREFIX another, {s3.prefix!r}",
                hint="put the bucket's name alone into S3_BUCKET, and the whole prefix into S3_PREFIX",
            )
        )
    if bucket and not _BUCKET.fullmatch(bucket):
        wrong.append(
            BadSettings(
                f"S3_BUCKET is {s3.bucket!r}; accepted: a bucket's name, s3://bucket/prefix, tenant:bucket, or an access point's ARN",
                hint="set S3_BUCKET to the bucket's name; an address belongs into S3_ENDPOINT_URL",
            )
        )
    endpoint_url = s3.endpoint_url or _endpoint_of_the_sdk(environ)
    settled = dataclasses.replace(s3, bucket=bucket, prefix=path or s3.prefix, endpoint_url=endpoint_url)
    return settled, [*wrong, *_contradictions(settled, environ)]


def _bucket_and_path(text: str) -> tuple[str, str]:
    if text.startswith("arn:"):
        return text, ""
    bare = re.sub(r"^s3[an]?://", "", text, flags=re.IGNORECASE)
    if "://" in bare:
        return text, ""
    bucket, _, path = bare.partition("/")
    return bucket, path.strip("/")


def _endpoint_of_the_sdk(environ: Mapping[str, str]) -> str:
    """Give the endpoint that the SDK would use all the same; it is a store of one's own, whose ways are tried out.

    Source: AWS SDKs and Tools Reference Guide, "Service-specific endpoints".
    """
    if environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return ""
    return next((environ[name] for name in _OWN_ENDPOINTS if environ.get(name)), "")


def _contradictions(s3: S3, environ: Mapping[str, str]) -> Iterator[BadSettings]:
    named = environ.get("AWS_ENDPOINT_URL_S3", "")
    if named and named.rstrip("/") != s3.endpoint_url.rstrip("/"):
        yield BadSettings(
            "S3_ENDPOINT_URL and AWS_ENDPOINT_URL_S3 name two stores",
            hint="keep one of them; S3_ENDPOINT_URL is dumpagent's own",
        )
    if s3.sse_kms_key_id and not s3.sse.startswith("aws:kms"):
        yield BadSettings(
            f"S3_SSE_KMS_KEY_ID is set, and S3_SSE is {s3.sse or 'empty'!r}",
            hint="set S3_SSE=aws:kms to use the key, or unset S3_SSE_KMS_KEY_ID",
        )
    if 0 < s3.part_size_bytes < _LEAST_PART_BYTES:
        yield BadSettings(
            f"S3_PART_SIZE is {s3.part_size_bytes}; accepted: 0, or {_LEAST_PART_BYTES} (5 MiB) to {5 << 30}",
            hint="no store takes smaller parts",
        )
    for fault in faults_of(s3.tags):
        yield BadSettings(
            f"S3_TAGS {fault}",
            hint="write S3_TAGS as team=shop&verdict={verdict}; a blank in a value as %20, another & as %26",
        )
    if s3.addressing_style != "virtual":
        return
    if ":" in s3.bucket and not s3.bucket.startswith("arn:"):
        yield BadSettings(
            "S3_ADDRESSING_STYLE is virtual, and tenant:bucket cannot stand in a host name",
            hint="set S3_ADDRESSING_STYLE=path",
        )
    try:
        ipaddress.ip_address(urlsplit(s3.endpoint_url).hostname or "")
    except ValueError:
        return
    yield BadSettings(
        "S3_ADDRESSING_STYLE is virtual, and S3_ENDPOINT_URL is an IP address, before which no bucket can stand",
        hint="set S3_ADDRESSING_STYLE=path, or S3_ENDPOINT_URL to the store's name",
    )
