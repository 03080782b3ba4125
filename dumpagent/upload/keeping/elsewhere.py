"""Says whether the replica holds a dump that is to be deleted from the volume."""

from __future__ import annotations

from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import ObjectMissing
from dumpagent.store.protocol import Store
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.keeping.recheck import is_there
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.store_health import StoreHealth


class HeldElsewhere:
    """Asks the replica's receipts, and the replica. `queue` has those that it is to get again; any thread may call."""

    def __init__(
        self, store: Store, ledger: Ledger, store_health: StoreHealth, queue: Backlog, tell: Tell
    ) -> None:
        self._store, self._ledger, self._store_health = store, ledger, store_health
        self._queue, self._tell = queue, tell

    def may_go(self, dump: DumpFile) -> bool:
        """Say whether the replica has confirmed the dump twice, and answers now. Asks nobody."""
        receipt = self._ledger.receipt(dump.identity)
        if receipt is None or not receipt.verified or not receipt.rechecked:
            return False
        return not self._store_health.pause_left_s()

    def holds(self, dump: DumpFile) -> bool:
        """Say whether the replica holds the dump now; a dump that it turns out not to hold is uploaded again."""
        receipt = self._ledger.receipt(dump.identity)
        if receipt is None:
            return False
        there = self._store_health.ask(lambda: is_there(self._store, receipt, owner=dump.uid))
        if there is False:
            self._missing(dump.identity)
            self._tell(ObjectMissing(path=dump.path, key=receipt.key, store=self._store.name))
        return bool(there)

    def _missing(self, identity: Identity) -> None:
        self._ledger.forget(identity)
        self._queue.is_missing(identity)
