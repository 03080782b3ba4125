"""The settings of the replica taken together: what is half given, and what is no second place at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from dumpagent.cli.bucket import settle
from dumpagent.cli.environment import examine
from dumpagent.errors import BadSettings
from dumpagent.setting import declared
from dumpagent.settings import S3, Replica
from dumpagent.store_settings import PUBLIC_CAS, for_replica

_SHARED_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
_PORTS = {"http": 80, "https": 443}


def settle_replica(
    replica: Replica, first: S3 | None, environ: Mapping[str, str]
) -> tuple[Replica, list[BadSettings]]:
    """Give the replica's settings as they are meant, and what is wrong with them; `first` is the first destination."""
    if not replica.bucket:
        return replica, list(_without_bucket(replica))
    settled, wrong = settle(replica.s3, {})
    wrong += examine(_as_variables_of_the_sdk(replica, environ))
    wrong = [BadSettings(for_replica(str(error)), hint=for_replica(error.hint)) for error in wrong]
    wrong += _credentials(replica)
    if first and first.bucket == settled.bucket and _address(first) == _address(settled):
        wrong.append(
            BadSettings(
                f"S3_REPLICA_BUCKET is {settled.bucket!r} in the store of S3_BUCKET: the same bucket is no second place",
                hint="name another bucket, best in another store or region; or unset S3_REPLICA_BUCKET",
            )
        )
    return dataclasses.replace(replica, bucket=settled.bucket, prefix=settled.prefix), wrong


def _without_bucket(replica: Replica) -> Iterator[BadSettings]:
    for name, (setting, default) in declared(Replica).items():
        if default == "" and getattr(replica, name):
            yield BadSettings(
                f"{setting.env} is set and S3_REPLICA_BUCKET is not",
                hint=f"set S3_REPLICA_BUCKET to the second store's bucket, or unset {setting.env}",
            )


def _as_variables_of_the_sdk(replica: Replica, environ: Mapping[str, str]) -> dict[str, str]:
    """Give the replica's access under the SDK's names, as which it is examined."""
    named = {
        "AWS_REGION": replica.region,
        "AWS_ACCESS_KEY_ID": replica.access_key_id,
        "AWS_SECRET_ACCESS_KEY": replica.secret_access_key,
        "AWS_SESSION_TOKEN": replica.session_token,
        "AWS_PROFILE": replica.profile,
        "AWS_CA_BUNDLE": "" if replica.ca_bundle == PUBLIC_CAS else replica.ca_bundle,
        **{name: environ.get(name, "") for name in _SHARED_FILES},
    }
    return {name: value for name, value in named.items() if value}


def _credentials(replica: Replica) -> Iterator[BadSettings]:
    if replica.access_key_id and replica.profile:
        yield BadSettings(
            "S3_REPLICA_ACCESS_KEY_ID and S3_REPLICA_PROFILE are both set: two sources of credentials",
            hint="keep the keys, or the profile",
        )


def _address(s3: S3) -> str:
    """Give where a bucket's store is, so that one store has one address; empty: AWS, where a bucket's name is unique."""
    try:
        parts = urlsplit(s3.endpoint_url.lower())
        host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        return s3.endpoint_url
    return "" if not host or host.endswith((".amazonaws.com", ".amazonaws.com.cn")) else f"{host}:{port}"
