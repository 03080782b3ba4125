"""A JVM as a container has it: another user, and mount and pid namespaces of its own; no container runtime.

    with contained(jdk, volume, uid=5000) as app:
        app.jvm.ask("fill 20")
        os.stat(f"/proc/{app.pid}/root/tmp")

It is number 1 in its pid namespace, has a /tmp of its own, sees the volume under the path that we see it under, and
nothing of our network. Root only; the mounts are gone with the process.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.jvm import JAR, Jdk, LeakyJvm

# The JDK may lie below a directory that no other user may enter, the volume below the /tmp that is replaced.
_ENTER = """
mount --bind "$1" /mnt; mount --bind "$2" /opt; mount --bind "$3" /srv
mount -t tmpfs -o mode=1777 tmpfs /tmp; mkdir -p "$1"; mount --move /mnt "$1"
uid=$4; shift 4
exec setpriv --reuid="$uid" --regid="$uid" --clear-groups --no-new-privs -- "$@"
"""


@dataclass(frozen=True, slots=True)
class Contained:
    """`pid` is the process's number outside; `jvm` takes LeakyApp's commands."""

    jvm: LeakyJvm
    pid: int


def enter(volume: Path, java_home: Path, uid: int, argv: Sequence[str]) -> list[str]:
    """Give the command line that starts `argv` in there; the JDK is at /opt, the fixtures' jars at /srv."""
    words = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "sh", "-ec", _ENTER, "sh"]
    return [*words, str(volume), str(java_home), str(JAR.parent), str(uid), *argv]


def inside(child: int, *, timeout_s: float = 30) -> int:
    """Give the number of the process that unshare has started, once it is there."""
    until = time.monotonic() + timeout_s
    while not (found := Path(f"/proc/{child}/task/{child}/children").read_text().split()):
        assert time.monotonic() < until, "nothing was started"
        time.sleep(0.01)
    return int(found[0])


@contextmanager
def contained(
    jdk: Jdk, volume: Path, *, uid: int, xmx_mib: int = 64, options: Sequence[str] = ("-XX:+UseSerialGC",)
) -> Iterator[Contained]:
    """Run LeakyApp contained for the time of the `with`."""
    home = jdk.java.resolve().parents[1]
    argv = ["/opt/bin/java", f"-Xmx{xmx_mib}m", *options, "-cp", f"/srv/{JAR.name}", "LeakyApp"]
    with LeakyJvm(enter(volume, home, uid, argv), 120) as jvm:
        yield Contained(jvm, inside(jvm.pid))
