"""The programs that are compared, each with the arguments that make it upload one file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """One upload: `folder` holds nothing but the dump; `scratch` is an empty folder of the run's own."""

    dump: Path
    scratch: Path
    endpoint_url: str
    ca: Path
    bucket: str
    key: str

    @property
    def folder(self) -> Path:
        return self.dump.parent


@dataclass(frozen=True)
class Client:
    """`argv` builds the command; `tuned` says in words what differs from the program's defaults."""

    name: str
    argv: Callable[[Job], list[str]]
    tuned: str = "defaults"
    env: Mapping[str, str] | None = None
    compresses: bool = False


def environment(job: Job) -> dict[str, str]:
    """Give the variables that every client runs with: nothing of the caller's configuration but PATH."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(job.scratch),
        "LANG": "C.UTF-8",
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CA_BUNDLE": str(job.ca),
        "SSL_CERT_FILE": str(job.ca),
        "NO_PROXY": "127.0.0.1",
    }


def _dumpagent(job: Job, *more: str) -> list[str]:
    prefix = job.key.rpartition("/")[0]
    return [
        *(sys.executable, "-m", "dumpagent", "upload", "--once", "--dump-root", str(job.folder)),
        *("--s3-bucket", job.bucket, "--s3-endpoint-url", job.endpoint_url, "--s3-prefix", prefix),
        *("--state-dir", str(job.scratch / "state"), "--file-stable-time", "0", "--claim", "false"),
        *more,
    ]


def clients(tools: Path) -> dict[str, Client]:
    """Give every client by name; `tools` is the folder of programs of the environment they are installed in."""
    python = str(tools / "python")

    def script(name: str) -> Callable[[Job], list[str]]:
        return lambda job: [python, str(_HERE / name), str(job.dump), job.endpoint_url, job.bucket, job.key]

    def rclone(*more: str) -> Callable[[Job], list[str]]:
        return lambda job: [
            *(str(tools / "rclone"), "copyto", "--config", "/dev/null", *more, str(job.dump)),
            f":s3,provider=Other,env_auth=true,endpoint='{job.endpoint_url}':{job.bucket}/{job.key}",
        ]

    def s5cmd(*more: str) -> Callable[[Job], list[str]]:
        return lambda job: [
            *(str(tools / "s5cmd"), "--endpoint-url", job.endpoint_url, "cp", *more, str(job.dump)),
            f"s3://{job.bucket}/{job.key}",
        ]

    found = [
        Client("dumpagent", _dumpagent, "as in the manifests"),
        Client(
            "dumpagent-gzip",
            lambda job: _dumpagent(job, "--compression", "gzip"),
            "COMPRESSION=gzip",
            compresses=True,
        ),
        Client(
            "aws-cli",
            lambda job: [
                *(python, str(tools / "aws"), "s3", "cp", str(job.dump), f"s3://{job.bucket}/{job.key}"),
                *("--endpoint-url", job.endpoint_url, "--only-show-errors"),
            ],
        ),
        Client("boto3 upload_file", script("upload_file.py")),
        Client("s5cmd", s5cmd()),
        Client("s5cmd tuned", s5cmd("--concurrency", "2", "--part-size", "16"), "2 x 16 MiB parts"),
        Client("rclone", rclone("--s3-no-check-bucket")),
        Client(
            "rclone tuned",
            rclone(
                *(
                    "--s3-no-check-bucket",
                    "--s3-no-head",
                    "--ignore-times",
                    "--no-check-dest",
                    "--s3-disable-checksum",
                ),
                *("--s3-use-unsigned-payload=true", "--s3-use-data-integrity-protections=false"),
                *("--s3-chunk-size", "16M", "--s3-upload-concurrency", "2", "--s3-upload-cutoff", "16M"),
                *("--multi-thread-streams", "0", "--transfers", "1", "--checkers", "1", "--buffer-size", "0"),
            ),
            "unsigned, no checksum, no HEAD, 2 x 16 MiB parts",
        ),
        Client(
            "raw socket",
            lambda job: [
                sys.executable,
                str(_HERE / "rawsocket.py"),
                str(job.dump),
                job.endpoint_url,
                job.key,
            ],
            "the limit: read, CRC32, one socket",
        ),
    ]
    return {client.name: client for client in found}
