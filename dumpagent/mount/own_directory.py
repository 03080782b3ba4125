"""Makes the directory that one pod alone may write its dumps to."""

from __future__ import annotations

import errno
import os
import stat

from dumpagent.errors import Refused
from dumpagent.kernel.beneath import DIRECTORY, opened_directory
from dumpagent.kernel.owned import MAPPED_HINT, our_uid


def make_own_directory(root: str, namespace: str, pod: str) -> str:
    """Make `<namespace>_<pod>` below `root`, mode 0700, owned by whoever runs this; say what was done.

    One that is there already is taken if this user owns it, and closed to others. Raises Refused where another user
    owns it, or something else has the name: that user could read, delete and replace every dump in it. Where the volume
    maps users, this user's files have the owner that it gives them.
    """
    name = f"{namespace}_{pod}"
    if "/" in name or name.startswith("."):
        raise Refused(
            f"{name!r} is no name of a directory", hint="set POD_NAMESPACE and POD_NAME by the downward API"
        )
    path = f"{root}/{name}"
    try:
        with opened_directory(root, "") as above:
            try:
                os.mkdir(name, 0o700, dir_fd=above)
            except FileExistsError:
                pass
            return _taken(above, name, path)
    except OSError as error:
        if error.errno == errno.EROFS:
            return f"{path} is not made: the volume is mounted read-only here"
        raise Refused(
            f"{path} cannot be made: {error.strerror}",
            hint="run it as the application's user, with the volume writable",
        ) from error


def _taken(above: int, name: str, path: str) -> str:
    try:
        fd = os.open(name, DIRECTORY, dir_fd=above)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EACCES):
            raise
        raise _not_ours(path, os.stat(name, dir_fd=above, follow_symlinks=False)) from error
    try:
        status = os.fstat(fd)
        mapped = status.st_uid != os.geteuid()
        if mapped and status.st_uid != our_uid(above):
            raise _not_ours(path, status)
        if stat.S_IMODE(status.st_mode) != 0o700:
            os.fchmod(fd, 0o700)
    finally:
        os.close(fd)
    if mapped:
        return f"dumps of this pod go to {path}, which the volume gives to the user {status.st_uid}: {MAPPED_HINT}"
    return f"dumps of this pod go to {path}"


def _not_ours(path: str, status: os.stat_result) -> Refused:
    kind = "directory" if stat.S_ISDIR(status.st_mode) else "file"
    return Refused(
        f"{path} is a {kind} of the user {status.st_uid}, this pod runs as {os.geteuid()}",
        hint="remove it from the volume and find who made it; whoever owns it could read and delete this pod's dumps",
    )
