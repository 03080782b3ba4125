"""Goes over what is stored: confirms it once more, and deletes from the volume what the policy allows to be deleted."""

from __future__ import annotations

import threading

from dumpagent.errors import Unreachable
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.keeping.deletion import Deletion
from dumpagent.upload.keeping.recheck import Recheck, Stored
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.store_health import StoreHealth

_RETRY_S = 30.0


class Reclaimer:
    """Asks the store, so it belongs to the thread that uploads."""

    def __init__(
        self,
        *,
        backlog: Backlog,
        ledger: Ledger,
        recheck: Recheck,
        deletion: Deletion,
        store_health: StoreHealth,
        stop: threading.Event,
    ) -> None:
        self._backlog, self._ledger, self._recheck = backlog, ledger, recheck
        self._deletion, self._store_health, self._stop = deletion, store_health, stop

    def reclaim(self) -> None:
        """Look at every stored dump once; what the store turns out not to hold is to be uploaded again."""
        if self._store_health.pause_left_s():
            return
        receipts = ((dump, self._ledger.receipt(dump.identity)) for dump in self._backlog.stored())
        stored = [Stored(dump, receipt) for dump, receipt in receipts if receipt is not None]
        try:
            stored, missing = self._recheck.look(stored, stopped=self._stop.is_set)
            missing += self._deletion.reclaim(stored, stopped=self._stop.is_set)
        except Unreachable as error:
            self._store_health.leave_alone(_RETRY_S)
            self._store_health.note(error)
            return
        for identity in missing:
            self._backlog.is_missing(identity)
