"""Mutated dumps for everything that reads dumps: `python -m tests.fuzz --dumps 100000` (`make fuzz`).

Each mutation goes through the look (walk and gzip reader), and through what `inspect` reads and prints. Told at the
end: how many, which verdicts, the longest one, and the most memory. Ends with 1 at the first crash, at a hang of more
than one second of CPU, or above 64 MiB.
"""

from __future__ import annotations

import argparse
import gzip
import random
import struct
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from dumpagent.cli.commands.inspect import as_dict, describe, inspect
from dumpagent.hprof.look import Look
from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Shape
from tests.harness.hprof import END, HEAP_DUMP, SEGMENT, Maker, members, record
from tests.harness.threads import NamedThread

HANG_S = 1.0
MEMORY_BYTES = 64 << 20
_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF6, 0xFFFFFFFF]


def heap(make: Maker, chance: random.Random) -> bytes:
    """Give a segment's body of some objects of every kind."""
    records = []
    for _ in range(chance.randrange(1, 30)):
        head, tag = make.id(chance.randrange(1 << 30)) + bytes(4), chance.randrange(0x20, 0x24)
        amount = chance.randrange(20)
        if tag == 0x20:
            fields = b"".join(
                make.id(2) + bytes([chance.choice([2, 4, 5, 8, 10, 11])]) for _ in range(amount)
            )
            tail = make.id(0x1001) + make.id(0) * 5 + bytes(8) + struct.pack(">H", amount) + fields
        elif tag == 0x21:
            tail = make.id(0x1002) + struct.pack(">I", amount) + bytes(amount)
        elif tag == 0x22:
            tail = struct.pack(">I", amount) + make.id(0x1001) + make.id(3) * amount
        else:
            tail = struct.pack(">IB", amount, 8) + bytes(amount)
        records.append(bytes([tag]) + head + tail)
    return b"".join(records)


def seed_dump(chance: random.Random) -> bytes:
    """Give a dump that is right, of one of the kinds that there are."""
    make = Maker(id_size=chance.choice([4, 8]), version=chance.choice(["1.0.1", "1.0.2", "1.0.3"]))
    segments = [heap(make, chance) for _ in range(chance.randrange(1, 5))]
    if chance.random() < 0.4:
        name = chance.randbytes(2 * chance.randrange(9))
        thread = NamedThread(make, name, chance.choice([0, 1, None]), chance.random() < 0.5)
        pieces = [thread.root(), thread.thread(), thread.name(), thread.array()]
        chance.shuffle(pieces)
        return thread.dump(thread.classes(), *segments, *pieces)
    if make.version == "1.0.1" and chance.random() < 0.5:
        return make.head() + record(HEAP_DUMP, segments[0])
    return make.head() + b"".join(record(SEGMENT, body) for body in segments) + record(END)


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Give `content` with one to eight things wrong with it."""
    changed = bytearray(content)
    for _ in range(chance.randrange(1, 9)):
        at = chance.randrange(len(changed) + 1)
        what = chance.randrange(9)
        if what == 0:
            del changed[at:]
        elif what == 1:
            del changed[at : at + chance.randrange(40)]
        elif what == 2:
            changed[at:at] = chance.randbytes(chance.randrange(40))
        elif what == 3:
            changed[at : at + 4] = struct.pack(">I", chance.choice(_NUMBERS))
        elif what == 4 and changed:
            changed[at % len(changed)] ^= 1 << chance.randrange(8)
        elif what == 5:
            start = chance.randrange(len(changed) + 1)
            changed[at:at] = changed[start : start + chance.randrange(300)]
        elif what == 6:
            changed[at : at + 9] = record(
                chance.choice([1, 2, 4, 5, SEGMENT, END]), length=chance.choice(_NUMBERS)
            )
        elif what == 7:
            changed[at : at + 2] = struct.pack(">H", chance.randrange(1 << 16))
        else:
            changed += bytes(chance.randrange(2000))
    return bytes(changed)


def pack(content: bytes, chance: random.Random) -> bytes:
    """Give `content` as gzip, in one member or many, and then, often, with things wrong with that."""
    packed = (
        gzip.compress(content, 1, mtime=0)
        if chance.random() < 0.3
        else members(content, chance.randrange(50, 2000))
    )
    return mutate(packed, chance) if chance.random() < 0.7 else packed


def examine(content: bytes, path: Path, chance: random.Random) -> Shape:
    """Put one file through every reader. Raises what they must not raise."""
    look = Look(InMemory(content))
    budget = chance.choice([None, 300, 5000])
    walked = look.advance(len(content), budget_bytes=budget)
    for _ in range(100_000):
        if walked.shape is not Shape.UNFINISHED:
            break
        walked = look.advance(len(content), budget_bytes=budget)
    else:
        raise AssertionError("a look that never ends")
    path.write_bytes(content)
    inspected = inspect(str(path), classes=5, quick=False)
    describe(inspected)
    as_dict(inspected)
    return walked.shape


def most_memory_bytes() -> int:
    """Give the most memory that this program has had. ru_maxrss would count that of the program which started it."""
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024


def run(dumps: int, seed: int) -> int:
    """Examine that many mutated dumps; give the exit code."""
    verdicts: Counter[str] = Counter()
    longest, began = 0.0, time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="dumpagent-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as folder:
        path = Path(folder) / "fuzzed.hprof"
        for number in range(seed, seed + dumps):
            chance = random.Random(number)
            content = mutate(seed_dump(chance), chance)
            if number % 3 == 0:
                content = pack(content, chance)
            at = time.process_time()
            try:
                verdicts[examine(content, path, chance).value] += 1
            except Exception as error:
                print(f"seed {number}: {type(error).__name__}: {error}", file=sys.stderr)
                raise
            took = time.process_time() - at
            longest = max(longest, took)
            if took > HANG_S:
                print(f"seed {number}: {took:.1f} s of CPU", file=sys.stderr)
                return 1
    memory = most_memory_bytes()
    print(
        f"{dumps} mutated dumps in {time.monotonic() - began:.0f} s: {dict(verdicts)}; "
        f"longest {longest * 1000:.0f} ms CPU; most memory {memory / (1 << 20):.0f} MiB"
    )
    return 1 if memory > MEMORY_BYTES else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dumps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    sys.exit(run(given.dumps, given.seed))
