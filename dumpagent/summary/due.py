"""Which dumps wait for their summary: users take turns, and one who has many waits longer than one who has few; pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dumpagent.dumps.model import Identity

_MOST_SERVED = 10_000  # users and directories whose turn is remembered


@dataclass(frozen=True, slots=True)
class DueSummary:
    """One stored dump that is still to be summarised. `attempts` are those that were begun."""

    identity: Identity
    relpath: str
    uid: int
    key: str
    crc32: int
    verdict: str
    dump_time: str | None
    jvm: str | None
    cause: str | None
    is_news: bool
    attempts: int = 0

    @property
    def folder(self) -> tuple[int, str]:
        """Give the user's directory: applications that share a user number differ by it."""
        return self.uid, self.relpath.rpartition("/")[0]


class DueSummaries:
    """Up to `most` of them. Next is a dump of the user who was served longest ago, of that user's directories the one that was."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[Identity, DueSummary] = {}  # in the order in which they came
        self._served: dict[object, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, identity: object) -> bool:
        return identity in self._waiting

    def add(self, due: DueSummary) -> DueSummary | None:
        """Let one wait; give the one that is left out for it where too many wait, which may be itself.

        That is the latest of the directory, of the user, that has most of them: no user's flood costs another a summary.
        """
        self._waiting[due.identity] = due
        if len(self._waiting) <= self._most:
            return None
        users = Counter(each.uid for each in self._waiting.values())
        folders = Counter(each.folder for each in self._waiting.values())
        left_out = max(
            enumerate(self._waiting.values()),
            key=lambda item: (users[item[1].uid], folders[item[1].folder], item[0]),
        )[1]
        self.remove(left_out)
        return left_out

    def next(self, before_all: Identity | None = None) -> DueSummary | None:
        """Give the one whose turn it is, None if none waits; `before_all` is it if that one waits."""
        if before_all in self._waiting:
            return self._waiting[before_all]
        return min(
            self._waiting.values(),
            key=lambda each: (self._served.get(each.uid, 0), self._served.get(each.folder, 0)),
            default=None,
        )

    def serve(self, due: DueSummary) -> None:
        """Note that one has its turn now; it waits no more."""
        self.remove(due)
        self._count += 1
        self._served[due.uid] = self._served[due.folder] = self._count
        if len(self._served) > _MOST_SERVED:  # a user can make any number of directories
            latest = sorted(self._served.items(), key=lambda each: each[1])[_MOST_SERVED // 2 :]
            self._served = dict(latest)

    def remove(self, due: DueSummary) -> None:
        """Let one wait no more."""
        self._waiting.pop(due.identity, None)
