"""Applications of a node: ordinary users without any capability, in a container with the node's /mnt."""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from random import Random
from typing import Any

from tests.harness.hprof import record
from tests.mount.container import Container

ATTACKER, VICTIM = 12345, 10001
CLOSE_NOWRITE, OPEN = 0x10, 0x20  # Source: inotify(7)

# What is imported is imported as root: the interpreter's files may be closed to others.
_DROP = """
import contextlib, ctypes, fcntl, gzip, json, os, select, stat, struct, sys, time, zlib
libc = ctypes.CDLL(None, use_errno=True)
globals().update(json.loads(sys.stdin.readline()))
uid = int(sys.argv[1])
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
(effective,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("CapEff")]
assert int(effective, 16) == 0, effective

def dump(path, content):
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(fd, bytes.fromhex(content))
    os.close(fd)

def exchange(a, b):
    return libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), 2)

class Inotify:
    def __init__(self):
        self.fd = libc.inotify_init1(0o2000000)
    def watch(self, path, mask):
        assert libc.inotify_add_watch(self.fd, os.fsencode(path), mask) >= 0, path
    def wait(self, timeout_s):
        return select.select([self.fd], [], [], timeout_s)[0] and os.read(self.fd, 65536)
    def wait_for_itself(self, timeout_s):
        # Events of the watched directory itself have no name.
        while True:
            events, at = self.wait(timeout_s), 0
            while events and at < len(events):
                length = struct.unpack_from("I", events, at + 12)[0]
                if not length:
                    return
                at += 16 + length
            if not events:
                return
"""


class Tenant:
    """The application of one user."""

    def __init__(self, container: Container, uid: int, *, root: str) -> None:
        self._container, self.uid, self.root = container, uid, root
        self._children: list[subprocess.Popen[str]] = []

    def run(self, code: str, *, timeout_s: float = 60, **names: Any) -> str:
        """Run Python as this user, and give what it printed. `root` is the dump directory."""
        process = self.start(code, **names)
        out, _ = process.communicate(timeout=timeout_s)
        assert process.returncode == 0, f"the tenant's program failed: {code}"
        return out.strip()

    def start(self, code: str, **names: Any) -> subprocess.Popen[str]:
        """Start Python as this user; it ends with the test."""
        words = [sys.executable, "-I", "-S", "-c", _DROP + code, str(self.uid)]
        process: subprocess.Popen[str] = self._container.popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._children.append(process)
        assert process.stdin
        with process.stdin as names_in:
            names_in.write(json.dumps({"root": self.root, **names}) + "\n")
        process.stdin = None
        return process

    def told(self, process: subprocess.Popen[str]) -> str:
        """Give the next line that the program prints."""
        assert process.stdout
        return process.stdout.readline().strip()

    def write_dump(self, relpath: str, content: bytes) -> None:
        """Write a dump as a JVM does: a new file, 0600."""
        self.run("dump(f'{root}/{relpath}', content)", relpath=relpath, content=content.hex())

    def close(self) -> None:
        """End what still runs."""
        for process in self._children:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()


def heap_dump(seed: int, *, filler_bytes: int = 100_000, at_s: int = 1_700_000_000) -> bytes:
    """Give a small whole heap dump."""
    header = b"JAVA PROFILE 1.0.2\0" + (8).to_bytes(4, "big") + (at_s * 1000).to_bytes(8, "big")
    array = b"\x23" + (1).to_bytes(8, "big") + bytes(4) + filler_bytes.to_bytes(4, "big") + b"\x08"
    return header + record(0x1C, array + Random(seed).randbytes(filler_bytes)) + record(0x2C)


def with_crc32(content: bytes, crc32: int, *, at: int) -> bytes:
    """Give `content` with four bytes at `at` changed so that its CRC32 is this one: it tells damage, not authorship."""
    fixed = bytearray(content)
    fixed[at : at + 4] = bytes(4)
    base = zlib.crc32(bytes(fixed))
    # CRC32 is affine over the bits: solve for the 32 bits of the four bytes.
    rows = []
    for bit in range(32):
        probe = bytearray(fixed)
        probe[at + bit // 8] = 1 << (bit % 8)
        rows.append((zlib.crc32(bytes(probe)) ^ base, 1 << bit))
    wanted, chosen = crc32 ^ base, 0
    for bit in range(32):
        pivot = next(index for index, (value, _) in enumerate(rows) if value >> bit & 1)
        value, mask = rows.pop(pivot)
        rows = [(v ^ value, m ^ mask) if v >> bit & 1 else (v, m) for v, m in rows]
        if wanted >> bit & 1:
            wanted, chosen = wanted ^ value, chosen ^ mask
    fixed[at : at + 4] = chosen.to_bytes(4, "little")
    assert zlib.crc32(bytes(fixed)) == crc32
    return bytes(fixed)
