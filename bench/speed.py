"""How fast this machine is, by work that every client leans on: figures of two machines can then be told apart from figures of two clients."""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable

_BLOCK = bytes(range(256)) * 4096  # 1 MiB
_ROUNDS = 64


def speed() -> dict[str, float]:
    """Give MiB hashed or summed, and millions of Python loops, per CPU second; a third of a second in all."""
    return {
        "sha256_mib_per_s": _mib_per_s(lambda: hashlib.sha256(_BLOCK).digest()),
        "zlib_crc32_mib_per_s": _mib_per_s(lambda: zlib.crc32(_BLOCK)),
        "python_loops_million_per_s": _loops_per_s() / 1e6,
    }


def told(figures: dict[str, float]) -> str:
    """Give the figures in a line; of a report that has none, "unknown"."""
    if not figures:
        return "The machine's own speed: unknown."
    return (
        f"The machine's own speed, per CPU second: SHA-256 {figures['sha256_mib_per_s']:.0f} MiB, "
        f"zlib's CRC32 {figures['zlib_crc32_mib_per_s']:.0f} MiB, "
        f"{figures['python_loops_million_per_s']:.0f} million loops of Python."
    )


def _mib_per_s(once: Callable[[], object]) -> float:
    began = time.thread_time()
    for _ in range(_ROUNDS):
        once()
    return _ROUNDS / (time.thread_time() - began)


def _loops_per_s() -> float:
    count = 1_000_000
    began = time.thread_time()
    for _ in range(count):
        pass
    return count / (time.thread_time() - began)
