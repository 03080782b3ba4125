"""Goes over what is stored: confirms it once more, and deletes from the volume what the policy allows to be deleted."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable

from dumpagent.dumps.model import Identity
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.keeping.deletion import Deletion
from dumpagent.upload.keeping.recheck import Recheck, Stored
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.store_health import StoreHealth

_TURN_S = (
    0.5  # a tenant can have any number of stored dumps: looking at them all must not hold up the next upload
)


class Turn:
    """A turn of what may wait: over once the agent ends, or after a moment if a dump waits for its upload."""

    def __init__(
        self, stop: threading.Event, backlog: Backlog, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._stop, self._backlog, self._monotonic = stop, backlog, monotonic
        self._looked_at = monotonic()

    def is_over(self) -> bool:
        """Say whether to leave the rest for the next turn."""
        now = self._monotonic()
        if now - self._looked_at >= _TURN_S:
            if self._backlog.has_work():
                return True
            self._looked_at = now
        return self._stop.is_set()


class Reclaimer:
    """Asks the store: `recheck` belongs to the thread that uploads, `free_space` to that or to one of its own."""

    def __init__(
        self,
        *,
        backlog: Backlog,
        ledger: Ledger,
        recheck: Recheck,
        deletion: Deletion | None,
        store_health: StoreHealth,
        stop: threading.Event,
    ) -> None:
        self._backlog, self._ledger, self._recheck = backlog, ledger, recheck
        self._deletion, self._store_health, self._stop = deletion, store_health, stop

    def recheck(self) -> None:
        """Look at every stored dump once more; what the store turns out not to hold is to be uploaded again."""
        turn = Turn(self._stop, self._backlog)
        self._ask(lambda stored: self._recheck.look(stored, stopped=turn.is_over)[1])

    def free_space(self) -> None:
        """Delete what may be deleted; what the store turns out not to hold is to be uploaded again."""
        if self._deletion:
            turn = Turn(self._stop, self._backlog)  # one of its own: room for the next dump comes first
            self._ask(functools.partial(self._deletion.reclaim, stopped=turn.is_over))

    def _ask(self, about: Callable[[list[Stored]], list[Identity]]) -> None:
        for identity in self._store_health.ask(lambda: about(self._stored())) or ():
            self._backlog.is_missing(identity)

    def _stored(self) -> list[Stored]:
        receipts = ((dump, self._ledger.receipt(dump.identity)) for dump in self._backlog.stored())
        return [Stored(dump, receipt) for dump, receipt in receipts if receipt is not None]
