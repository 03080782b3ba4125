"""Tries whether the kernel would tell of finished dumps: inotify and its limits. May hang; see `patience`."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from inotify_simple import INotify, flags

from dumpagent.doctor.finding import Finding, Result


def wakeups(root: str) -> Iterator[Finding]:
    """Watch every directory for a moment. Source: inotify(7), /proc interfaces."""
    until_then = "then restart the uploader; until then dumps are found by the scan alone (WATCH_INTERVAL)"
    try:
        inotify = INotify(nonblocking=True)
    except OSError as error:
        yield Finding(
            "wake-ups", Result.FAILED, f"no inotify instance: {error.strerror} (limit: {_limit('max_user_instances')})",
            f"raise fs.inotify.max_user_instances on the node, {until_then}",
        )  # fmt: skip
        return
    watched = 0
    try:
        for path, _, _ in os.walk(root):
            inotify.add_watch(path, flags.CLOSE_WRITE | flags.ONLYDIR)
            watched += 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        yield Finding(
            "wake-ups", Result.FAILED,
            f"no more watches after {watched} directories (limit of this user: {_limit('max_user_watches')})",
            f"raise fs.inotify.max_user_watches on the node, {until_then}",
        )  # fmt: skip
    else:
        yield Finding(
            "wake-ups", Result.OK,
            f"{watched} directories can be watched (limit of this user: {_limit('max_user_watches')})",
        )  # fmt: skip
    finally:
        inotify.close()


def _limit(name: str) -> str:
    try:
        with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "not known"
