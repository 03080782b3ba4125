"""Volumes that give files another owner than the user who makes them: NFS with root_squash or all_squash, EFS, SMB, FUSE."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.kernel.owned import MAPPED_HINT
from tests.attacks.tenants import Tenant, heap_dump
from tests.harness.manifests import PROJECT
from tests.harness.stores.server import StoreServer, is_dump_key
from tests.mount.node import Node
from tests.mount.volumes import fuse

pytestmark = [pytest.mark.slow]
NOBODY, SHOP = 65534, 10001


class Uploader:
    """Runs `dumpagent` in the uploader's container of a node, as root."""

    def __init__(self, node: Node, moto: StoreServer) -> None:
        self.node, self.bucket, self.client = node, moto.new_bucket(), moto.client()
        self._container = node.app()
        self._env = {
            **os.environ,
            **moto.environment(self.bucket),
            "PYTHONPATH": str(PROJECT),
            "DUMP_ROOT": node.dumps,
            "RUNTIME_DIR": f"{node.base}/run",
            "LOG_FORMAT": "json",
            "FILE_STABLE_TIME": "1s",
        }

    def run(self, *words: str) -> list[dict[str, object]]:
        """Give the JSON lines that a command prints, on either output."""
        process = self._container.popen(
            [sys.executable, "-m", "dumpagent", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self._env,
        )
        out, _ = process.communicate(timeout=120)
        return [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]

    def stored(self) -> list[str]:
        """Give the keys of the dumps in the bucket."""
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        return [each["Key"] for each in listed if is_dump_key(each["Key"])]


@pytest.fixture
def node() -> Iterator[Node]:
    """Not in pytest's own folder: a tenant may not enter that."""
    with tempfile.TemporaryDirectory(prefix="mapped-", ignore_cleanup_errors=True) as base:
        Path(base).chmod(0o755)
        with Node(Path(base)) as simulated:
            yield simulated


@pytest.fixture
def uploader(node: Node, moto: StoreServer) -> Uploader:
    return Uploader(node, moto)


def test_root_squash_is_told_once_at_the_start_with_the_option_that_is_missing(node: Node) -> None:
    """The volume takes writes, so that the node was ready and every dump unreadable, without a word of why."""
    with fuse(node, squash=f"root:{NOBODY}"):
        manager = node.manager().ready()
        (told,) = manager.told("users_mapped")
        assert (told["uid"], told["hint"]) == (NOBODY, MAPPED_HINT)
        assert "no_root_squash" in MAPPED_HINT
        manager.told("write_tested", times=3)
        assert len(manager.events("users_mapped")) == 1
        assert not manager.events("name_taken")


def test_root_squash_is_named_by_the_doctor_and_by_the_uploader(node: Node, uploader: Uploader) -> None:
    with fuse(node, squash=f"root:{NOBODY}"):
        node.manager().ready()
        (found,) = [line for line in uploader.run("doctor", "--json") if line.get("name") == "owners"]
        assert (found["result"], found["fix"]) == ("warning", MAPPED_HINT)
        assert f"uid {NOBODY}" in str(found["seen"])
        shop = Tenant(node.app(), SHOP, root=node.dumps)
        try:
            shop.write_dump("shop.hprof", heap_dump(1))
        finally:
            shop.close()
        (found,) = [line for line in uploader.run("doctor", "--json") if line.get("name") == "owners"]
        assert found["result"] == "failed"
        assert f"such as shop.hprof of uid {SHOP}" in str(found["seen"])
        lines = uploader.run("upload", "--once")
        assert [line["uid"] for line in lines if line.get("event") == "users_mapped"] == [NOBODY]
        assert uploader.stored() == []


def test_a_volume_that_gives_everything_to_one_user_works_and_is_named(
    node: Node, uploader: Uploader
) -> None:
    """An EFS access point with a POSIX user: `dumpagent wait` said that another user owns the pod's own directory."""
    with fuse(node, squash="all:1000"):
        node.manager().ready()
        waited = node.app().popen(
            ["setpriv", "--reuid", str(SHOP), "--regid", str(SHOP), "--clear-groups",
             sys.executable, "-m", "dumpagent", "wait"],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "DUMP_ROOT": node.dumps,
                 "POD_NAMESPACE": "shop", "POD_NAME": "web-1", "RUNTIME_DIR": f"{node.base}/run"},
        )  # fmt: skip
        _, said = waited.communicate(timeout=60)
        assert waited.returncode == 0, said
        assert b"to the user 1000" in said
        shop = Tenant(node.app(), SHOP, root=node.dumps)
        try:
            shop.write_dump("shop_web-1/java_pid1.hprof", heap_dump(1))
        finally:
            shop.close()
        (found,) = [line for line in uploader.run("doctor", "--json") if line.get("name") == "owners"]
        assert found["result"] == "failed", "applications have the uid that the agent's files get"
        assert "applications have it" in str(found["seen"])
        uploader.run("upload", "--once")
        assert uploader.stored()


def test_a_volume_that_keeps_users_is_told_of_nothing(node: Node, uploader: Uploader) -> None:
    manager = node.manager().ready()
    (found,) = [line for line in uploader.run("doctor", "--json") if line.get("name") == "owners"]
    assert found["result"] == "ok"
    assert not manager.events("users_mapped")
