"""What a test knows of a running S3 store: where it is, the keys, and in which ways it is unlike the others."""

from __future__ import annotations

import random
import socket
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

HOST = "127.0.0.1"
REGION = "us-east-1"


def is_dump_key(key: str) -> bool:
    """Say whether an object under this key is no index entry, report, reservation or trial of the agent."""
    return ".dumpagent/" not in key and not key.endswith(".report.json")


@dataclass(frozen=True, slots=True)
class Quirks:
    """Where a store differs from AWS S3; a test asserts each, so that a new version that differs is noticed."""

    verifies_md5: bool = True
    verifies_crc32: bool = True
    knows_standard_ia: bool = True
    conditional_put: bool = True
    conditional_complete: bool = True
    conditions_hold_in_a_race: bool = True
    keeps_whole_checksum: bool = False
    verifies_whole_checksum: bool = False
    refuses_late_parts: bool = True
    tells_when_uploads_began: bool = True
    lists_in_key_order: bool = True
    lists_replaced_parts: bool = False
    replaces_parts: bool = True


@dataclass(frozen=True, slots=True)
class StoreServer:
    """One way into a running store. `ca_bundle` is the file that a client must trust; None: plain http."""

    name: str
    endpoint_url: str
    access_key: str
    secret_key: str
    quirks: Quirks = field(default_factory=Quirks)
    ca_bundle: Path | None = None
    region: str = REGION

    def __str__(self) -> str:
        return self.name

    def client(self, **config: Any) -> S3Client:
        """Build an SDK client of the test's own, to look at what the code under test did."""
        session = boto3.session.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name=self.region
        )
        client: S3Client = session.client(
            "s3",
            endpoint_url=self.endpoint_url,
            verify=str(self.ca_bundle) if self.ca_bundle else None,
            config=Config(
                s3={"addressing_style": "path"},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                retries={"total_max_attempts": 5},
                **config,
            ),
        )
        return client

    def new_bucket(self) -> str:
        """Create an empty bucket of a name that nobody else uses, and give the name."""
        bucket = f"dumps-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def environment(self, bucket: str = "") -> dict[str, str]:
        """Give the variables by which an agent uses this store, as a ConfigMap and a Secret would set them."""
        variables = {
            "S3_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }
        if bucket:
            variables["S3_BUCKET"] = bucket
        if self.ca_bundle:
            variables["AWS_CA_BUNDLE"] = str(self.ca_bundle)
        return variables


def free_ports(count: int) -> list[int]:
    """Give TCP ports that nobody listens on now.

    Below the range that the kernel gives to outgoing connections (32768 and up), so that no client takes one
    between this answer and the server's bind. Source: ip(7), ip_local_port_range.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def wait_for_port(
    port: int, children: Sequence[subprocess.Popen[Any]], log: Path, *, timeout_s: float = 60
) -> None:
    """Return when something listens on `port`. Raises RuntimeError with the log's end when a child ends or time does."""
    until = time.monotonic() + timeout_s
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        ended = [child for child in children if child.poll() is not None]
        if ended or time.monotonic() > until:
            why = (
                f"{ended[0].args!r} ended with {ended[0].returncode}"
                if ended
                else f"silent for {timeout_s} s"
            )
            raise RuntimeError(f"no server on port {port}: {why}; its last words:\n{_last_words(log)}")
        time.sleep(0.05)


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:] if log.exists() else ""
