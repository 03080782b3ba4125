"""Looks at the volume: does it answer, take writes, and have room for the next dump? May hang; see `patience`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

from dumpagent.doctor.finding import Finding, Result
from dumpagent.kernel.volume import space_of
from dumpagent.units import GIB, MIB
from dumpagent.upload.ledger import receipts_in
from dumpagent.upload.volume.scan import scan


def stands(root: str) -> Iterator[Finding]:
    """Say whether anything stands at this path, whatever it is."""
    os.lstat(root)
    yield Finding("volume", Result.OK, f"{root} is there")


def answers(root: str) -> Iterator[Finding]:
    """Say whether the volume can be listed."""
    os.listdir(root)
    yield Finding("volume", Result.OK, f"{root} can be listed")


def takes_writes(state_dir: str) -> Iterator[Finding]:
    """Write 1 MiB, sync and delete it: some faults show themselves to a write alone.

    Not less: on a full volume the block is free that the manager's .ready took.
    """
    path = f"{state_dir}/doctor-{uuid.uuid4().hex}"
    os.makedirs(state_dir, mode=0o700, exist_ok=True)
    began = time.monotonic()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(bytes(MIB))
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
        os.unlink(path)
    yield Finding("volume writes", Result.OK, f"1 MiB in {time.monotonic() - began:.3f} s")


def space(root: str, state_dir: str, store_name: str) -> Iterator[Finding]:
    """Say whether the next dump fits, as large as the largest that lies here or has a receipt.

    JDK 22 and later write a dump in parts first, and merge them: that takes twice its size.
    """
    found = space_of(root)
    sizes = [receipt.identity.size_bytes for receipt in receipts_in(state_dir, store=store_name)]
    sizes += [dump.size_bytes for dump in scan(root, skip=frozenset({state_dir})).dumps]
    largest = max(sizes, default=0)
    seen = f"{found.free_bytes / GIB:.1f} of {found.total_bytes / GIB:.1f} GiB free; " + (
        f"the largest dump seen had {largest / GIB:.2f} GiB" if largest else "no dump was seen yet"
    )
    if found.free_bytes < 2 * largest or found.free_percent < 5:
        yield Finding(
            "space", Result.FAILED, seen,
            f"keep {2 * largest / GIB:.2f} GiB free, twice the largest dump, which JDK 22+ needs while it writes: "
            "enlarge the claim, or let LOCAL_KEEP delete stored dumps",
        )  # fmt: skip
    else:
        yield Finding("space", Result.OK, seen)
