"""Removes the node's empty dump directory when everything is uninstalled; never a dump, never through a link."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

_OURS = (".dumpagent", ".ready")  # the agent's own state: it may go at any time
_MOST_NAMES = 5


def remove_node_directory(target: str) -> str:
    """Remove `target` with the agent's own state in it; say what keeps it there, empty if it is gone."""
    parent, name = os.path.split(target)
    try:
        with _opened(os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as parent_fd:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            with _opened(os.open(name, flags, dir_fd=parent_fd)) as fd:
                left = sorted(set(os.listdir(fd)) - set(_OURS))
                if left:
                    more = f" and {len(left) - _MOST_NAMES} more" if len(left) > _MOST_NAMES else ""
                    return f"{target} still holds {', '.join(map(repr, left[:_MOST_NAMES]))}{more}"
                if not _is_mounted(parent_fd, fd):
                    _remove_ours(fd)
            os.rmdir(name, dir_fd=parent_fd)
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno == errno.EBUSY:
            return f"a volume is still mounted at {target}: its manager has not ended yet"
        return f"{target} cannot be removed: {error.strerror}"
    return ""


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _is_mounted(parent_fd: int, fd: int) -> bool:
    return os.fstat(parent_fd).st_dev != os.fstat(fd).st_dev


def _remove_ours(fd: int) -> None:
    for name in _OURS:
        try:
            os.unlink(name, dir_fd=fd)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError):
            shutil.rmtree(name, dir_fd=fd)
