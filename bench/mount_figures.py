"""Measures mount mode and its probe: `make bench-mount`, or `python -m bench.mount_figures [NAME...] [--short]`.

Prints a table and writes the same as JSON to the file after `--json`. Needs root, since it makes mounts (in namespaces
of its own) and cgroups.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.cpu import Group, percentile
from tests.mount.node import Manager, Node
from tests.mount.test_losses import WRITER

_SHORT = "--short" in sys.argv


@dataclass(frozen=True)
class Figure:
    """One measured value and what was promised of it."""

    what: str
    value: float
    unit: str
    promised: float | None
    detail: str = ""

    @property
    def kept(self) -> bool | None:
        """Say whether the promise is kept; None where nothing was promised."""
        return None if self.promised is None else self.value <= self.promised


@contextmanager
def running(group: Group, *flags: str) -> Iterator[tuple[Node, Manager]]:
    """Run a manager with the settings of a real node inside `group`."""
    base = Path(tempfile.mkdtemp(prefix="dumpagent-bench-"))
    try:
        with Node(base) as node:
            real = ("--mount-check-interval", "30", "--mount-hung-after", "10", "--log-level", "info")
            manager = node.manager(*real, *flags)
            group.join(manager.process.pid)
            yield node, manager.ready()
    finally:
        shutil.rmtree(base)


# Runs on the host: unmounts, then opens a file through the path until it is one on the volume's device.
_LOSE = """
name = f"{path}/java_pid{os.urandom(4).hex()}.hprof"
wanted = os.stat(pv).st_dev
import time
began = time.monotonic()
umount(path, 2)
while True:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"x")
    there = os.fstat(fd).st_dev == wanted
    os.close(fd)
    if there:
        break
    time.sleep(0.0002)
result = time.monotonic() - began
"""


def remounts(millicores: int | None) -> Iterator[Figure]:
    """Time from a lost mount to a write that lands in the volume."""
    losses = 20 if _SHORT else 100
    limit = "no CPU limit" if millicores is None else f"{millicores}m CPU"
    with Group(millicores) as group, running(group) as (node, manager):
        taken = []
        dice = random.Random(1)
        before = group.used_s()
        for _ in range(losses):
            time.sleep(dice.uniform(0.3, 0.7))
            taken.append(1000 * node.host.run(_LOSE, path=f"{node.mnt}/dump", pv=node.pv))
        each = 1000 * (group.used_s() - before) / losses
        detail = f"{losses} losses; p50 {percentile(taken, 50):.2f}, max {max(taken):.1f}; {each:.1f} ms CPU each, all in all"
        yield Figure(
            f"umount to a write in the volume, p95, {limit}", percentile(taken, 95), "ms", 50, detail
        )
        assert len(manager.told("mount_restored", losses)) == losses  # told after the bind, so it may be late


def files(millicores: int | None) -> Iterator[Figure]:
    """Files that an application wrote all the while and that are missing after many losses.

    Without a CPU limit it never pauses; a tenth of a core gets no more than a thousand files a second, or it would be
    rescuing for hours what a quick machine makes in minutes.
    """
    losses = 10 if _SHORT else 100
    limit, pause_s = ("no CPU limit", "0") if millicores is None else (f"{millicores}m CPU", "0.001")
    with Group(millicores) as group, running(group) as (node, manager):
        stop = node.base / "stop"
        words = [sys.executable, "-I", "-S", "-c", WRITER, node.dumps, str(stop), pause_s]
        node.host.run("mount('pv', pv, MS_REMOUNT, 'tmpfs', 'size=2g,nr_inodes=2m')", pv=node.pv)
        writer = node.app().popen(words, stdout=subprocess.PIPE, text=True)
        for turn in range(1, losses + 1):
            node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")
            manager.told("mount_restored", turn)
            # A quick machine's application makes a thousand files in it, and 2 GiB have an end.
            time.sleep(0.02)
        stop.touch()
        count = int(writer.communicate()[0])
        names = {f"app-{n}.hprof" for n in range(count)}

        def missing() -> set[str]:
            return names - set(node.host.run("os.listdir(pv)", pv=node.pv))

        left, moved_at = len(missing()), time.monotonic()
        while left and time.monotonic() - moved_at < 30:  # a tenth of a core takes its time
            time.sleep(1)
            now_left = len(missing())
            left, moved_at = now_left, moved_at if now_left == left else time.monotonic()
        rescued = len(manager.events("file_rescued"))
        detail = f"{count} files, {losses} losses, {rescued} rescued, the others written into the volume"
        yield Figure(f"files lost, {limit}", len(missing()), "files", 0, detail)


def idle() -> Iterator[Figure]:
    """What the daemon needs while nothing happens, and while others mount."""
    with Group(None) as group, running(group) as (node, manager):
        time.sleep(2)
        before, began = group.used_s(), time.monotonic()
        time.sleep(20 if _SHORT else 60)
        share = 100 * (group.used_s() - before) / (time.monotonic() - began)
        status = Path(f"/proc/{manager.process.pid}/status").read_text()
        rss = int(status.split("VmRSS:")[1].split()[0]) / 1024
        seconds = time.monotonic() - began
        yield Figure("idle: resident memory", rss, "MiB", 32)
        yield Figure("idle: CPU", share, "% of a core", 0.1, f"over {seconds:.0f} s, a write test every 30 s")
        for others in (0, 5000):
            node.host.run(
                "os.makedirs(base + '/many', exist_ok=True); mount('many', base + '/many', 0, 'tmpfs')\n"
                "for n in range(count): os.mkdir(f'{base}/many/{n}'); mount(pv, f'{base}/many/{n}', MS_BIND)",
                base=node.mnt, pv=node.pv, count=others,
            )  # fmt: skip
            time.sleep(1)
            before = group.used_s()
            operations, seconds = _storm(node, 10 if _SHORT else 30)
            share = 100 * (group.used_s() - before) / seconds
            detail = f"{operations / seconds:.0f} operations/s for {seconds:.0f} s, {others} other mounts"
            yield Figure("mount storm: CPU", share, "% of a core", 5, detail)
        assert not manager.events("mount_lost")


def _storm(node: Node, seconds: float) -> tuple[int, float]:
    """Mount and unmount elsewhere in the namespace at 1,000 operations a second; give how many and how long."""
    answer = node.host.run(
        """
import time
os.makedirs(mnt + '/elsewhere', exist_ok=True)
began, done = time.monotonic(), 0
while time.monotonic() - began < seconds:
    mount(pv, mnt + '/elsewhere', MS_BIND); umount(mnt + '/elsewhere', 2); done += 2
    time.sleep(max(0.0, began + done / 1000 - time.monotonic()))
result = [done, time.monotonic() - began]
""",
        mnt=node.mnt, pv=node.pv, seconds=seconds,
    )  # fmt: skip
    return int(answer[0]), float(answer[1])


# Runs in the manager's container; gives the CPU seconds of one program.
_CPU_OF = """
pid = os.posix_spawn(words[0], words, env)
_, status, use = os.wait4(pid, 0)
assert status == 0, status
result = use.ru_utime + use.ru_stime
"""


def probe() -> Iterator[Figure]:
    """What one `dumpagent check` costs beside `python -c pass`, and how long it takes with a tenth of a core."""
    script = str(Path(sys.executable).parent / "dumpagent")
    with Group(None) as group, running(group) as (node, manager):
        env = {**os.environ, "RUNTIME_DIR": f"{node.base}/run"}
        kinds = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "dumpagent check": [script, "check"],
            "python -m dumpagent check": [sys.executable, "-m", "dumpagent", "check"],
        }
        manager_container = manager.container
        used: dict[str, list[float]] = {name: [] for name in kinds}
        for _turn in range(20 if _SHORT else 200):
            for name, words in kinds.items():  # side by side, so that a busy machine is busy for all of them
                used[name].append(1000 * manager_container.run(_CPU_OF, words=words, env=env))
        bare = percentile(used["python -c pass"], 50)
        for name in list(kinds)[1:]:
            median = percentile(used[name], 50)
            detail = f"{median:.1f} ms against {bare:.1f} ms of CPU, medians of {len(used[name])}"
            promised = 1.5 if name == "dumpagent check" else None  # -m alone imports more than the probe does
            yield Figure(f"CPU of `{name}` over `python -c pass`", median / bare, "times", promised, detail)
        in_namespace = ["nsenter", f"--mount=/proc/{manager.process.pid}/ns/mnt", "--"]
        with Group(100) as limited:
            enter = "; ".join(f"echo $$ > {file}" for file in limited.procs_files)
            walls = []
            for _turn in range(20 if _SHORT else 200):
                began = time.monotonic()
                words = ["sh", "-c", f'{enter}; exec "$@"', "sh", *in_namespace, script, "check"]
                subprocess.run(words, env=env, check=True)
                walls.append(time.monotonic() - began)
                time.sleep(0.1)
            detail = f"p50 {percentile(walls, 50):.3f}, max {max(walls):.3f}, {len(walls)} calls"
            yield Figure(
                "wall time of `dumpagent check`, p99, 100m CPU", percentile(walls, 99), "s", 1, detail
            )


ALL: dict[str, Callable[[], Iterator[Figure]]] = {
    "remount": lambda: remounts(None),
    "remount-100m": lambda: remounts(100),
    "files": lambda: files(None),
    "files-100m": lambda: files(100),
    "idle": idle,
    "probe": probe,
}


def main() -> int:
    """Measure what is named (all, if nothing is) and give 1 if a promise was not kept."""
    words = sys.argv[1:]
    json_path = Path(words.pop(words.index("--json") + 1)) if "--json" in words else None
    names = [word for word in words if not word.startswith("--")] or list(ALL)
    measured: list[Figure] = []
    try:
        for name in names:
            for figure in ALL[name]():
                measured.append(figure)
                mark = {True: "kept", False: "NOT KEPT", None: ""}[figure.kept]
                promised = "" if figure.promised is None else f"(promised: {figure.promised:g})"
                print(
                    f"{figure.what:60} {figure.value:9.3f} {figure.unit:12} {promised:18} {mark:8} {figure.detail}",
                    flush=True,
                )
    except KeyboardInterrupt:
        print("ended early", file=sys.stderr)
    if json_path is not None:
        json_path.parent.mkdir(exist_ok=True, parents=True)
        json_path.write_text(json.dumps([asdict(figure) for figure in measured], indent=2) + "\n")
    return 1 if any(figure.kept is False for figure in measured) else 0


if __name__ == "__main__":
    sys.exit(main())
