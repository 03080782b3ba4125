"""Real heap dumps of the wanted sizes, made once by a JVM and kept in the cache folder."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.harness.cache import cached_folder
from tests.harness.jvm import any_jdk

_MIB = 1 << 20
_JAR = Path(__file__).parent / "java" / "shop.jar"
_HEAP_MIB = {256: 226, 1024: 790}  # what the program keeps for a dump of about that many MiB


def heap_dump(size_mib: int) -> Path:
    """Give a heap dump of about `size_mib` MiB, alone in its folder. As compressible as those seen: `gzip -1` 3.0."""

    def make(folder: Path) -> None:
        heap_mib = _HEAP_MIB[size_mib]
        (folder / "dump").mkdir()
        target = folder / "dump" / "java_pid1.hprof"
        argv = [str(any_jdk().java), f"-Xmx{heap_mib * 2 + 200}m", "-XX:+UseSerialGC", "-cp", str(_JAR)]
        subprocess.run([*argv, "Shop", str(heap_mib), str(target)], check=True, stdout=subprocess.DEVNULL)

    return cached_folder(f"bench/shop-{size_mib}-2", make) / "dump" / "java_pid1.hprof"


def tiny_dump() -> Path:
    """Give a file of a few bytes with a dump's name: what an upload costs before the first byte of a real one."""

    def make(folder: Path) -> None:
        (folder / "dump").mkdir()
        (folder / "dump" / "java_pid1.hprof").write_bytes(b"JAVA PROFILE 1.0.2\0" + bytes(1000))

    return cached_folder("bench/tiny-1", make) / "dump" / "java_pid1.hprof"


def large_file(folder: Path, size_bytes: int, *, pattern: Path) -> Path:
    """Give a file of `size_bytes` in `folder`, made of copies of `pattern`. The caller removes it."""
    path = folder / "java_pid1.hprof"
    with open(pattern, "rb") as source, open(path, "wb") as target:
        left = size_bytes
        while left:
            copied = os.copy_file_range(source.fileno(), target.fileno(), min(left, 64 * _MIB))
            if not copied:
                os.lseek(source.fileno(), 0, os.SEEK_SET)
            left -= copied
    return path
