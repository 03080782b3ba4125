"""`python -m tests.torture`: dumps come and go, the agents die again and again, the store misbehaves, the disk fills.

Two nodes write dumps of the same names into one bucket. At the end, with all faults off, every dump that was ever
finished must be in the bucket byte for byte, once, with no multipart upload left open and no mark without its object;
no node may have aborted another's upload, and seen = uploaded + pending + failed must have held at every scrape.
Between two lives the volume is away, another is in its place, it has no free block or inode; clocks jump by ten years,
agents stand still and have 64 descriptors. With --hostile an ordinary user attacks each volume meanwhile.
The seed is printed; the same seed tortures the same way (as far as a real store and a scheduler can be repeated).
Ends with 1 if the promise was broken, or if one of the faults never came.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.harness.environment import forget_own_settings
from tests.harness.stores.server import StoreServer
from tests.torture.judge import (
    Stored,
    judge_aborts,
    judge_bucket,
    judge_scrapes,
    never_happened,
    open_uploads,
)
from tests.torture.node import Node
from tests.torture.tenant import Tenant
from tests.torture.volume import Volume
from tests.torture.weather import Weather
from tests.torture.zygote import Zygote

PART_BYTES = 5 << 20
NODES = ["worker-1", "worker-2"]
_TIDY_EVERY = 10  # cycles; with more dumps on the volumes a life would spend itself on looking through them
_SWEEP_WITHIN_S = 60
_MOST_MORE_CYCLES = (
    150  # for what has not happened yet: on a busy machine a short life may see no request at all
)


@contextlib.contextmanager
def started(kind: str, folder: Path) -> Iterator[StoreServer]:
    """Run a store of its own for this torture."""
    if kind == "swift":
        from tests.harness.stores.swift import Swift

        with Swift(folder) as swift:
            yield swift.http
    elif kind == "ceph":
        from tests.harness.stores.ceph import Ceph

        with Ceph(folder, durable=True) as ceph:  # the other keeps 4 GiB, and in memory
            yield ceph.http
    else:
        from tests.harness.stores.moto import Moto

        with Moto(folder) as moto:
            yield moto.server


def torture(server: StoreServer, nodes: list[Node], *, cycles: int, chance: random.Random) -> list[str]:
    """Let every node live and die `cycles` times, and on until every fault has come; give what was broken."""
    bucket = server.new_bucket()
    weather = Weather(chance.randrange(1 << 30))
    stored = Stored(server, bucket)
    with contextlib.ExitStack() as stack:
        for node in nodes:
            stack.enter_context(node.on(server, bucket, weather))
        for cycle in range(1, cycles + _MOST_MORE_CYCLES + 1):
            weather.share = chance.choice([0.0, 0.0, 0.05, 0.2, 0.6])
            for node in nodes:
                node.live()
            for node in nodes:
                node.meanwhile()
            for node in nodes:
                node.survive()
            if cycle % _TIDY_EVERY == 0:
                for node in nodes:
                    node.tidy(set(stored.digests().values()))
            if cycle % 50 == 0:
                _report(cycle, nodes)
            if cycle >= cycles and not never_happened(nodes, weather):
                break
        _report(cycle, nodes)
        for node in nodes:
            node.jvms.end()
            node.end_tenant()
        weather.share = 0
        faults = {
            fault.name: count
            for fault, count in sorted(weather.happened.items(), key=lambda item: item[0].name)
        }
        print(
            f"all faults off after {sum(len(node.proxy.log) for node in nodes)} requests: {faults}",
            flush=True,
        )
        codes = [node.settle() for node in nodes]
        broken = [
            f"the last pass of {node.name} ended with {code}"
            for node, code in zip(nodes, codes, strict=True)
            if code
        ]
        broken += judge_aborts(nodes)
        for node in nodes:
            node.sweep(lambda: not open_uploads(server, bucket), within_s=_SWEEP_WITHIN_S / len(nodes))
        broken += judge_bucket(server, bucket, [node.jvms.truth for node in nodes])
    broken += [f"never happened: {what}" for what in never_happened(nodes, weather)]
    return broken + judge_scrapes(nodes)


def _report(cycle: int, nodes: list[Node]) -> None:
    happened = sum((node.happened for node in nodes), Counter[str]())
    dumps = sum(len(node.jvms.truth.paths) for node in nodes)
    scrapes = sum(node.scraper.scrapes for node in nodes)
    print(f"cycle {cycle}: {dumps} dumps, {scrapes} scrapes, {dict(happened.most_common())}", flush=True)


def main() -> None:
    """Read the command line, and torture in a mount namespace of our own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", choices=["moto", "swift", "ceph"], default="swift")
    parser.add_argument("--cycles", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    parser.add_argument("--hostile", action="store_true", help="with a hostile user beside the applications")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if not words.inside:
        # Volumes of their own that can be filled: tmpfs in a private mount namespace, gone with it.
        again = [sys.executable, "-m", "tests.torture", "--inside", "--store", words.store]
        again += ["--cycles", str(words.cycles), "--seed", str(words.seed), *["--hostile"] * words.hostile]
        sys.exit(subprocess.run(["unshare", "--mount", *again], check=False).returncode)
    forget_own_settings()
    print(
        f"seed {words.seed}: python -m tests.torture --store {words.store} --cycles {words.cycles} --seed {words.seed}"
        + " --hostile" * words.hostile,
        flush=True,
    )
    began = time.monotonic()
    chance = random.Random(words.seed)
    with tempfile.TemporaryDirectory(prefix="dumpagent-torture-") as folder:
        Path(folder).chmod(0o755)
        nodes = [_node(Path(folder), name, chance, hostile=words.hostile) for name in NODES]
        (Path(folder) / "store").mkdir()
        try:
            with started(words.store, Path(folder, "store")) as server:
                broken = torture(server, nodes, cycles=words.cycles, chance=chance)
        finally:
            for node in nodes:
                node.close()
        for node in nodes:
            broken += _faults_of_its_own(node)
            if broken:
                kept = shutil.copy(node.log, f"/tmp/torture-{words.store}-{node.name}.log")
                print(f"the agent's log is kept as {kept}")
    print(f"{time.monotonic() - began:.0f} s")
    for line in broken[:40]:
        print(f"BROKEN: {line}", file=sys.stderr)
    sys.exit(1 if broken else 0)


def _node(folder: Path, name: str, chance: random.Random, *, hostile: bool) -> Node:
    volume = Volume(folder / name)
    tenant = Tenant(volume.root, chance) if hostile else None
    if tenant:
        tenant.begin()
    own = random.Random(chance.randrange(1 << 30))
    return Node(name, volume, Zygote(PART_BYTES), own, str(folder / f"{name}.log"), tenant)


def _faults_of_its_own(node: Node) -> list[str]:
    lines = Path(node.log).read_text().splitlines()
    faults = [line for line in lines if "agent_faulty" in line or "Traceback" in line]
    return [f"a fault of the agent's own: {json.dumps(line)[:2000]}" for line in faults[:5]]


if __name__ == "__main__":
    main()
