"""An agent that lives long enough to end what earlier ones left open: the same sweep, without the waiting."""

from __future__ import annotations

import tempfile

from dumpagent.observe.events import Event
from dumpagent.store.protocol import Store
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.transfer.sweep import QUIET_S, Sweep


def _nobody(_event: Event, /) -> None:
    """Listen to nothing."""


def sweep_leftovers(store: Store, *, node: str, prefix: str = "") -> int:
    """Give how many uploads the agent of `node` aborts once all its dumps are stored and nothing changes any more."""
    now = 0.0
    with tempfile.TemporaryDirectory() as empty:
        sweep = Sweep(
            store,
            Ledger(empty, store=store.name),
            _nobody,
            prefix=prefix,
            node=node,
            monotonic=lambda: now,
        )
        sweep.expect()
        first = sweep.sweep(present=(), settled=True)
        now += QUIET_S
        return first + sweep.sweep(present=(), settled=True)
