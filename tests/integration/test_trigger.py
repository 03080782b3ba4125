"""A running JVM of another user, in mount and pid namespaces of its own, is asked for a heap dump; a hostile one gets nothing.

Real JVMs without a container runtime (tests/harness/contained.py). What pretends to be a JVM is a Python program that
has mapped libjvm.so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.memory_watch.cgroups import hierarchy
from dumpagent.trigger.attach import Attachment
from dumpagent.trigger.place import PodDirectory
from dumpagent.trigger.processes import HeldProcess, examine, held
from dumpagent.trigger.request import ask_for_dump, look
from tests.harness.children import end, start
from tests.harness.contained import Contained, contained, enter, inside
from tests.harness.jvm import PINNED, any_jdk, pinned_jdk
from tests.harness.manifests import objects

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: namespaces, other users"),
]
UID = 5000
POD_UID = "0a0b0c0d-7777"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A dump volume with the pod's own directory, as `dumpagent wait` makes it."""
    root = tmp_path / "volume"
    root.mkdir(mode=0o755)
    (root / ".ready").write_text("ready")
    own = root / "shop_orders-1"
    own.mkdir(mode=0o700)
    os.chown(own, UID, UID)
    return root


@pytest.fixture
def directory(volume: Path) -> PodDirectory:
    return PodDirectory(str(volume), "shop", "orders-1")


@contextlib.contextmanager
def _holding(pid: int) -> Iterator[HeldProcess]:
    folder = os.open(f"/proc/{pid}", os.O_RDONLY)
    try:
        jvm = examine(folder, pid)
    finally:
        os.close(folder)
    with held(jvm) as process:
        yield process


def _tmp(pid: int) -> list[str]:
    return sorted(name for name in os.listdir(f"/proc/{pid}/root/tmp") if name.startswith("."))


@pytest.mark.parametrize("version", PINNED)
def test_a_jvm_of_another_user_writes_the_dump_into_its_own_directory(
    version: str, volume: Path, directory: PodDirectory
) -> None:
    """A complete dump, owned by the application; its /tmp has the JVM's own socket and nothing of ours."""
    with contained(pinned_jdk(version), volume, uid=UID) as app, _holding(app.pid) as process:
        app.jvm.ask("fill 20")
        assert (process.jvm.inner_pid, process.jvm.uid) == (1, UID)
        prospect = look(process, directory)
        assert prospect.told
        assert 19 << 20 <= prospect.estimate.used_bytes <= 64 << 20
        assert version.split(".")[0] in prospect.version
        path = directory.new_dump()
        assert "Heap dump file created" in ask_for_dump(process, path, live=True, seconds=60)
        assert app.jvm.ask("fill 1")
        assert _tmp(app.pid) == [".java_pid1"]
    assert os.stat(path).st_uid == UID
    inspected = subprocess.run(
        [sys.executable, "-m", "dumpagent", "inspect", path], capture_output=True, check=False
    )
    assert inspected.returncode == 0, "not complete"
    assert os.stat(path).st_size <= prospect.estimate.dump_bytes


def test_a_socket_that_an_earlier_jvm_left_is_no_hindrance(volume: Path, directory: PodDirectory) -> None:
    """A restarted container has the same /tmp (emptyDir), and its JVM the same number."""
    with contained(any_jdk(), volume, uid=UID) as app, _holding(app.pid) as process:
        with socket.socket(socket.AF_UNIX) as old:
            old.bind(f"/proc/{app.pid}/root/tmp/.java_pid1")
        os.chown(f"/proc/{app.pid}/root/tmp/.java_pid1", UID, UID)
        assert look(process, directory).told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-XX:+DisableAttachMechanism"], "does not open"),
        (["-XX:+DisableAttachMechanism", "-Xrs"], "does not catch SIGQUIT"),
    ],
)
def test_a_jvm_that_cannot_be_asked_lives_on(
    options: list[str], message: str, volume: Path, directory: PodDirectory
) -> None:
    """Without the mechanism it only prints its threads. With -Xrs SIGQUIT would end it, so none is sent."""
    with contained(any_jdk(), volume, uid=UID, options=["-XX:+UseSerialGC", *options]) as app:
        with _holding(app.pid) as process, pytest.raises(DumpagentError, match=message):
            look(process, directory, attach_s=3)
        assert app.jvm.ask("fill 1")
        assert _tmp(app.pid) == []


def test_a_jvm_that_takes_no_signals_listens_from_its_start(volume: Path, directory: PodDirectory) -> None:
    """-Xrs alone: it is asked without a signal, which would end it."""
    with contained(any_jdk(), volume, uid=UID, options=["-XX:+UseSerialGC", "-Xrs"]) as app:
        with _holding(app.pid) as process:
            assert process.handles_quit() is False
            assert look(process, directory).told
        assert app.jvm.ask("fill 1")


def test_the_directory_must_be_the_volumes_and_the_jvms_own(volume: Path, directory: PodDirectory) -> None:
    """Each wrong place is refused before the JVM is asked for anything."""
    own = volume / "shop_orders-1"
    with contained(any_jdk(), volume, uid=UID) as app, _holding(app.pid) as process:
        os.chown(own, UID + 1, UID)
        with pytest.raises(Refused, match="does not belong to the JVM's user 5000"):
            look(process, directory)
        own.rename(volume / "moved")
        os.chown(volume / "moved", UID, UID)
        with pytest.raises(Refused, match="has no directory"):
            look(process, directory)
        own.symlink_to("moved")
        with pytest.raises(Refused, match="has no directory"):
            look(process, directory)
        own.unlink()
        (volume / "moved").rename(own)
        (volume / ".ready").unlink()
        with pytest.raises(Refused, match="not mounted"):
            look(process, directory)
        (volume / ".ready").touch()
        assert _tmp(app.pid) == []
        look(process, directory)


def test_a_container_without_the_volume_is_refused(
    volume: Path, directory: PodDirectory, tmp_path: Path
) -> None:
    """The dump would fill the container's own file system, and nobody would ever store it."""
    other = tmp_path / "other"
    (other / "shop_orders-1").mkdir(parents=True)
    os.chown(other / "shop_orders-1", UID, UID)
    with contained(any_jdk(), other, uid=UID) as app, _holding(app.pid) as process:
        pid_root = f"/proc/{app.pid}/root{volume}"
        with pytest.raises(Refused, match="does not show"):
            look(process, directory)
        os.makedirs(f"{pid_root}/shop_orders-1")
        with pytest.raises(Refused, match="is not the dump volume's"):
            look(process, directory)
        assert _tmp(app.pid) == []


# What every impostor does first: it has the library mapped, and says that it is there.
_PROLOGUE = """
import mmap, os, signal, socket, sys, time
with open("/opt/lib/server/libjvm.so", "rb") as library:
    mapped = mmap.mmap(library.fileno(), 4096, access=mmap.ACCESS_READ)
heard = []
def hear(*_):
    heard.append(1)
    open("/tmp/heard", "w").close()
def listen(name="/tmp/.java_pid1"):
    server = socket.socket(socket.AF_UNIX); server.bind(name); server.listen(1)
    return server
def ready():
    print("ready", flush=True)
def idle():
    while True: time.sleep(0.1)
"""


_FLOOD = """
while True:
    connection, _ = server.accept()
    try:
        while True: connection.send(b"x" * 65536)
    except OSError: pass
"""


@contextlib.contextmanager
def _impostor(volume: Path, script: str) -> Iterator[int]:
    home = any_jdk().java.resolve().parents[1]
    argv = enter(volume, home, UID, ["/usr/bin/python3", "-c", _PROLOGUE + script])
    child = start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert child.stdout
        line = child.stdout.readline()
        assert line == b"ready\n", line + child.stdout.read()
        yield inside(child.pid)
        assert child.poll() is None, "it did not survive"
    finally:
        end(child, grace_s=0)


def test_what_only_looks_like_a_jvm_is_not_signalled(volume: Path, directory: PodDirectory) -> None:
    """It has mapped libjvm.so, but SIGQUIT would end it."""
    with _impostor(volume, "ready(); idle()") as pid, _holding(pid) as process:
        with pytest.raises(Refused, match="does not catch SIGQUIT"):
            look(process, directory, attach_s=3)
        assert _tmp(pid) == []


def test_a_target_that_never_answers_is_given_up(volume: Path, directory: PodDirectory) -> None:
    """Silent at the signal; silent at the connection; and a flood. Each within the limit, with nothing left behind."""
    scripts = (
        "signal.signal(signal.SIGQUIT, hear); ready(); idle()",
        "server = listen(); ready(); idle()",
        "server = listen(); ready()\nwhile True:\n  c, _ = server.accept(); kept = c",
        f"server = listen(); ready()\n{_FLOOD}",
        "server = listen(); ready()\nwhile True:\n  c, _ = server.accept(); c.close()",
    )
    for script in scripts:
        with _impostor(volume, script) as pid, _holding(pid) as process:
            begun = time.monotonic()
            with pytest.raises(Unreachable):
                look(process, directory, attach_s=2)
            assert time.monotonic() - begun < 10, script
            assert ".attach_pid1" not in _tmp(pid)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("os.symlink('/tmp/victim', '/tmp/.java_pid1'); ready(); idle()", "no socket"),
        ("open('/tmp/.java_pid1', 'w').close(); ready(); idle()", "no socket"),
        ("os.mkfifo('/tmp/.java_pid1'); ready(); idle()", "no socket"),
        ("os.mkdir('/tmp/.java_pid1'); ready(); idle()", "no socket"),
        (
            "server = listen('/tmp/other'); os.symlink('/tmp/other', '/tmp/.java_pid1'); ready(); idle()",
            "no socket",
        ),
        (
            "if os.fork() == 0:\n  server = listen(); idle()\ntime.sleep(1); ready(); idle()",
            "another process",
        ),
        (
            "signal.signal(signal.SIGQUIT, hear); os.symlink('/tmp/victim', '/tmp/.attach_pid1'); ready(); idle()",
            "regular",
        ),
        ("signal.signal(signal.SIGQUIT, hear); os.mkfifo('/tmp/.attach_pid1'); ready(); idle()", "regular"),
    ],
)
def test_a_planted_name_is_refused_and_nothing_is_sent(
    script: str, message: str, volume: Path, directory: PodDirectory
) -> None:
    """No link is followed, nothing is made at its end, no signal is sent, and what was planted stays as it is."""
    with _impostor(volume, script) as pid, _holding(pid) as process:
        before = _tmp(pid)
        with pytest.raises(Refused, match=message):
            look(process, directory, attach_s=3)
        assert _tmp(pid) == before
        assert not {"victim", "heard"} & set(os.listdir(f"/proc/{pid}/root/tmp"))


def test_a_socket_of_the_node_behind_a_link_hears_nothing(
    volume: Path, directory: PodDirectory, tmp_path: Path
) -> None:
    """A bind mount brings a socket of the node into the container: who listens there is not the target."""
    with socket.socket(socket.AF_UNIX) as nodes, _impostor(volume, "ready(); idle()") as pid:
        nodes.bind(str(volume / "node.sock"))
        os.chmod(volume / "node.sock", 0o777)
        nodes.listen(1)
        nodes.setblocking(False)
        os.link(volume / "node.sock", volume / "shop_orders-1" / "node.sock")
        inside_tmp = f"/proc/{pid}/root/tmp/.java_pid1"
        Path(inside_tmp).touch()
        subprocess.run(
            [
                "nsenter",
                f"--mount=/proc/{pid}/ns/mnt",
                "mount",
                "--bind",
                f"{volume}/node.sock",
                "/tmp/.java_pid1",
            ],
            check=True,
        )
        with _holding(pid) as process, pytest.raises(Refused, match="another process"):
            look(process, directory, attach_s=3)
        connection, _ = nodes.accept()
        connection.setblocking(True)
        assert connection.recv(1) == b""
        connection.close()


def test_a_tmp_that_leads_away_is_refused(volume: Path, directory: PodDirectory) -> None:
    """A container whose /tmp is a link: not even the target's own files are touched through it."""
    with _impostor(volume, "signal.signal(signal.SIGQUIT, hear); ready(); idle()") as pid:
        # Its own /tmp cannot be taken away from under it: another directory of its namespace plays the root.
        script = "mount -t tmpfs tmpfs /srv; ln -s /etc /srv/tmp"
        subprocess.run(["nsenter", f"--mount=/proc/{pid}/ns/mnt", "sh", "-ec", script], check=True)
        with _holding(pid) as process:
            root = os.open(f"/proc/{pid}/root/srv", os.O_PATH)
            with pytest.raises(Refused, match="cannot be used"):
                Attachment(process, root, until=time.monotonic() + 1)
            os.close(root)


def test_a_process_that_ends_while_it_is_held_gets_nothing(volume: Path, directory: PodDirectory) -> None:
    """Not even a later one of the same number: it is held by a descriptor."""
    with contained(any_jdk(), volume, uid=UID) as app, _holding(app.pid) as process:
        os.kill(app.pid, signal.SIGKILL)
        app.jvm.child.wait()
        with pytest.raises(Refused, match="ended"):
            look(process, directory)
        with pytest.raises(ProcessLookupError):
            signal.pidfd_send_signal(process.pidfd, 0)


@contextlib.contextmanager
def _in_pod(*apps: Contained) -> Iterator[None]:
    """Put the JVMs into a pod's cgroup, as a runtime does."""
    tree = hierarchy()
    pod = Path(tree.root) / "kubepods" / f"pod{POD_UID}"
    for number, app in enumerate(apps):
        (pod / f"c{number}").mkdir(parents=True)
        (pod / f"c{number}" / "cgroup.procs").write_text(str(app.pid))
    try:
        yield
    finally:
        for app in apps:
            (Path(tree.root) / "cgroup.procs").write_text(str(app.pid))
        for number in range(len(apps)):
            (pod / f"c{number}").rmdir()
        pod.rmdir()
        with contextlib.suppress(OSError):
            pod.parent.rmdir()


def _trigger(volume: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with the capabilities of its manifest and no other."""
    (workload,) = (each for each in objects("trigger/daemonset.yaml") if each["kind"] == "DaemonSet")
    security = workload["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    kept = ",".join(f"+{name.lower()}" for name in security["capabilities"]["add"])
    environment = {
        "PATH": os.environ["PATH"],
        "DUMP_ROOT": str(volume),
        "RUNTIME_DIR": str(volume.parent / "run"),
    }
    return subprocess.run(
        ["setpriv", f"--bounding-set=-all,{kept}", "--no-new-privs", "--",
         sys.executable, "-m", "dumpagent", "trigger", *words, "--pod-uid", POD_UID],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_says_what_it_will_cost_and_asks_once_in_the_interval(volume: Path) -> None:
    """By hand as an administrator does it: refused without a yes, then done, then refused for the interval."""
    own = volume / "shop_orders-1"
    with contained(any_jdk(), volume, uid=UID) as app, _in_pod(app):
        asked = _trigger(volume, "shop/orders-1")
        assert (asked.returncode, list(own.iterdir())) == (1, [])
        assert "stands still for" in asked.stdout
        assert "(estimate)" in asked.stdout
        assert "use --yes" in asked.stderr
        done = _trigger(volume, "shop/orders-1", "--yes")
        assert done.returncode == 0, done.stderr
        (dump,) = own.iterdir()
        assert done.stdout.splitlines()[-1] == str(dump)
        assert [event in done.stderr for event in ("heap_dump_requested", "requested_dump_written")] == [
            True,
            True,
        ]
        again = _trigger(volume, "shop/orders-1", "--yes")
        assert (again.returncode, "TRIGGER_INTERVAL" in again.stderr) == (1, True)
        assert list(own.iterdir()) == [dump]


def test_of_several_jvms_one_must_be_named(volume: Path) -> None:
    """The list says which there are; nothing is asked before."""
    with (
        contained(any_jdk(), volume, uid=UID) as one,
        contained(any_jdk(), volume, uid=UID) as two,
        _in_pod(one, two),
    ):
        refused = _trigger(volume, "shop/orders-1", "--yes")
        assert refused.returncode == 1
        assert f"--pid {one.pid}" in refused.stderr
        assert f"--pid {two.pid}" in refused.stderr
        assert _tmp(one.pid) == _tmp(two.pid) == []
        done = _trigger(volume, "shop/orders-1", "--yes", "--pid", str(two.pid))
        assert done.returncode == 0, done.stderr
        assert _tmp(one.pid) == []


@pytest.mark.parametrize("words", [("orders-1",), ("shop/../etc",), ("shop/orders_1",), ()])
def test_a_bad_name_is_refused(words: tuple[str, ...], volume: Path) -> None:
    """Exit code 2 and what would be accepted."""
    refused = _trigger(volume, *words)
    assert refused.returncode == 2
    assert "NAMESPACE/POD" in refused.stderr or "name the pod" in refused.stderr


def test_a_pod_that_is_not_here(volume: Path) -> None:
    """No JVM, no request, and what to look at."""
    refused = _trigger(volume, "shop/orders-1", "--yes")
    assert (refused.returncode, "no HotSpot JVM on this node" in refused.stderr) == (1, True)
