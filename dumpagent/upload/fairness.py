"""Whose dump is next: users take turns, whatever the times, sizes and numbers of their files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dumpagent.upload.backlog import Entry


# How long an upload goes on while another application's dump waits: about as long as that one takes, so that large ones
# do not change places all the time.
_TURN_S, _LONGEST_TURN_S, _TURN_BYTES_PER_S = 3.0, 60.0, 50e6
_MOST_SERVED = 10_000  # owners and directories whose turn is remembered


class Fairness:
    """Whose turn it is: the owner who was served longest ago, of its directories the one that was."""

    def __init__(self) -> None:
        self._served: dict[object, int] = {}
        self._count = 0

    def serve(self, entry: Entry) -> None:
        """Note that the entry had its turn."""
        self._count += 1
        self._served[entry.owner] = self._served[entry.folder] = self._count
        if len(self._served) > _MOST_SERVED:  # an owner can make any number of directories
            latest = sorted(self._served.items(), key=lambda each: each[1])[_MOST_SERVED // 2 :]
            self._served = dict(latest)

    def rank(self, entry: Entry) -> tuple[int, int, int, int, int, int]:
        """Give the place of the entry: the least comes first. What its owner can choose, as its time, counts last.

        Files of holes come after all others: a size that costs nothing must not cost others their turn.
        """
        owner, folder = self._served.get(entry.owner, 0), self._served.get(entry.folder, 0)
        return (
            int(entry.dump.is_mostly_holes),
            owner,
            entry.attempts,
            folder,
            entry.number,
            entry.dump.identity.mtime_ns,
        )

    def order(self, entries: Iterable[Entry], most: int) -> list[Entry]:
        """Give up to `most` entries, each owner's turn by turn."""
        by_owner: dict[int, list[Entry]] = {}
        for entry in entries:
            by_owner.setdefault(entry.owner, []).append(entry)
        queues = [sorted(each, key=self.rank)[:most] for each in by_owner.values()]
        queues.sort(key=lambda queue: self.rank(queue[0]))
        turns = (
            queue[turn]
            for turn in range(max(map(len, queues), default=0))
            for queue in queues
            if turn < len(queue)
        )
        return [entry for entry, _ in zip(turns, range(most), strict=False)]

    def forget_all_but(self, owners: set[int]) -> None:
        """Forget those that have nothing here any more."""
        kept = {
            key: at
            for key, at in self._served.items()
            if (key[0] if isinstance(key, tuple) else key) in owners
        }
        self._served = kept


def has_had_its_turn(sending: Entry, waiting: Iterable[Entry], now: float) -> bool:
    """Say whether an upload gives way to the dumps `waiting`. `now` is the clock of `Entry.sending_since`."""
    others = [entry.dump.size_bytes for entry in waiting if entry.folder != sending.folder]
    turn_s = min(others, default=0) / _TURN_BYTES_PER_S
    return bool(others) and now - sending.sending_since >= min(_LONGEST_TURN_S, max(_TURN_S, turn_s))
