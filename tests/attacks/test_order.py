"""A tenant chooses times, sizes, numbers and contents so that another's dump waits."""

from __future__ import annotations

import time

import pytest

from tests.attacks.conftest import Hold
from tests.attacks.stage import Stage
from tests.attacks.tenants import heap_dump

pytestmark = [pytest.mark.slow, pytest.mark.attack, pytest.mark.timeout(400)]
AT_ONCE_S, LIMITED_S = 10.0, 60.0  # without, and within the manifest's limits

# Tiny whole dumps of 1970, 40 a second.
FLOOD = """
os.mkdir(f"{root}/t")
until, number = time.time() + 90, 0
while time.time() < until:
    content = b"JAVA PROFILE 1.0.2\\0" + struct.pack(">IQ", 8, (1 + number) * 1000)
    content += struct.pack(">BII", 0x1C, 0, 0) + struct.pack(">BII", 0x2C, 0, 0)
    with open(f"{root}/t/.tmp", "wb") as file:
        file.write(content)
    os.utime(f"{root}/t/.tmp", (number % 1000, number % 1000))
    os.rename(f"{root}/t/.tmp", f"{root}/t/w{number}.hprof")
    number += 1
    if number == 100:
        print("flowing", flush=True)
    time.sleep(0.025)
"""
# Frames that say OutOfMemoryError, then a GiB of the smallest records: as .gz it has a MB. Packed once, for all files.
SMALL_RECORDS = """
os.mkdir(f"{root}/t")
def record(tag, body):
    return struct.pack(">BII", tag, 0, len(body)) + body
head = record(1, struct.pack(">Q", 1) + b"java/lang/OutOfMemoryError") + record(1, struct.pack(">Q", 2) + b"<init>")
head += record(2, struct.pack(">IQIQ", 1, 100, 0, 1)) + record(4, struct.pack(">QQQQIi", 5, 2, 3, 4, 1, 1))
head += record(5, struct.pack(">III", 1, 1, 2) + struct.pack(">QQ", 5, 6))
small = record(3, struct.pack(">I", 9))
block = small * ((1 << 20) // len(small))
tail = record(0x1C, b"\\x23" + struct.pack(">QIIB", 1, 0, 4, 8) + b"abcd") + record(0x2C, b"")
packer = zlib.compressobj(1, zlib.DEFLATED, 31)
packed = packer.compress(head)
for _ in range(mib):
    packed += packer.compress(block)
packed += packer.compress(tail) + packer.flush()
for copy in range(files):
    with open(f"{root}/t/x{copy}.hprof.gz", "wb") as file:
        file.write(gzip.compress(b"JAVA PROFILE 1.0.2\\0" + struct.pack(">IQ", 8, 1000 + copy)) + packed)
    os.utime(f"{root}/t/x{copy}.hprof.gz", (1, 1))
"""
MANY_FILES = """
for number in range(count):
    if number % 10_000 == 0:
        folder = f"{root}/t{number}"
        os.mkdir(folder)
    os.close(os.open(f"{folder}/{number}.hprof", os.O_CREAT | os.O_WRONLY, 0o600))
    os.utime(f"{folder}/{number}.hprof", (number, number))
"""
# The longest names that there are, and as many as fit.
LONG_NAMES = """
os.mkdir(f"{root}/t")
for number in range(count):
    os.close(os.open(f"{root}/t/{number:0>249}.hprof", os.O_CREAT | os.O_WRONLY, 0o600))
for number in range(count // 4):
    os.mkdir(f"{root}/t/{number:0>250}")
"""


def _late(stage: Stage, within_s: float) -> str:
    if stage.stored_after_s(within_s) is None:
        return f"the victim's dump is not stored {within_s:g} s after its end"
    return ""


def test_a_stream_of_old_dumps_delays_nobody(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.start_uploader()
        flood = stage.attacker.start(FLOOD)
        assert stage.attacker.told(flood) == "flowing"
        stage.victim_writes(heap_dump(1))
        return _late(stage, AT_ONCE_S)

    held(attack)


def test_a_sparse_file_of_terabytes_delays_nobody(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.attacker.run("os.mkdir(f'{root}/t')")
        stage.attacker.write_dump("t/a.hprof", heap_dump(2))
        stage.attacker.run("os.truncate(f'{root}/t/a.hprof', 4 << 40); os.utime(f'{root}/t/a.hprof', (1, 1))")
        stage.start_uploader()
        time.sleep(3)
        stage.victim_writes(heap_dump(1))
        return _late(stage, AT_ONCE_S)

    held(attack)


def test_packed_bombs_delay_nobody(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.attacker.run(SMALL_RECORDS, files=40, mib=100, timeout_s=120)
        stage.start_uploader()
        stage.victim_writes(heap_dump(1))
        return _late(stage, LIMITED_S) or stage.unsound()

    held(attack, limited=True)


def test_a_hundred_thousand_empty_dumps_delay_nobody(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.attacker.run(MANY_FILES, count=100_000)
        stage.start_uploader()
        stage.victim_writes(heap_dump(1))
        return _late(stage, LIMITED_S) or stage.unsound()

    held(attack, limited=True)


def test_a_directory_of_the_longest_names_fills_nobodys_memory(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.attacker.run(LONG_NAMES, count=200_000, timeout_s=120)
        stage.start_uploader()
        stage.victim_writes(heap_dump(1))
        return _late(stage, LIMITED_S) or stage.unsound()

    held(attack, limited=True)
