"""Looks at the volume: does it answer, take writes, and have room for the next dump? May hang; see `patience`."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator

from dumpagent.doctor.finding import Finding, Result
from dumpagent.dumps.model import DumpFile
from dumpagent.kernel.beneath import open_file, opened_directory
from dumpagent.kernel.owned import MAPPED_HINT, STATE, our_uid
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


def owners(root: str) -> Iterator[Finding]:
    """Say whose the files are that we make here: a server may map root to another user, and every user to one."""
    with opened_directory(root, "") as directory:
        uid = our_uid(directory)
    if uid == os.geteuid():
        yield Finding("owners", Result.OK, f"files that are made here are of uid {uid}, as this process")
        return
    found = scan(root, skip=frozenset({f"{root}/{STATE}"}))
    theirs = [dump for dump in found.dumps if dump.uid == uid]
    closed = [dump for dump in found.dumps if not _can_be_read(dump)]
    seen = f"files that are made here are of uid {uid}, this process has uid {os.geteuid()}: the volume maps users"
    if closed:
        seen += f"; {len(closed)} dumps cannot be read, such as {closed[0].relpath} of uid {closed[0].uid}"
    if theirs:
        seen += (
            f"; {len(theirs)} dumps are of that uid too, such as {theirs[0].relpath}: applications have it"
        )
    # Without a dump nobody can say what is readable: what the mapping breaks is broken with the first one.
    yield Finding("owners", Result.FAILED if closed or theirs else Result.WARNING, seen, MAPPED_HINT)


def _can_be_read(dump: DumpFile) -> bool:
    try:
        os.close(open_file(dump.root, dump.relpath))
    except FileNotFoundError:
        return True  # gone meanwhile
    except OSError:
        return False
    return True


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
