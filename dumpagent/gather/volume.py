"""What lies on the dump volume: names, sizes, owners and times of all files, and the content of the agent's own state."""

from __future__ import annotations

import functools
import json
import os
import stat
import time
from collections import deque
from collections.abc import Callable

from dumpagent.dumps.text import iso_time, printable
from dumpagent.gather.collector import Desk
from dumpagent.kernel.beneath import open_file

MOST_FILES = 20_000
LISTING_S = 20.0
_MOST_STATE_FILES = 1000
_MOST_STATE_BYTES = 4 << 20
_LONGEST_STATE_FILE = 256 << 10
_STATE_FOLDERS = ("receipts", "uploads")


def listing(
    desk: Desk, root: str, *, most: int = MOST_FILES, clock: Callable[[], float] = time.monotonic
) -> None:
    """List everything below `root`, a JSON object per line, nearest directories first. Opens no file, follows no link."""
    until = clock() + LISTING_S
    device = os.stat(root).st_dev
    folders, count, lines = deque([root]), 0, list[str]()
    while folders:
        folder = folders.popleft()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if count >= most or clock() > until:
                        desk.add("listing.jsonl", "".join(lines))
                        desk.miss(f"the list of {root} ends after {count} files and directories")
                        return
                    count += 1
                    status = entry.stat(follow_symlinks=False)
                    lines.append(_line(os.path.relpath(entry.path, root), status))
                    if stat.S_ISDIR(status.st_mode) and status.st_dev == device:
                        folders.append(entry.path)
                    if len(lines) >= 100:
                        desk.add("listing.jsonl", "".join(lines))
                        lines = []
        except OSError as error:
            desk.miss(f"{printable(folder)}: {error.strerror}")
    desk.add("listing.jsonl", "".join(lines))


def _line(path: str, status: os.stat_result) -> str:
    return (
        json.dumps(
            {
                "path": printable(path), "mode": stat.filemode(status.st_mode), "uid": status.st_uid, "gid": status.st_gid,
                "size_bytes": status.st_size, "on_disk_bytes": status.st_blocks * 512, "links": status.st_nlink,
                "modified": iso_time(status.st_mtime), "changed": iso_time(status.st_ctime), "inode": status.st_ino,
            }
        )
        + "\n"
    )  # fmt: skip


def state(desk: Desk, directory: str) -> None:
    """Add receipts and unfinished uploads, newest first, and what else lies in the state directory by its name and size."""
    for folder in _STATE_FOLDERS:
        desk.attempt("", functools.partial(_contents, desk, directory, folder))
    left = MOST_FILES
    for folder in ("", *sorted(name for name in os.listdir(directory) if name not in _STATE_FOLDERS)):
        path = f"{directory}/{folder}"
        if os.path.islink(path) or not os.path.isdir(path):
            continue
        with os.scandir(path) as entries:
            for entry in entries:
                left -= 1
                if left < 0:
                    desk.miss(f"the list of {directory} ends after {MOST_FILES} names")
                    return
                desk.add(
                    "state/listing.jsonl",
                    _line(os.path.relpath(entry.path, directory), entry.stat(follow_symlinks=False)),
                )


def _contents(desk: Desk, directory: str, folder: str) -> None:
    found: list[tuple[float, str]] = []
    with os.scandir(f"{directory}/{folder}") as entries:
        for entry in entries:
            if len(found) >= MOST_FILES:
                desk.miss(f"{directory}/{folder}: only {MOST_FILES} files were looked at")
                break
            found.append((entry.stat(follow_symlinks=False).st_mtime, entry.name))
    found.sort(reverse=True)
    left = _MOST_STATE_BYTES
    for number, (modified, name) in enumerate(found):
        if number >= _MOST_STATE_FILES or left <= 0:
            desk.miss(f"{directory}/{folder}: the newest {number} of {len(found)} files are in the archive")
            return
        try:
            fd = open_file(directory, f"{folder}/{name}")
            with open(fd, "rb") as file:
                content = file.read(_LONGEST_STATE_FILE + 1)
        except OSError as error:
            desk.miss(f"{directory}/{folder}/{printable(name)}: {error.strerror}")
            continue
        left -= len(content)
        text = content[:_LONGEST_STATE_FILE].decode(errors="replace")
        cut = "\n(cut)" if len(content) > _LONGEST_STATE_FILE else ""
        desk.add(f"state/{folder}.txt", f"== {printable(name)} {iso_time(modified)}\n{text.rstrip()}{cut}\n")
