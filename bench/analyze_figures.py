"""Measures what an exact analysis and a summary cost: `python -m bench.analyze_figures [DUMP ...] [--mib 900] [--objects N]`.

Without DUMP, a JVM writes one of about --mib MiB first. CPU seconds are those of whole processes, start and all; memory is
the greatest resident size. --objects adds a heap made by hand of so many objects, analyzed with and without a cgroup of
--limit-mib MiB (root, cgroup v1 or v2): the answers must be equal. Exits with 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.harness.hprof import END, SEGMENT, Maker, record
from tests.harness.jvm import JAR, any_jdk

_GB = 1e9
_STARTING_BYTES = 150 << 20
_SEGMENT_NODES = 500_000
_NODE = np.dtype(
    [("tag", "u1"), ("id", ">u8"), ("trace", ">u4"), ("of", ">u8"), ("length", ">u4"), ("next", ">u8"), ("n", ">u4")]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took, and what it printed."""

    cpu_s: float
    peak_bytes: int
    code: int
    out: str


@dataclass(frozen=True, slots=True)
class Promise:
    """One figure and what it may be at most."""

    what: str
    found: float
    most: float
    unit: str

    @property
    def kept(self) -> bool:
        return self.found <= self.most

    def __str__(self) -> str:
        kept = "" if self.kept else "  MISSED"
        return f"{self.what}: {self.found:.1f} {self.unit} (at most {self.most:g}){kept}"


def run(argv: list[str], *, stdin: Path | None = None, cgroup: Path | None = None) -> Cost:
    """Run a program to its end, inside a cgroup if one is named."""
    with tempfile.TemporaryFile("w+") as out, open(stdin or os.devnull, "rb") as file:
        join = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup / "cgroup.procs")] if cgroup else []
        child = subprocess.Popen([*join, *argv], stdin=file, stdout=out)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        return Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, child.returncode, out.read())


def analysis(dump: Path, *more: str, cgroup: Path | None = None) -> Cost:
    """Analyze a dump, all but strings."""
    argv = [sys.executable, "-m", "dumpagent", "analyze", str(dump), "--json", "--no-strings", *more]
    return run(argv, cgroup=cgroup)


def write_jvm_dump(folder: Path, mib: int) -> Path:
    """Have a JVM of that heap die of a map that grows."""
    path = folder / "map.hprof"
    subprocess.run(
        [
            *(str(any_jdk().java), f"-Xmx{mib}m", "-XX:+UseSerialGC", "-XX:+HeapDumpOnOutOfMemoryError"),
            *(f"-XX:HeapDumpPath={path}", "-XX:+ExitOnOutOfMemoryError"),
            *("-cp", str(JAR.with_name("leaks.jar")), "Leaks", "static-map"),
        ],
        capture_output=True,
        check=False,
    )
    return path


def write_made_dump(path: Path, objects: int) -> None:
    """Write lists of 100 nodes each, all in an array that a static holds, and every tenth node in no list."""
    make, start = Maker(), 1 << 32
    texts = ["java/lang/Object", "com/acme/Node", "[Lcom/acme/Node;", "com/acme/Cache", "ALL", "next", "n"]
    ids = {
        "java/lang/Object": 0x100,
        "com/acme/Node": 0x200,
        "[Lcom/acme/Node;": 0x300,
        "com/acme/Cache": 0x400,
    }
    array, number = 0x10000, {text: at for at, text in enumerate(texts, 1)}
    classes = b"".join(
        b"\x20" + make.id(at) + bytes(4) + make.id(0 if at == 0x100 else 0x100) + bytes(5 * 8)
        + struct.pack(">IHH", 24, 0, name == "com/acme/Cache")
        + (make.id(number["ALL"]) + b"\x02" + make.id(array) if name == "com/acme/Cache" else b"")
        + (b"\0\2" + make.id(number["next"]) + b"\x02" + make.id(number["n"]) + b"\x0a" if at == 0x200 else bytes(2))
        + b"\x05" + make.id(at)
        for name, at in ids.items()
    )  # fmt: skip
    with path.open("wb") as file:
        file.write(make.header() + b"".join(make.string(at, text) for text, at in number.items()))
        for serial, (name, at) in enumerate(ids.items(), 1):
            file.write(make.load_class(serial, number[name], class_id=at))
        heads = start + 24 * np.arange(0, objects, 100, dtype=np.uint64)
        table = b"\x22" + make.id(array) + struct.pack(">II", 0, len(heads)) + make.id(0x300)
        file.write(record(SEGMENT, classes + table + heads.astype(">u8").tobytes()))
        for first in range(0, objects, _SEGMENT_NODES):
            each = np.arange(first, min(objects, first + _SEGMENT_NODES), dtype=np.uint64)
            nodes = np.zeros(len(each), _NODE)
            nodes["tag"], nodes["of"], nodes["length"], nodes["n"] = 0x21, 0x200, 12, each & 0xFFFF
            nodes["id"] = start + 24 * each
            nodes["next"] = np.where(each % 100 >= 89, 0, start + 24 * (each + 1))
            file.write(record(SEGMENT, nodes.tobytes()))
        file.write(record(END))


@contextlib.contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path]:
    """Give a cgroup of its own with that limit, swap included. Raises OSError without root."""
    old = Path("/sys/fs/cgroup/memory")
    parent, limit = (old, "memory.limit_in_bytes") if old.is_dir() else (Path("/sys/fs/cgroup"), "memory.max")
    group = parent / f"dumpagent-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / limit).write_text(str(limit_bytes))
        yield group
    finally:
        group.rmdir()


def measure_dump(dump: Path, folder: Path) -> Iterator[Promise]:
    """Analyze and summarise one dump, plain and packed."""
    size_bytes = dump.stat().st_size
    plain = analysis(dump)
    answer = json.loads(plain.out)
    objects = answer["heap"]["objects"]
    print(
        f"{dump.name}: {size_bytes / _GB:.2f} GB, {objects:,} objects, {answer['suspects'][0]['holder']}",
        flush=True,
    )
    yield Promise("analyze, CPU for each GB", plain.cpu_s / (size_bytes / _GB), 5, "s")
    yield Promise(
        "analyze, memory for each object beyond 150 MiB", (plain.peak_bytes - _STARTING_BYTES) / objects, 60, "bytes"
    )  # fmt: skip
    packed = folder / f"{dump.name}.gz"
    with dump.open("rb") as file, gzip.open(packed, "wb", 1) as into:
        shutil.copyfileobj(file, into, 1 << 20)
    from_gzip = analysis(packed)
    packed.unlink()
    if json.loads(from_gzip.out)["suspects"] != answer["suspects"]:
        yield Promise("analyze from gzip, other answers", 1, 0, "")
    yield Promise("analyze from gzip, CPU for each GB", from_gzip.cpu_s / (size_bytes / _GB), 7, "s")
    summary = run(
        [sys.executable, "-m", "dumpagent.summary.child", "120", str(size_bytes), str(os.getpid())], stdin=dump
    )  # fmt: skip
    told = json.loads(summary.out)["lines"][0]
    print(f"  {told}", flush=True)
    yield Promise("summary, CPU for each GiB", summary.cpu_s / (size_bytes / (1 << 30)), 25, "s")
    yield Promise("summary, memory", summary.peak_bytes / (1 << 20), 96, "MiB")


def measure_limited(objects: int, limit_bytes: int, folder: Path) -> Iterator[Promise]:
    """Analyze a heap made by hand without a limit, then inside a cgroup with files behind what does not fit."""
    dump, spill = folder / "made.hprof", folder / "spill"
    spill.mkdir(exist_ok=True)
    write_made_dump(dump, objects)
    free = analysis(dump)
    with memory_cgroup(limit_bytes) as group:
        limited = analysis(dump, "--spill", str(spill), cgroup=group)
    print(
        f"{objects:,} objects made by hand: {free.cpu_s:.0f} CPU s and {free.peak_bytes / 2**20:.0f} MiB without a limit,"
        f" {limited.cpu_s:.0f} CPU s inside {limit_bytes / 2**20:.0f} MiB (exit code {limited.code})",
        flush=True,
    )
    dump.unlink()
    equal = limited.code == 0 and json.loads(limited.out) == json.loads(free.out)
    yield Promise("analyze inside the limit, other answers", 0 if equal else 1, 0, "")


def main() -> None:
    """Print each figure beside its promise."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("dumps", nargs="*", type=Path)
    parser.add_argument("--mib", type=int, default=900, help="heap of the JVM that writes a dump")
    parser.add_argument("--objects", type=int, default=0, help="of a heap made by hand")
    parser.add_argument("--limit-mib", type=int, default=2048)
    parser.add_argument("--folder", type=Path, help="where dumps are written")
    given = parser.parse_args()
    missed = False
    subprocess.run([sys.executable, "-m", "dumpagent.analyze.compile"], check=True)
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        dumps = given.dumps or (
            [] if given.objects and not given.mib else [write_jvm_dump(folder, given.mib)]
        )
        for dump in dumps:
            for promise in measure_dump(dump, folder):
                print(f"  {promise}", flush=True)
                missed = missed or not promise.kept
        if given.objects:
            for promise in measure_limited(given.objects, given.limit_mib << 20, folder):
                print(f"  {promise}", flush=True)
                missed = missed or not promise.kept
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
