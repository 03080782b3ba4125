"""Deletes dumps from the volume that the store has just confirmed again, and nothing else, ever."""

from __future__ import annotations

import errno
import functools
import os
import secrets
from collections.abc import Callable, Iterable
from typing import Protocol

from dumpagent.dumps.files import segment_files_of
from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.errors import Unreachable
from dumpagent.kernel.beneath import opened_parent
from dumpagent.kernel.rename import rename_in, rename_noreplace
from dumpagent.kernel.volume import Space, space_of
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import DeleteFailed, DeleteRecovered, DumpDeleted, ObjectMissing
from dumpagent.observe.events.volume import VolumeFull, VolumeRoomy
from dumpagent.observe.incident import Incident
from dumpagent.settings import Keep, Keeping
from dumpagent.store.protocol import Store
from dumpagent.upload.keeping.recheck import Stored, is_there
from dumpagent.upload.keeping.retention import in_order_of_deletion, may_go, with_segment_files
from dumpagent.upload.ledger import Ledger

_ASIDE = "deleting-"
_MOST_OF_A_NAME = 1000


def unlink_at(name: str, directory: int) -> None:
    """Unlink `name` in the directory that is open on `directory`. Raises OSError."""
    os.unlink(name, dir_fd=directory)


class Elsewhere(Protocol):
    """A second destination that has to hold a dump too before it may be deleted."""

    def may_go(self, dump: DumpFile) -> bool:
        """Say whether it has confirmed the dump twice, as far as its receipts tell. Asks nobody."""

    def holds(self, dump: DumpFile) -> bool:
        """Say whether it holds the dump now, for all that it tells. Never raises."""


class Deletion:
    """Deletes what `keeping` allows to be deleted, one dump at a time, each after a fresh look at its objects."""

    def __init__(
        self,
        keeping: Keeping,
        *,
        root: str,
        store: Store,
        ledger: Ledger,
        tell: Tell,
        barrier: Barrier | None = None,
        space: Callable[[str], Space] = space_of,
        unlink: Callable[[str, int], None] = unlink_at,
    ) -> None:
        self._keeping, self._root, self._store, self._ledger, self._tell = keeping, root, store, ledger, tell
        self._space, self._unlink = space, unlink
        self._elsewhere: Elsewhere | None = None
        self._barrier = barrier or Barrier(tell)
        self._full = Incident(tell, VolumeFull, VolumeRoomy)
        self._undeletable = Incident(tell, DeleteFailed, DeleteRecovered)

    def ask_also(self, elsewhere: Elsewhere) -> None:
        """Delete only what `elsewhere` has too."""
        self._elsewhere = elsewhere

    def wanted(self) -> bool:
        """Say whether something is to be deleted now, if it may. Asks the file system, not the store."""
        if self._keeping.local_keep is Keep.ALWAYS:
            return False
        return self._keeping.local_keep is Keep.UNTIL_UPLOADED or self._scarce()

    def reclaim(
        self, stored: Iterable[Stored], *, stopped: Callable[[], bool] = lambda: False
    ) -> list[Identity]:
        """Delete what may be deleted until there is room enough; give the dumps that the store turned out not to hold.

        Their receipts are dropped: they are to be uploaded again. Raises Unreachable when the store cannot be asked;
        nothing is deleted then.
        """
        missing: list[Identity] = []
        units = with_segment_files(one for one in stored if may_go(one) and self._may_go_elsewhere(one))
        for stub in in_order_of_deletion(unit[-1] for unit in units.values()):
            if stopped():
                break
            unit = units[stub.dump.relpath]
            if (self._blocks_a_name(unit) or self.wanted()) and self._has_all_segment_files(unit):
                self._barrier.run(
                    "delete",
                    functools.partial(self._delete_unit, unit, missing),
                    path=stub.dump.path,
                    foreseen=(Unreachable,),
                )
        self._judge_space()
        return missing

    def _may_go_elsewhere(self, one: Stored) -> bool:
        return self._elsewhere is None or self._elsewhere.may_go(one.dump)

    def _blocks_a_name(self, unit: tuple[Stored, ...]) -> bool:
        """Say whether a killed JVM's stub and segment files still have the names that the next dump wants (CLAIM=false)."""
        stub = unit[-1]
        unclaimed = stub.dump.relpath == stub.receipt.path
        return len(unit) > 1 and unclaimed and self._keeping.local_keep is not Keep.ALWAYS

    def _has_all_segment_files(self, unit: tuple[Stored, ...]) -> bool:
        """Say whether every segment file that lies beside the dump is in the store too."""
        there = {segment.dump.relpath for segment in unit}
        try:
            return all(segment.relpath in there for segment in segment_files_of(unit[-1].dump))
        except OSError:
            return False  # unknown: nothing is deleted

    def _delete_unit(self, unit: tuple[Stored, ...], missing: list[Identity]) -> None:
        """Delete these files if the store holds them all; add those that it does not hold to `missing`.

        Raises Unreachable.
        """
        answers = [(each, is_there(self._store, each.receipt, owner=each.dump.uid)) for each in unit]
        if all(there for _, there in answers):
            if self._elsewhere is None or all(self._elsewhere.holds(each.dump) for each in unit):
                for each in unit:
                    self._delete(each)
            return
        for each, there in answers:
            if there is False:
                self._ledger.forget(each.receipt.identity)
                missing.append(each.dump.identity)
                self._tell(ObjectMissing(path=each.dump.path, key=each.receipt.key, store=self._store.name))

    def _judge_space(self) -> None:
        try:
            room = self._space(self._root)
        except OSError:
            return  # unknown: the scan tells what is wrong with the volume
        if self._keeping.local_keep is Keep.ALWAYS or not self._is_scarce(room):
            self._full.ended_for("volume", VolumeRoomy(path=self._root))
            return
        self._full.failed(
            "volume",
            VolumeFull(
                error=f"less than {self._keeping.local_min_free_percent:g} % of the volume is free",
                path=self._root,
                free_bytes=room.free_bytes,
                total_bytes=room.total_bytes,
                hint="nothing that is left may be deleted: it is not confirmed in the store (with a replica, in both), or is no dump. "
                "Make the volume larger or clear it by hand; the next dump may not fit",
            ),
        )

    def _scarce(self) -> bool:
        try:
            return self._is_scarce(self._space(self._root))
        except OSError:
            return False  # unknown: deleting is what could lose something

    def _is_scarce(self, room: Space) -> bool:
        return room.free_percent < self._keeping.local_min_free_percent

    def _delete(self, each: Stored) -> None:
        """Delete the file that the receipt is about, and no other that may have its name by now.

        It is renamed first, examined, and only then unlinked: what takes the name between a look and an unlink would
        be lost. It stays in its directory under a dump's name, so nothing is needed but the rename (no free block, no
        free inode, no second directory), and whatever a kill or an error leaves there is found by the next scan: a
        stored dump by its receipt, any other file as a new dump.
        """
        path = each.dump.path
        try:
            with opened_parent(each.dump.root, each.dump.relpath) as (directory, name):
                if not self._unlink_in(directory, name, each.dump.identity):
                    return
        except FileNotFoundError:
            return  # gone already
        except OSError as error:
            failed = DeleteFailed(error=error.strerror or str(error), path=path, hint=_hint(error.errno))
            self._undeletable.failed("volume", failed)
            return
        self._undeletable.ended_for("volume", DeleteRecovered(path=path))
        self._tell(DumpDeleted(path=path, key=each.receipt.key, size_bytes=each.dump.size_bytes))

    def _unlink_in(self, directory: int, name: str, identity: Identity) -> bool:
        """Unlink the file `name` in the directory that is open on `directory`; False if another file has the name.

        Raises OSError.
        """
        aside = name
        if not name.startswith(f"{_ASIDE}{identity}"):
            aside = _move_out_of_the_way(directory, name, f"{_ASIDE}{identity}")
        status = os.stat(aside, dir_fd=directory, follow_symlinks=False)
        if Identity.of(status) != identity:
            if name != aside:
                rename_in(directory, aside, name)
            return False
        self._unlink(aside, directory)
        return True


def _move_out_of_the_way(directory: int, name: str, stem: str) -> str:
    """Rename a file to `<stem>.hprof`, or to a name that nobody could foresee where that one is taken. Raises OSError."""
    aside = f"{stem}.hprof"
    try:
        rename_in(directory, name, aside)
    except FileExistsError:
        aside = f"{stem}-{secrets.token_hex(8)}.hprof"
        rename_in(directory, name, aside)
    return aside


def _hint(code: int | None) -> str:
    if code in (errno.EACCES, errno.EPERM):
        return (
            "deleting needs the capability DAC_OVERRIDE (and FOWNER where the directory has the sticky bit)"
        )
    if code == errno.EROFS:
        return "the volume is read-only for the agent: mount it writable, or set LOCAL_KEEP=always"
    if code in (errno.ENOSPC, errno.EDQUOT):
        return "the volume has no room left even to rename a file: delete a file by hand"
    return "the volume does not delete: see the node's kernel log and the storage behind the claim"


def restore_hidden(root: str, state_dir: str, *, barrier: Barrier) -> None:
    """Bring back to `root`, as dumps, the files that version 0.1 moved to STATE_DIR/deleting and did not delete.

    Those that are stored are deleted from there like any other; another file may be a new dump.
    """
    hidden = f"{state_dir}/deleting"
    try:
        names = os.listdir(hidden)
    except OSError:
        return
    for name in names:
        path = f"{hidden}/{name}"
        barrier.run("restore a hidden file", functools.partial(_restore, root, path, name), path=path)


def _restore(root: str, path: str, name: str) -> None:
    for count in range(1, _MOST_OF_A_NAME):
        try:
            rename_noreplace(path, f"{root}/recovered-{name}{f'-{count}' if count > 1 else ''}.hprof")
            return
        except FileExistsError:
            continue
        except OSError:
            return  # it waits for the next start
