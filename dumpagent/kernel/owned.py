"""Names of ours in a directory that is everybody's: made by us or moved aside, never trusted because they are there.

Whoever may write to a directory may have made any name in it first. Ours is what has the owner that a file of ours gets
there (root, or what the server maps root to), and what nobody else may write.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from dataclasses import dataclass, field

from dumpagent.kernel.beneath import DIRECTORY
from dumpagent.kernel.rename import rename_in

STATE = ".dumpagent"  # what we keep on the volume
BUSY = "busy"  # in there: locked by the uploader while a finished dump is not stored
_OTHERS_WRITE = 0o022
_TRIES = 4  # somebody may make the name again and again
_FOLDERS = ("receipts", "uploads", "deleting", "outbox", "rescue")
_FILES = ("lock", "store.json", BUSY)
# Source: exports(5), root_squash and all_squash; Amazon EFS User Guide, "Enforcing a user identity using an access point";
# mount.cifs(8), uid and forceuid; mount.fuse(8), uid and default_permissions.
MAPPED_HINT = (
    "let the volume keep users: export NFS with no_root_squash and without all_squash, use an EFS access point without a "
    "POSIX user, mount SMB without uid= and forceuid, FUSE without uid=; else dumps of mode 0600 cannot be read, and who "
    "runs under this uid may change what the agent keeps on the volume"
)


@dataclass(frozen=True, slots=True)
class Owned:
    """A directory of ours. `moved_aside` are names that were not ours, with their owner's uid."""

    name: str
    uid: int
    moved_aside: tuple[tuple[str, int], ...] = field(default=())

    @property
    def mapped_uid(self) -> int | None:
        """Give the owner of what we make here, where the volume maps us to another user; else None."""
        return self.uid if self.uid != os.geteuid() else None


def own_directory(above: int, name: str = STATE) -> Owned:
    """Make the directory `name` in the one open on `above` ours, mode 0700, with everything of ours in it.

    What has the name and is not ours, or may be written by others, is moved aside; where that is refused, another name
    that nobody could foresee is used. Raises OSError when no directory can be made.
    """
    aside: list[tuple[str, int]] = []
    for _ in range(_TRIES):
        try:
            found = os.stat(name, dir_fd=above, follow_symlinks=False)
        except FileNotFoundError:
            try:
                os.mkdir(name, 0o700, dir_fd=above)
            except FileExistsError:
                pass  # somebody was faster: look whose it is
            continue
        uid = found.st_uid if found.st_uid == os.geteuid() else our_uid(above)
        if _is_ours(found, uid, directory=True):
            aside += _own_folders(above, name, uid)
            return Owned(name, uid, tuple(aside))
        try:
            aside.append((move_aside(above, name), found.st_uid))
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES):
                raise
            aside.append((name, found.st_uid))
            break
    uid = our_uid(above)
    return Owned(_other_name(above, name, uid), uid, tuple(aside))


def is_ours(above: int, name: str, uid: int) -> bool | None:
    """Say whether the regular file `name` is ours; None if there is nothing of that name. Raises OSError."""
    try:
        return _is_ours(os.stat(name, dir_fd=above, follow_symlinks=False), uid, directory=False)
    except FileNotFoundError:
        return None


def move_aside(above: int, name: str) -> str:
    """Rename what has the name to one that nobody could foresee, beside it; its owner may delete it there.

    Raises OSError.
    """
    aside = f"{name}.not-ours-{secrets.token_hex(8)}"
    rename_in(above, name, aside)
    return aside


def _is_ours(status: os.stat_result, uid: int, *, directory: bool) -> bool:
    if status.st_uid != uid or status.st_mode & _OTHERS_WRITE:
        return False
    return (
        stat.S_ISDIR(status.st_mode) if directory else stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    )


def our_uid(above: int) -> int:
    """Give the owner that what we make here gets: a server may map root to another user. Raises OSError."""
    name = f"{STATE}-{secrets.token_hex(8)}"
    os.mkdir(name, 0o700, dir_fd=above)
    try:
        return os.stat(name, dir_fd=above, follow_symlinks=False).st_uid
    finally:
        os.rmdir(name, dir_fd=above)


def _own_folders(above: int, name: str, uid: int) -> list[tuple[str, int]]:
    """Move aside what is not ours among the names that we use in our directory."""
    aside = []
    fd = os.open(name, DIRECTORY, dir_fd=above)
    try:
        os.fchmod(fd, 0o700)
        for folder in (*_FOLDERS, *_FILES):
            try:
                found = os.stat(folder, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            if not _is_ours(found, uid, directory=folder in _FOLDERS):
                aside.append((f"{name}/{move_aside(fd, folder)}", found.st_uid))
    finally:
        os.close(fd)
    return aside


def _other_name(above: int, name: str, uid: int) -> str:
    """Give a directory of ours under another name: the one of an earlier run, else a new one. Raises OSError."""
    with os.scandir(above) as entries:
        earlier = sorted(each.name for each in entries if each.name.startswith(f"{name}-"))
    for each in earlier[:100]:
        if _is_ours(os.stat(each, dir_fd=above, follow_symlinks=False), uid, directory=True):
            return each
    made = f"{name}-{secrets.token_hex(8)}"
    os.mkdir(made, 0o700, dir_fd=above)
    return made
