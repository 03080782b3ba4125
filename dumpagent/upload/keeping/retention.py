"""Makes room on the volume: deletes dumps that the store has just confirmed again, and nothing else, ever."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dumpagent.dumps.model import Identity
from dumpagent.dumps.names import dump_of_segment
from dumpagent.dumps.receipt import Receipt
from dumpagent.dumps.segment_files import segment_files_of
from dumpagent.kernel.rename import rename_noreplace
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import DeleteFailed, DeleteRecovered, DumpDeleted, ObjectMissing
from dumpagent.observe.events.volume import VolumeFull, VolumeRoomy
from dumpagent.observe.incident import Incident
from dumpagent.settings import Keep, Keeping
from dumpagent.store.protocol import Store
from dumpagent.upload.keeping.recheck import Stored, is_there
from dumpagent.upload.ledger import Ledger

# Dumps of one name that follow each other within this time are one crash loop.
_CRASH_LOOP_S = 3600.0


@dataclass(frozen=True, slots=True)
class Space:
    """The room on a file system, bytes, as a writer without privileges sees it."""

    total_bytes: int
    free_bytes: int

    @property
    def free_percent(self) -> float:
        return 100.0 * self.free_bytes / self.total_bytes if self.total_bytes else 100.0


def space_of(path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> Space:
    """Give the room on the file system of `path`, counted as df(1) does: what only root may fill is no room.

    Raises OSError. Source: statvfs(3), f_blocks, f_bfree and f_bavail.
    """
    found = statvfs(path)
    used = found.f_blocks - found.f_bfree
    return Space((used + found.f_bavail) * found.f_frsize, found.f_bavail * found.f_frsize)


def in_order_of_deletion(stored: Iterable[Stored]) -> list[Stored]:
    """Give the dumps with that first whose loss from the disk matters least.

    Repeats of a crash loop before the first dump of each: the first shows the leak before restarts blur it, and is
    the one that people open. Within both, the oldest first.
    """
    by_time = sorted(stored, key=lambda each: (each.dump.identity.mtime_ns, each.dump.relpath))
    last_of_name: dict[str, float] = {}
    repeats: list[Stored] = []
    firsts: list[Stored] = []
    for each in by_time:
        before = last_of_name.get(each.receipt.path)
        last_of_name[each.receipt.path] = each.dump.mtime
        repeats_one = before is not None and each.dump.mtime - before <= _CRASH_LOOP_S
        (repeats if repeats_one else firsts).append(each)
    return repeats + firsts


def with_parts(stored: Iterable[Stored]) -> dict[str, tuple[Stored, ...]]:
    """Give, by the path of each dump, the dump with the parts that its killed JVM left beside it; parts first.

    They stay or go together: a part that stays behind alone stops the JVM's next dump ("File exists"), and a stub
    without its parts is worth little.
    """
    by_path = {each.dump.relpath: each for each in stored}
    parts: dict[str, list[Stored]] = {}
    for each in by_path.values():
        base = dump_of_segment(each.dump.relpath)
        if base in by_path:
            parts.setdefault(base, []).append(each)
    belonging = {part.dump.relpath for group in parts.values() for part in group}
    return {path: (*parts.get(path, ()), each) for path, each in by_path.items() if path not in belonging}


def _may_go(receipt: Receipt) -> bool:
    return receipt.verified and receipt.rechecked


class Retention:
    """Deletes what `keeping` allows to be deleted, one dump at a time, each after a fresh look at its object."""

    def __init__(
        self,
        keeping: Keeping,
        *,
        root: str,
        store: Store,
        ledger: Ledger,
        tell: Tell,
        space: Callable[[str], Space] = space_of,
    ) -> None:
        self._keeping, self._root, self._store, self._ledger, self._tell = keeping, root, store, ledger, tell
        self._space = space
        self._full = Incident(tell, VolumeFull, VolumeRoomy)
        self._undeletable = Incident(tell, DeleteFailed, DeleteRecovered)

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
        units = with_parts(one for one in stored if _may_go(one.receipt))
        for stub in in_order_of_deletion(unit[-1] for unit in units.values()):
            if stopped():
                break
            unit = units[stub.dump.relpath]
            if (self._blocks_a_name(unit) or self.wanted()) and self._has_all_its_parts(unit):
                missing += self._delete_unit(unit)
        self._judge_space()
        return missing

    def _blocks_a_name(self, unit: tuple[Stored, ...]) -> bool:
        """Say whether a killed JVM's stub and parts still have the names that the next dump wants (CLAIM=false)."""
        stub = unit[-1]
        unclaimed = stub.dump.relpath == stub.receipt.path
        return len(unit) > 1 and unclaimed and self._keeping.local_keep is not Keep.ALWAYS

    def _has_all_its_parts(self, unit: tuple[Stored, ...]) -> bool:
        """Say whether every part that lies beside the dump is in the store too."""
        there = {part.dump.relpath for part in unit}
        try:
            return all(part.relpath in there for part in segment_files_of(unit[-1].dump))
        except OSError:
            return False  # unknown: nothing is deleted

    def _delete_unit(self, unit: tuple[Stored, ...]) -> list[Identity]:
        """Delete these files if the store holds them all; give those that it does not hold. Raises Unreachable."""
        answers = [(each, is_there(self._store, each.receipt)) for each in unit]
        if all(there for _, there in answers):
            for each in unit:
                self._delete(each)
            return []
        missing = []
        for each, there in answers:
            if there is False:
                self._ledger.forget(each.receipt.identity)
                missing.append(each.dump.identity)
                self._tell(ObjectMissing(path=each.dump.path, key=each.receipt.key, store=self._store.name))
        return missing

    def _judge_space(self) -> None:
        if self._keeping.local_keep is Keep.ALWAYS or not self._scarce():
            self._full.ended_for("volume", VolumeRoomy(path=self._root))
            return
        room = self._space(self._root)
        self._full.failed(
            "volume",
            VolumeFull(
                error=f"less than {self._keeping.local_min_free_percent:g} % of the volume is free",
                path=self._root,
                free_bytes=room.free_bytes,
                total_bytes=room.total_bytes,
                hint="nothing that is left may be deleted: it is not confirmed in the store, or is no dump. "
                "Make the volume larger or clear it by hand; the next dump may not fit",
            ),
        )

    def _scarce(self) -> bool:
        try:
            return self._space(self._root).free_percent < self._keeping.local_min_free_percent
        except OSError:
            return False  # unknown: deleting is what could lose something

    def _delete(self, each: Stored) -> None:
        """Delete the file that the receipt is about, and no other that may have its name by now.

        It is moved aside first, looked at, and only then unlinked: what takes the name between a look and an unlink
        would be gone for ever.
        """
        aside = f"{self._ledger.directory}/deleting"
        moved = f"{aside}/{each.dump.identity}"
        try:
            os.makedirs(aside, mode=0o700, exist_ok=True)
            rename_noreplace(each.dump.path, moved)
        except FileNotFoundError:
            return  # gone already
        except OSError as error:
            self._undeletable.failed(
                "volume",
                DeleteFailed(
                    error=error.strerror or str(error),
                    path=each.dump.path,
                    hint="deleting needs the capability DAC_OVERRIDE, and STATE_DIR on the volume of the dumps",
                ),
            )
            return
        if settle(self._root, moved):
            self._undeletable.ended_for("volume", DeleteRecovered(path=each.dump.path))
            self._tell(
                DumpDeleted(path=each.dump.path, key=each.receipt.key, size_bytes=each.dump.size_bytes)
            )


def settle_all(root: str, state_dir: str) -> None:
    """Finish the deletions that the end of an earlier run cut off."""
    aside = f"{state_dir}/deleting"
    try:
        names = os.listdir(aside)
    except OSError:
        return
    for name in names:
        try:
            settle(root, f"{aside}/{name}")
        except OSError:
            continue  # it waits for the next start


def settle(root: str, moved: str) -> bool:
    """Unlink a file that was moved aside, if it is the one that its new name says; else put it back.

    Says whether it was unlinked. Raises OSError.
    """
    status = os.lstat(moved)
    name = os.path.basename(moved)
    if str(Identity(status.st_ino, status.st_size, status.st_mtime_ns)) == name:
        os.unlink(moved)
        return True
    # Another file had taken the dump's name: under a dump's name it is found, judged and uploaded like any other.
    rename_noreplace(moved, f"{root}/recovered-{name}.hprof")
    return False
