"""`python -m tests.torture`: dumps come and go, the agent dies again and again, the store misbehaves, the disk fills.

At the end, with all faults off, every dump that was ever finished must be in the bucket byte for byte, once, with no
multipart upload left open and no mark without its object. The seed is printed; the same seed tortures the same way
(as far as a real store and a scheduler can be repeated). Ends with 1 if the promise was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.environment import forget_own_settings
from tests.harness.faults import Fault, FaultProxy, always, at_random
from tests.harness.hprof import Maker
from tests.harness.stores.server import StoreServer
from tests.torture.zygote import Life, Zygote

MIB = 1 << 20
PART_BYTES = 5 * MIB
APPLICATIONS = 6
VOLUME_BYTES = 1024 * MIB
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]


@dataclass
class Truth:
    """What was ever finished on the volume: by SHA-256, under which path and how often (empty ones are alike)."""

    paths: dict[str, str] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    truncated: int = 0

    def finished(self, path: Path, root: Path) -> None:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.paths[digest] = path.relative_to(root).as_posix()
        self.times[digest] += 1


class Jvms:
    """Applications that write dumps as JVMs do: O_EXCL, nothing over an existing file, sometimes killed half-way."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root, self.chance, self.truth = root, chance, Truth()
        self.lost_to_a_taken_name = 0
        self._growing: tuple[Path, int, bytes] | None = None

    def act(self) -> None:
        """Do one thing: go on with a dump in the making, or begin one."""
        if self._growing:
            self._finish()
            return
        path = self.root / f"app-{self.chance.randrange(APPLICATIONS)}" / "java_pid1.hprof"
        path.parent.mkdir(exist_ok=True)
        content = self._content()
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            self.lost_to_a_taken_name += 1
            return
        half = self.chance.randrange(len(content))
        if not self._write(fd, path, content[:half]):
            return
        if self.chance.random() < 0.3:
            self._growing = (path, fd, content[half:])
            return
        if self.chance.random() < 0.1:  # killed
            os.close(fd)
            self.truth.truncated += 1
            self.truth.finished(path, self.root)
            return
        self._growing = (path, fd, content[half:])
        self._finish()

    def end(self) -> None:
        if self._growing:
            self._finish()

    def _finish(self) -> None:
        assert self._growing
        path, fd, rest = self._growing
        self._growing = None
        if self._write(fd, path, rest):
            os.fsync(fd)
            # Its digest must be known before the agent may rename it: nobody else does while a writer has it open.
            self.truth.finished(path, self.root)
            os.close(fd)

    def _write(self, fd: int, path: Path, content: bytes) -> bool:
        """Write all; on a full disk close what there is, as a JVM does, and say no."""
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            self.truth.truncated += 1
            self.truth.finished(path, self.root)
            os.close(fd)
            return False
        return True

    def _content(self) -> bytes:
        """Give a whole dump with bytes that no other has; two of one second are common."""
        size = self.chance.choice([200, 4000, 100_000, 3 * MIB, 11 * MIB, 17 * MIB])
        make = Maker(time_ms=int(time.time()) * 1000)
        unique = make.string(99, self.chance.randbytes(40).hex())
        head, whole = make.head(), make.dump(segments=1, segment_bytes=size)
        return head + unique + whole[len(head) :]


def digests(server: StoreServer, bucket: str) -> dict[str, str]:
    """Give the SHA-256 of every object, by key."""
    client = server.client()
    found = {}
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            body = client.get_object(Bucket=bucket, Key=entry["Key"])["Body"]
            found[entry["Key"]] = hashlib.sha256(body.read()).hexdigest()
    return found


def open_uploads(server: StoreServer, bucket: str) -> list[str]:
    return [
        entry["Key"] for entry in server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    ]


@contextlib.contextmanager
def started(kind: str, folder: Path) -> Iterator[StoreServer]:
    """Run a store of its own for this torture."""
    if kind == "swift":
        from tests.harness.stores.swift import Swift

        with Swift(folder) as swift:
            yield swift.http
    elif kind == "ceph":
        from tests.harness.stores.ceph import Ceph

        with Ceph(folder) as ceph:
            yield ceph.http
    else:
        from tests.harness.stores.moto import Moto

        with Moto(folder) as moto:
            yield moto.server


def torture(
    server: StoreServer, zygote: Zygote, root: Path, *, cycles: int, seed: int, log: str
) -> list[str]:
    """Go through `cycles` lives of the agent; give what was broken, empty if nothing was."""
    chance = random.Random(seed)
    bucket = server.new_bucket()
    jvms = Jvms(root, chance)
    ends: Counter[str] = Counter()
    with FaultProxy(server, delay_s=0.05, hang_s=3) as proxy:
        variables = proxy.server.environment(bucket) | {
            "DUMP_ROOT": str(root), "NODE_NAME": "worker-1", "FILE_STABLE_TIME": "0.3", "WATCH_INTERVAL": "0.2",
            "METRICS_PORT": "0", "LOG_FORMAT": "json",
        }  # fmt: skip
        for cycle in range(cycles):
            share = chance.choice([0.0, 0.0, 0.05, 0.2, 0.6])
            proxy.plan = at_random(chance.randrange(1 << 30), share, chance.sample(FAULTS, 4))
            keep = chance.choice(["always", "while-space", "until-uploaded"])
            fill = root / "fill" if chance.random() < 0.05 else None
            if fill:
                _fill(fill)
            life = Life(
                words=[],
                variables=variables | {"LOCAL_KEEP": keep, "CLAIM": chance.choice(["true", "true", "false"])},
                log=log,
                lasts_s=chance.choice([chance.uniform(0.02, 1), chance.uniform(0.5, 4)]),
                end_signal=chance.choice([signal.SIGKILL] * 5 + [signal.SIGTERM]),
                kill_at=chance.choice([0, 0, chance.randrange(1, 3000)]),
                clock_off_s=chance.choice([0.0] * 6 + [-1e6, 1e6]),
            )
            zygote.begin(life)
            until = time.monotonic() + life.lasts_s
            for _ in range(chance.randrange(3)):
                jvms.act()
                time.sleep(max(0.0, min(chance.uniform(0, 0.3), until - time.monotonic())))
            if chance.random() < 0.05:
                shutil.rmtree(root / ".dumpagent", ignore_errors=True)
            code = zygote.ended()
            ends[signal.Signals(-code).name if code < 0 else f"exit {code}"] += 1
            if fill:
                fill.unlink(missing_ok=True)
            if cycle % 50 == 49:
                print(f"cycle {cycle + 1}/{cycles}: {len(jvms.truth.paths)} dumps, {dict(ends)}", flush=True)
        jvms.end()
        proxy.plan = always(Fault.NONE)
        print(
            f"all faults off after {cycles} cycles; {len(proxy.log)} requests, ends: {dict(ends)}", flush=True
        )
        settled = variables | {"LOCAL_KEEP": "always", "FILE_STABLE_TIME": "0"}
        for _ in range(5):
            code = zygote.live(Life(words=["--once"], variables=settled, log=log))
            if code == 0:
                break
    broken = [] if code == 0 else [f"the last pass ended with {code}; see {log}"]
    return broken + judge(server, bucket, jvms.truth)


def judge(server: StoreServer, bucket: str, truth: Truth) -> list[str]:
    """Give every way in which the bucket is not what it should be."""
    stored = digests(server, bucket)
    counted = Counter(stored.values())
    broken = [
        f"lost: {path} ({digest[:12]})" for digest, path in truth.paths.items() if digest not in counted
    ]
    broken += [
        f"stored {count} times: {truth.paths.get(digest, '?')}"
        for digest, count in counted.items()
        if count > truth.times[digest] > 0
    ]
    broken += [f"not a dump of ours: {key}" for key, digest in stored.items() if digest not in truth.paths]
    broken += [f"left open: {key}" for key in open_uploads(server, bucket)]
    print(
        f"{len(truth.paths)} dumps were finished ({truth.truncated} of them cut off), {len(stored)} objects are stored: "
        f"{'nothing lost, doubled, overwritten or left open' if not broken else f'{len(broken)} BROKEN'}"
    )
    return broken


def _fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb") as file:
        while True:
            file.write(bytes(MIB))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", choices=["moto", "swift", "ceph"], default="swift")
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if not words.inside:
        # A volume of its own that can be filled: a tmpfs in a private mount namespace, gone with it.
        again = [sys.executable, "-m", "tests.torture", "--inside", "--store", words.store]
        again += ["--cycles", str(words.cycles), "--seed", str(words.seed)]
        sys.exit(subprocess.run(["unshare", "--mount", *again], check=False).returncode)
    forget_own_settings()
    print(
        f"seed {words.seed}: python -m tests.torture --store {words.store} --cycles {words.cycles} --seed {words.seed}"
    )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dumpagent-torture-") as folder:
        root, server_folder, log = Path(folder, "dump"), Path(folder, "store"), Path(folder, "agent.log")
        root.mkdir()
        server_folder.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={VOLUME_BYTES}", "torture", str(root)], check=True
        )
        try:
            zygote = Zygote(PART_BYTES)
            with started(words.store, server_folder) as server:
                broken = torture(server, zygote, root, cycles=words.cycles, seed=words.seed, log=str(log))
            zygote.close()
        finally:
            subprocess.run(["umount", "--lazy", str(root)], check=False)
        faults = [
            line for line in log.read_text().splitlines() if "agent_faulty" in line or "Traceback" in line
        ]
        broken += [f"a fault of the agent's own: {json.dumps(line)[:2000]}" for line in faults[:5]]
        if broken:
            kept = shutil.copy(log, "/tmp/torture-agent.log")
            print(f"the agent's log is kept as {kept}")
    print(f"{time.monotonic() - began:.0f} s")
    for line in broken[:40]:
        print(f"BROKEN: {line}", file=sys.stderr)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
