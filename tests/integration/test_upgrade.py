"""A volume and a bucket that version 0.1.0 wrote: the version of today goes on with them, and 0.1.0 again after it.

The old version is taken from this repository's history and run as it was, in this environment.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.hprof import Maker
from tests.harness.stores.moto import Moto
from tests.harness.stores.server import StoreServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PROJECT = Path(__file__).parents[2]
_COMMIT_OF_0_1_0 = "8b7a638"


class Node:
    """A volume and a bucket, and both versions of the agent."""

    def __init__(self, folder: Path, server: StoreServer) -> None:
        self.volume, self.old, self._server = folder / "dump", folder / "0.1.0", server
        self.volume.mkdir(mode=0o1777)
        self.bucket = server.new_bucket()
        self._environment = os.environ | server.environment(self.bucket) | {
            "DUMP_ROOT": str(self.volume), "S3_PREFIX": "heap", "FILE_STABLE_TIME": "1s", "NODE_NAME": "worker-1",
            "POD_NAME": "heap-dump-s3-uploader-0", "POD_NAMESPACE": "heap-dumps", "METRICS_PORT": "0", "LOG_FORMAT": "json",
        }  # fmt: skip
        said = subprocess.run(
            ["git", "archive", _COMMIT_OF_0_1_0, "dumpagent"], cwd=PROJECT, capture_output=True, check=False
        )
        if said.returncode:
            pytest.fail(
                f"0.1.0 is not in the history of this clone (`git fetch --unshallow`): {said.stderr.decode()}"
            )
        with tarfile.open(fileobj=io.BytesIO(said.stdout)) as archive:
            archive.extractall(self.old, filter="data")
        assert '__version__ = "0.1.0"' in (self.old / "dumpagent/__init__.py").read_text()

    def write(self, name: str, content: bytes) -> None:
        path = self.volume / name
        path.write_bytes(content)
        os.utime(path, (1_790_000_000, 1_790_000_000))

    def run(self, code: Path, *words: str) -> str:
        """Run the agent of `code` to its end; give what it printed."""
        environment = self._environment | {"PYTHONPATH": str(code), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "dumpagent", *words], cwd=code, env=environment, capture_output=True, text=True,
            timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def dumps(self) -> dict[str, tuple[bytes, str]]:
        """Give what the bucket holds of dumps: key -> content and when it was written."""
        client = self._server.client()
        found = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return {
            each["Key"]: (
                client.get_object(Bucket=self.bucket, Key=each["Key"])["Body"].read(),
                str(each["LastModified"]),
            )
            for each in found
            if "/.dumpagent/" not in each["Key"]
        }


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Moto(tmp_path) as moto:
        yield Node(tmp_path, moto.server)


WHOLE, CUT = Maker().dump(), Maker().dump()[:-9]


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_after_an_upgrade_and_a_rollback_each_dump_is_stored_once(node: Node, state: str) -> None:
    """Receipts, claimed names and objects of 0.1.0 are understood, also without the receipts; and the other way round."""
    node.write("shop_checkout-1.hprof", WHOLE)
    node.write("shop_checkout-2.hprof", CUT)
    node.run(node.old, "upload", "--once")
    by_old = node.dumps()
    assert sorted(content for content, _ in by_old.values()) == sorted([WHOLE, CUT])

    _lose(node, state)
    node.run(PROJECT, "upload", "--once")
    assert node.dumps() == by_old

    node.write("shop_checkout-3.hprof", WHOLE)
    node.run(PROJECT, "upload", "--once")
    by_new = node.dumps()
    assert by_old.items() <= by_new.items()
    assert len(by_new) == 3

    _lose(node, state)
    node.run(node.old, "upload", "--once")
    assert node.dumps() == by_new


def test_the_commands_of_today_read_what_0_1_0_stored(node: Node) -> None:
    """ls, get and verify; the index entries, which 0.1.0 did not write, are made by `reindex`."""
    node.write("shop_checkout-1.hprof", WHOLE)
    node.run(node.old, "upload", "--once")
    ((key, _),) = node.dumps().items()
    node.run(PROJECT, "reindex")
    listed = [json.loads(line) for line in node.run(PROJECT, "ls", "--json").splitlines()]
    assert key in json.dumps(listed)
    node.run(PROJECT, "verify", key)
    target = node.volume.parent / "fetched.hprof"
    node.run(PROJECT, "get", key, "-o", str(target))
    assert target.read_bytes() == WHOLE


def _lose(node: Node, state: str) -> None:
    if state == "lost":
        subprocess.run(["rm", "-rf", f"{node.volume}/.dumpagent"], check=True)
