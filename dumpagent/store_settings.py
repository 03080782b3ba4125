"""The settings of the two destinations: the store that every dump goes to, and the replica.

`dumpagent.settings` gives these classes too, beside all others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dumpagent.setting import Kind, setting

PUBLIC_CAS = "public"  # in place of a file: the certificate authorities that the SDK brings along


@dataclass(frozen=True, kw_only=True)
class S3:
    """Which store the dumps go to. Credentials, region, CA and proxies are the SDK's own variables (AWS_...)."""

    bucket: str = setting("", "S3_BUCKET", Kind.TEXT, "the bucket, which must exist", required=True)
    prefix: str = setting("", "S3_PREFIX", Kind.TEXT, "put before every key, with a slash between")
    endpoint_url: str = setting("", "S3_ENDPOINT_URL", Kind.URL, "an S3-compatible store; empty: AWS")
    storage_class: str = setting(
        "STANDARD_IA", "S3_STORAGE_CLASS", Kind.TEXT,
        "storage class of the objects; a store that does not know it gets its own default, which is told once",
    )  # fmt: skip
    addressing_style: str = setting(
        "auto", "S3_ADDRESSING_STYLE", Kind.CHOICE,
        "where the bucket stands: in the path or in the host name (virtual); auto: the SDK's own configuration, else path for "
        "S3_ENDPOINT_URL, and virtual where a store takes nothing else",
        choices=("auto", "path", "virtual"),
    )  # fmt: skip
    sse: str = setting(
        "", "S3_SSE", Kind.CHOICE, "server-side encryption that a bucket's policy asks for, on every object",
        choices=("", "AES256", "aws:kms", "aws:kms:dsse"),
    )  # fmt: skip
    sse_kms_key_id: str = setting(
        "", "S3_SSE_KMS_KEY_ID", Kind.TEXT, "the KMS key for S3_SSE=aws:kms; empty: the bucket's own"
    )
    acl: str = setting(
        "", "S3_ACL", Kind.TEXT, "canned ACL of every object, such as bucket-owner-full-control; empty: none"
    )
    tags: str = setting(
        "",
        "S3_TAGS",
        Kind.TEXT,
        "tags of every object, as team=shop&verdict={verdict}; {verdict}, {cause}, {workload}, {namespace}, {node} and {cluster} stand for "
        "what is known of the dump, and a tag of which something is unknown is left out, as all are where the store does not know tags",
    )
    part_size_bytes: int = setting(
        0, "S3_PART_SIZE", Kind.COUNT, "upper bound of a request in bytes, from 5242880 on; 0: up to 64 MiB, less where the store or a proxy refuses that",
        low=0, high=5 << 30,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Replica:
    """A second store that gets every dump too; a dump leaves the volume once both hold it.

    Off while S3_REPLICA_BUCKET is empty. Without keys or a profile of its own it is asked with the SDK's variables.
    """

    bucket: str = setting(
        "", "S3_REPLICA_BUCKET", Kind.TEXT, "the bucket of a second store that gets every dump too; empty: there is none"
    )  # fmt: skip
    prefix: str = setting(
        "", "S3_REPLICA_PREFIX", Kind.TEXT, "put before every key there, with a slash between"
    )
    endpoint_url: str = setting(
        "", "S3_REPLICA_ENDPOINT_URL", Kind.URL, "its S3-compatible store; empty: AWS"
    )
    region: str = setting(
        "", "S3_REPLICA_REGION", Kind.TEXT, "its region; empty: that of the SDK's variables"
    )
    access_key_id: str = setting(
        "", "S3_REPLICA_ACCESS_KEY_ID", Kind.TEXT,
        "its access key; empty: S3_REPLICA_PROFILE, or the credentials of the first store",
    )  # fmt: skip
    secret_access_key: str = setting(
        "", "S3_REPLICA_SECRET_ACCESS_KEY", Kind.TEXT, "the secret of its access key", secret=True
    )
    session_token: str = setting(
        "", "S3_REPLICA_SESSION_TOKEN", Kind.TEXT, "the session token of its access key, where it has one", secret=True
    )  # fmt: skip
    profile: str = setting(
        "", "S3_REPLICA_PROFILE", Kind.TEXT,
        "a profile of AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE that gives its credentials, by a role for one",
    )  # fmt: skip
    ca_bundle: str = setting(
        "", "S3_REPLICA_CA_BUNDLE", Kind.TEXT,
        "file with the CA of its certificate; public: the SDK's own; empty: as for the first store",
    )  # fmt: skip
    storage_class: str = setting(
        "STANDARD_IA", "S3_REPLICA_STORAGE_CLASS", Kind.TEXT,
        "storage class of the objects there; a store that does not know it gets its own default, which is told once",
    )  # fmt: skip
    addressing_style: str = setting(
        "auto", "S3_REPLICA_ADDRESSING_STYLE", Kind.CHOICE,
        "where its bucket stands: in the path or in the host name (virtual); auto as for S3_ADDRESSING_STYLE",
        choices=("auto", "path", "virtual"),
    )  # fmt: skip
    sse: str = setting(
        "", "S3_REPLICA_SSE", Kind.CHOICE, "server-side encryption that its bucket's policy asks for, on every object",
        choices=("", "AES256", "aws:kms", "aws:kms:dsse"),
    )  # fmt: skip
    sse_kms_key_id: str = setting(
        "", "S3_REPLICA_SSE_KMS_KEY_ID", Kind.TEXT, "the KMS key for S3_REPLICA_SSE=aws:kms; empty: the bucket's own"
    )  # fmt: skip
    acl: str = setting(
        "", "S3_REPLICA_ACL", Kind.TEXT, "canned ACL of every object there, such as bucket-owner-full-control; empty: none"
    )  # fmt: skip
    tags: str = setting("", "S3_REPLICA_TAGS", Kind.TEXT, "tags of every object there, written as S3_TAGS")

    @property
    def s3(self) -> S3:
        """Give the settings of its bucket as those of any bucket."""
        return S3(
            bucket=self.bucket,
            prefix=self.prefix,
            endpoint_url=self.endpoint_url,
            storage_class=self.storage_class,
            addressing_style=self.addressing_style,
            sse=self.sse,
            sse_kms_key_id=self.sse_kms_key_id,
            acl=self.acl,
            tags=self.tags,
        )

    @property
    def access(self) -> Access:
        """Give how the SDK gets at it."""
        return Access(
            self.region,
            self.access_key_id,
            self.secret_access_key,
            self.session_token,
            self.profile,
            self.ca_bundle,
        )


@dataclass(frozen=True, slots=True)
class Access:
    """How the SDK gets at a store that its variables are not about; what is empty is as they say.

    AWS_ENDPOINT_URL never counts: it is the first store's. `ca_bundle` may be `PUBLIC_CAS`.
    """

    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = ""
    session_token: str = ""
    profile: str = ""
    ca_bundle: str = ""

    def __repr__(self) -> str:
        return "Access(...)"  # no secret in a trace


_RENAMED = {
    **{f"S3_{name}": f"S3_REPLICA_{name}" for name in (
        "BUCKET", "PREFIX", "ENDPOINT_URL", "STORAGE_CLASS", "ADDRESSING_STYLE", "SSE", "SSE_KMS_KEY_ID", "ACL", "TAGS",
    )},
    **{f"AWS_{name}": f"S3_REPLICA_{name}" for name in (
        "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN", "PROFILE", "CA_BUNDLE", "REGION",
    )},
    "AWS_DEFAULT_REGION": "S3_REPLICA_REGION",
}  # fmt: skip
_NAMES = re.compile(rf"(?<![A-Z0-9_])(?:{'|'.join(map(re.escape, _RENAMED))})(?![A-Z0-9_])")


def for_replica(text: str) -> str:
    """Give an error or a hint about a store's settings with the names of the replica's."""
    return _NAMES.sub(lambda found: _RENAMED[found[0]], text)
