"""Finds the companions whose time has come: wanted beside a dump, at rest, and within their limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass

from dumpagent.dumps.companion import Anchor, companion_folder, is_crash_file, nearest
from dumpagent.dumps.files import found_again
from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.dumps.names import original_name, parts_of, stamped_ms
from dumpagent.observe.events import Tell
from dumpagent.observe.events.companions import CompanionGone, CompanionLeftAlone
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.companions.queue import CompanionQueue
from dumpagent.upload.companions.rest import Rest
from dumpagent.upload.entry import Entry
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.volume.finder import Met

_AT_ONCE = 16
_MOST_ANCHORS = 20  # of one directory and user: the newest
_MOST_FOLDERS = 5000
_MOST_TOLD = 1000
_GONE_RECHECK_S = 60.0
_CALM_S, _CALM_MOST_S = 15.0, 900.0
Folder = tuple[int, str]  # the owner's uid, the directory below the root


@dataclass(frozen=True, slots=True)
class CompanionLimits:
    """How much may travel with an application's dumps: the size of one file, and files of one directory and user."""

    size_bytes: int
    count: int


class CompanionFinder:
    """Belongs to the thread that scans, but for `anchored`, `path_of`, which another may call."""

    def __init__(
        self, dumps: Backlog, queue: CompanionQueue, ledger: Ledger, rest: Rest, tell: Tell, *, limits: CompanionLimits,
        monotonic: Callable[[], float],
    ) -> None:  # fmt: skip
        self._dumps, self._queue, self._ledger, self._rest, self._tell = dumps, queue, ledger, rest, tell
        self._limits, self._monotonic = limits, monotonic
        self._anchors: dict[Folder, list[Anchor]] = {}
        self._paths: dict[tuple[int, int], tuple[str, Folder]] = {}  # of those that travel
        self._count: Counter[Folder] = Counter()  # of those that travel
        self._told: set[tuple[int, int]] = set()
        self._unwanted: dict[
            Folder, dict[tuple[int, int], DumpFile]
        ] = {}  # logs with no dump beside them yet
        self._volume: Hashable = None

    def follow(self, met: Met) -> None:
        """Take over what the finder of dumps met."""
        if met.begun:
            self.begin_scan()
        self.note_claimed(met.named)
        self.take_over(met.files, volume=met.volume)
        for judged in met.judged:
            directory, slash, name = judged.dump.relpath.rpartition("/")
            original = directory + slash + original_name(name, judged.dump_time_ms)
            self.anchor(judged.dump, original, judged.dump_time_ms)
        if met.ended:
            self.finish_scan(met.volume)

    # -- dumps that files belong to -----------------------------------------------------------------------------

    def anchor(self, dump: DumpFile, original: str, dump_time_ms: int) -> None:
        """Take note of a dump that was judged: what lies beside it is wanted from now on."""
        folder = _folder(dump)
        anchors = self._anchors.setdefault(folder, [])
        new = Anchor(original, dump_time_ms, dump.mtime)
        others = [each for each in anchors if each.folder != new.folder]
        anchors[:] = [*others[1 - _MOST_ANCHORS :], new]
        if len(self._anchors) > _MOST_FOLDERS:
            del self._anchors[next(iter(self._anchors))]
        if waiting := self._unwanted.pop(folder, None):
            self.take_over(waiting.values(), volume=self._volume)

    def note_claimed(self, dumps: Iterable[DumpFile]) -> None:
        """Take note of dumps whose names tell their time: those that an earlier run renamed."""
        for dump in dumps:
            directory, slash, name = dump.relpath.rpartition("/")
            time_ms = stamped_ms(name)
            if time_ms is not None and not any(
                each.dump_time_ms // 1000 == time_ms // 1000 for each in self._anchors.get(_folder(dump), ())
            ):
                parts = parts_of(name)
                self.anchor(dump, f"{directory}{slash}{parts.bare_stem}{parts.suffix}", time_ms)

    # -- scanning -----------------------------------------------------------------------------------------------

    def begin_scan(self) -> None:
        """Begin to take note of which files are there."""
        self._queue.begin_scan()
        self._unwanted.clear()

    def take_over(self, files: Iterable[DumpFile], *, volume: Hashable) -> None:
        """Take over files that a scan found, or that were just written."""
        self._volume = volume
        wanted = [file for file in files if self._is_wanted(file)]
        self._queue.update(
            wanted, stored=lambda identity: self._ledger.receipt(identity) is not None, everything=False,
            volume=volume,
        )  # fmt: skip
        self._queue.judge_now({(file.device, file.identity.inode) for file in wanted})

    def finish_scan(self, volume: Hashable) -> None:
        """Drop the files that are gone."""
        for file in self._queue.finish_scan(volume):
            self._rest.forget(file)
            self._tell(CompanionGone(path=file.path, size_bytes=file.size_bytes))
        here = self._queue.keys()
        self._paths = {key: known for key, known in self._paths.items() if key in here}
        self._count = Counter(folder for _, folder in self._paths.values())

    def identities(self) -> frozenset[Identity]:
        """Give all companions that are known to be on the volume."""
        return self._queue.identities()

    def _is_wanted(self, file: DumpFile) -> bool:
        key = (file.device, file.identity.inode)
        if receipt := self._ledger.receipt(file.identity):
            self._note_path(file, receipt.path)
            return True
        if self._queue.is_pending(file):
            return True
        path = self._path(file)
        if not file.size_bytes:
            return False  # its JVM has made it, and has not written to it yet
        if path is None:
            if len(self._unwanted) < _MOST_FOLDERS:
                here = self._unwanted.setdefault(_folder(file), {})
                if len(here) < self._limits.count:
                    here[key] = file
            return False
        if not is_crash_file(_name(file)) and self._ledger.has_path(path):
            return False  # a log goes once with each dump, however long it grows
        if file.size_bytes > self._limits.size_bytes:
            self._leave(file, key, f"larger than COMPANION_MAX_SIZE ({self._limits.size_bytes} bytes)")
            return False
        if key not in self._paths and self._count[_folder(file)] >= self._limits.count:
            self._leave(file, key, f"more than COMPANION_MAX_COUNT ({self._limits.count}) in its directory")
            return False
        if not self._queue.has_room(file.uid):
            return False
        self._note_path(file, path)
        return True

    def _note_path(self, file: DumpFile, path: str) -> None:
        key, folder = (file.device, file.identity.inode), _folder(file)
        if key not in self._paths:
            self._count[folder] += 1
        self._paths[key] = path, folder

    def _path(self, file: DumpFile) -> str | None:
        anchor = nearest(file, self._anchors.get(_folder(file), ()))
        if anchor:
            return anchor.folder + _name(file)
        if is_crash_file(_name(file)):  # a JVM that crashed without a dump
            return companion_folder(file.relpath, max(0, file.identity.mtime_ns // 1_000_000)) + _name(file)
        return None

    def _leave(self, file: DumpFile, key: tuple[int, int], reason: str) -> None:
        if key not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(key)
            self._tell(CompanionLeftAlone(path=file.path, size_bytes=file.size_bytes, reason=reason))

    # -- judging ------------------------------------------------------------------------------------------------

    def judge_some(self, *, until: float) -> float | None:
        """Put up what is at rest. Gives the seconds until another look can tell more, None if only a change can."""
        while entries := self._queue.to_judge(_AT_ONCE):
            for entry in entries:
                self._queue.judged(entry, self._judge(entry))
                if self._monotonic() >= until:
                    return 0.0
        return self._queue.next_judging_s()

    def _judge(self, entry: Entry) -> float | None:
        try:
            self._queue.refresh(entry, found_again(entry.dump))
            verdict = self._rest.judge(entry.dump)
        except OSError:
            return _GONE_RECHECK_S  # gone or renamed, which the next scan tells
        if not verdict.due:
            return verdict.recheck_s
        if not is_crash_file(_name(entry.dump)) and not self._is_calm(entry):
            return _CALM_S / 3
        self._note_path(entry.dump, self._path(entry.dump) or self.path_of(entry.dump))
        self._queue.ready(entry, entry.dump, verdict)
        return None

    def _is_calm(self, entry: Entry) -> bool:
        """Say whether no dump has come or gone for a while: where many JVMs die, all dumps go before the first log."""
        now = self._monotonic()
        return now - self._dumps.busy_at >= _CALM_S or now - entry.waiting_since >= _CALM_MOST_S

    def path_of(self, file: DumpFile) -> str:
        """Give the path under which the file is stored."""
        known, _ = self._paths.get((file.device, file.identity.inode), (None, None))
        return known or self._path(file) or file.relpath


def _folder(file: DumpFile) -> Folder:
    return file.uid, file.relpath.rpartition("/")[0]


def _name(file: DumpFile) -> str:
    return file.relpath[file.relpath.rfind("/") + 1 :]
