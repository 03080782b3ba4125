"""The chain under SELinux enforcing: each process has exactly the type and level of its manifest, nothing is denied.

Debian's policy with the module containers.te in place of container-selinux; what differs: docs/testing.md.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Iterator

import pytest

from tests.harness.stores.moto import Moto
from tests.harness.stores.server import StoreServer
from tests.vm.machine import HOST_FROM_INSIDE, Machine
from tests.vm.node import JAVA, PV, PYTHON, Node, Pod, Running, manifest

pytestmark = [pytest.mark.vm, pytest.mark.e2e, pytest.mark.timeout(3600)]
MANAGER = manifest("dump-volume-manager", "dump-volume-manager")
UPLOADER = manifest("heap-dump-s3-uploader", "s3-uploader")
APP = manifest("memory-leak-app", "memory-leak-app")
MANAGER_POD = Pod("dump-volume-manager-0", "0a0a", volumes={"dump-storage-pvc": PV})
UPLOADER_POD = Pod("heap-dump-s3-uploader-0", "0b0b")
APP_POD = Pod("memory-leak-app-1", "0c0c", level="s0:c11,c22")
NEIGHBOUR_POD = Pod("neighbour-1", "0d0d", namespace="other", level="s0:c33,c44")
LEAKY = (JAVA, "-Xmx24m", "-XX:+UseSerialGC", "-cp", "/project/tests/harness/java/leaky-app.jar", "LeakyApp")
OWN_PORT = {"METRICS_PORT": "9096"}  # the containers share the machine's network; pods have each their own
_LONG_S = 900.0  # an emulated machine beside other work
# In the pods' own directories, or where an application writes while those are away.
_DUMPS = "find /mnt/dump -path /mnt/dump/.dumpagent -prune -o -type f -path '*memory-leak-app*' -print"


class Chain:
    """A node with both daemons running, in the order in which a kubelet starts them."""

    def __init__(self, node: Node, server: StoreServer, bucket: str) -> None:
        self.node, self.server, self.bucket = node, server, bucket
        self.manager = node.start(MANAGER_POD, MANAGER)
        self.manager.wait_for("write_proven", timeout_s=_LONG_S)
        node.run(
            UPLOADER_POD, manifest("heap-dump-s3-uploader", "wait-for-volume-manager"), timeout_s=_LONG_S
        ).check()
        self.uploader = node.start(UPLOADER_POD, UPLOADER, env=OWN_PORT)
        self.uploader.wait_for("store_answered", timeout_s=_LONG_S)

    def app(self, pod: Pod) -> Running:
        """Start an application that leaks when it is told to."""
        self.node.run(pod, manifest("memory-leak-app", "wait-for-volume-manager"), timeout_s=_LONG_S).check()
        app = self.node.start(pod, APP, LEAKY)
        app.wait_for("> ready", timeout_s=_LONG_S)
        return app

    def stored(self) -> dict[str, bytes]:
        """Give what the bucket holds of dumps."""
        client = self.server.client()
        listed = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        found = {
            each["Key"]: client.get_object(Bucket=self.bucket, Key=each["Key"])["Body"].read()
            for each in listed
        }
        return {key: content for key, content in found.items() if content.startswith(b"JAVA PROFILE")}


@pytest.fixture(scope="module")
def chain(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    with Moto(tmp_path_factory.mktemp("moto")) as moto:
        bucket = moto.server.new_bucket()
        environment = {
            name: value.replace("127.0.0.1", HOST_FROM_INSIDE)
            for name, value in moto.server.environment(bucket).items()
        }
        node = Node(
            machine,
            {**environment, "S3_BUCKET": bucket, "S3_STORAGE_CLASS": "STANDARD", "FILE_STABLE_TIME": "5s"},
        )
        node.prepare()
        yield Chain(node, moto.server, bucket)


def _becomes_ready(daemon: Running) -> None:
    """Probe as the kubelet does, until it is ready: an emulated machine is too slow for the probe's limits at times."""
    until = time.monotonic() + _LONG_S
    while (said := daemon.exec([*PYTHON, "check", "ready"], timeout_s=_LONG_S)).code != 0:
        assert time.monotonic() < until, said
        time.sleep(5)  # the manifests' periodSeconds


def _context(machine: Machine, path: str) -> str:
    return machine.run(["stat", "-c", "%C", path]).check().out.strip()


def test_the_machine_enforces(machine: Machine) -> None:
    """A permissive machine would make each of these tests green."""
    assert machine.sh("getenforce").strip() == "Enforcing"
    assert "cgroup2" in machine.sh("stat -fc %T /sys/fs/cgroup")


def test_the_daemons_run_as_the_manifests_say(chain: Chain) -> None:
    """The type and the level of each process are those that docs/security.md names, in enforcing mode."""
    processes = chain.node.machine.sh("ps -eo label,args")
    assert re.search(r"system_u:system_r:spc_t:s0 +\S*python3 \S*dumpagent mount", processes)
    assert re.search(r"system_u:system_r:container_t:s0:c0\.c1023 +\S*python3 \S*dumpagent upload", processes)
    _becomes_ready(chain.manager)
    _becomes_ready(chain.uploader)
    assert chain.node.denials() == []


def test_a_dump_of_another_category_travels_and_nothing_is_denied(chain: Chain) -> None:
    """Mount, .ready, dump, lease, claim, upload: s0:c11,c22 writes, s0:c0.c1023 reads, renames and uploads."""
    app = chain.app(APP_POD)
    app.tell("oom payment-7")
    chain.uploader.wait_for("dump_uploaded", timeout_s=_LONG_S)
    (uploaded,) = chain.uploader.events("dump_uploaded")
    assert (uploaded["verdict"], uploaded["cause"]) == ("complete", "oom")
    ((_, content),) = chain.stored().items()
    machine = chain.node.machine
    (path,) = machine.sh(_DUMPS).split()
    assert os.path.dirname(path) == "/mnt/dump/memory-leak-demo_memory-leak-app-1"
    assert re.search(r"\.\d{8}T\d{6}Z\.hprof$", path), (
        "not claimed: the JVM's next dump would find its name taken"
    )
    assert zlib.crc32(machine.read(path)) == zlib.crc32(content)
    assert _context(machine, path) == "system_u:object_r:container_file_t:s0:c11,c22"
    assert chain.node.denials() == []
    app.stop()


def test_a_neighbour_of_another_category_cannot_read_a_dump(chain: Chain) -> None:
    """Not even with the dump's own uid and a mode that lets everybody: the categories alone stop it."""
    machine = chain.node.machine
    (path,) = machine.sh(_DUMPS).split()
    machine.sh(f"chmod 644 {path}; chmod 755 {os.path.dirname(path)}")
    script = f"cat {path} > /dev/null && echo READ || echo DENIED"
    said = chain.node.run(NEIGHBOUR_POD, APP, ["/bin/sh", "-c", script]).out
    assert said.split() == ["DENIED"]
    denied = chain.node.denials()
    assert denied
    assert all("s0:c33,c44" in line and "c11,c22" in line for line in denied), denied


def test_what_was_written_while_the_mount_was_away_is_rescued_with_its_label(chain: Chain) -> None:
    """An application may write to the node's own directory meanwhile, and its dump keeps its categories."""
    machine, node = chain.node.machine, chain.node
    app = chain.app(Pod("memory-leak-app-2", "0c0d", level="s0:c55,c66"))
    # The manager is stopped as a node that is too busy stops it, so that the dump falls into the gap.
    machine.run(["runc", "kill", chain.manager.name, "STOP"]).check()
    machine.sh("umount -l /mnt/dump")
    app.tell("oom payment-8")
    app.wait_for("Heap dump file created", timeout_s=_LONG_S)
    machine.run(["runc", "kill", chain.manager.name, "CONT"]).check()
    chain.manager.wait_for("file_rescued", timeout_s=_LONG_S)
    # Under its last name: until the uploader has claimed it, it may be renamed between two questions.
    claimed = f"{_DUMPS} | grep -E 'memory-leak-app-2.*Z[.].*Z|memory-leak-app-2.*[.][0-9T]+Z[.]hprof' || ! {_DUMPS} >&2"
    machine.wait_for(claimed, timeout_s=_LONG_S)
    (path,) = machine.sh(claimed).split()
    assert _context(machine, path) == "system_u:object_r:container_file_t:s0:c55,c66"
    assert node.denials() == []
    app.stop()


_MAKE_DUMP = """
import os, struct, sys, time
path = os.path.join("/mnt/dump", "memory-leak-demo_memory-leak-app-1", "java_pid1.hprof")
with open(path, "xb") as file:
    file.write(b"JAVA PROFILE 1.0.2\\0" + struct.pack(">IQ", 8, int(time.time() * 1000)))
    body = os.urandom(1 << 20)
    for number in range(160):
        array = struct.pack(">BQIIB", 0x23, 4096 + 8 * number, 1, len(body), 8) + body
        file.write(struct.pack(">BII", 0x1C, 0, len(array)) + array)
    file.write(struct.pack(">BII", 0x2C, 0, 0))
"""


def test_both_daemons_stay_inside_their_limits_under_version_2(
    chain: Chain, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dump of 160 MiB through an uploader of 256 MiB: nothing is killed, and what cannot be dropped stays below half."""
    before = len(chain.uploader.events("dump_uploaded"))
    chain.node.run(APP_POD, APP, ["/usr/bin/python3", "-c", _MAKE_DUMP], timeout_s=_LONG_S).check()
    until = time.monotonic() + _LONG_S
    while len(uploaded := chain.uploader.events("dump_uploaded")) == before:
        assert time.monotonic() < until, chain.uploader.log
        time.sleep(2)
    assert uploaded[-1]["size_bytes"] > 160 << 20
    for daemon, pod, container in (
        (chain.uploader, UPLOADER_POD, UPLOADER),
        (chain.manager, MANAGER_POD, MANAGER),
    ):
        folder = f"/sys/fs/cgroup{pod.cgroup}/crio-{pod.name}-{container.spec['name']}.scope"
        names = ("memory.peak", "memory.max", "memory.current", "memory.stat", "memory.events")
        peak, most, current, stat, events = (
            chain.node.machine.read(f"{folder}/{name}").decode() for name in names
        )
        anonymous, cached = (
            int(re.findall(rf"^{name} (\d+)", stat, re.MULTILINE)[0]) for name in ("anon", "file")
        )
        with capsys.disabled():
            figures = (int(each) >> 20 for each in (peak, most, current, anonymous, cached))
            print(
                "\n{}: peak {} of {} MiB, now {}, anonymous {}, page cache {}".format(daemon.name, *figures),
                events.split(),
            )
        assert re.search(r"^oom_kill 0$", events, re.MULTILINE), events
        assert anonymous < int(most) / 2
    assert chain.node.denials() == []


def test_retention_deletes_a_stored_dump_of_another_category(chain: Chain) -> None:
    """LOCAL_KEEP=until-uploaded: what the store has confirmed leaves the volume, whoever wrote it."""
    chain.uploader.stop()
    chain.uploader = chain.node.start(
        UPLOADER_POD, UPLOADER, env={**OWN_PORT, "LOCAL_KEEP": "until-uploaded"}
    )
    machine = chain.node.machine
    machine.wait_for(f"! {_DUMPS} | grep .", timeout_s=_LONG_S)
    assert len(chain.stored()) == 3
    assert chain.node.denials() == []


def test_a_volume_with_a_wrong_label_makes_the_chain_red(chain: Chain) -> None:
    """The deliberate mistake: a volume labelled for the node, or for one namespace, takes no dump, and is told."""
    machine, node = chain.node.machine, chain.node
    node.denials()
    machine.sh("chcon system_u:object_r:container_file_t:s0:c1,c2 /mnt/dump")  # one namespace's own
    done = node.run(NEIGHBOUR_POD, APP, ["/bin/sh", "-c", "echo x > /mnt/dump/other_neighbour-1.hprof"])
    assert (done.code, "Permission denied" in done.err) == (2, True)
    assert any('comm="sh"' in line and "c1,c2" in line for line in node.denials())
    machine.sh("chcon system_u:object_r:var_lib_t:s0 /mnt/dump")  # a directory of the node's
    assert chain.uploader.exec(["/bin/ls", "/mnt/dump"]).code != 0
    assert any("var_lib_t" in line for line in node.denials())
    machine.sh("chcon system_u:object_r:container_file_t:s0 /mnt/dump; sleep 1")
    node.denials()  # the daemons' own, until the label was right again
    assert chain.uploader.exec(["/bin/ls", "/mnt/dump"]).code == 0
    assert node.denials() == []
