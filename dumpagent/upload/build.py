"""Puts together what one uploader works with: the ledger, the rules for the volume, the transfer, the loop."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass

from dumpagent.dumps.globs import COMPANIONS, Globs
from dumpagent.dumps.recognise import FileRules, Recogniser
from dumpagent.index.indexer import Indexer
from dumpagent.kernel.beneath import opened_directory
from dumpagent.kernel.owned import MAPPED_HINT, own_directory
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.volume import NameTaken, StateUnwritable, StateWritable, UsersMapped
from dumpagent.observe.incident import Incident
from dumpagent.settings import BesideDumps, Compressing, Keeping, Place, Remembering, Watching
from dumpagent.store.protocol import Store
from dumpagent.upload.companions.companions import Travel
from dumpagent.upload.companions.finder import CompanionLimits
from dumpagent.upload.keeping.deletion import Deletion
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.replica.replica import ReplicaParts
from dumpagent.upload.transfer.sweep import Sweep
from dumpagent.upload.transfer.uploader import Index, Uploader
from dumpagent.upload.volume.claim import claim
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.upload.worker import ShowProgress

_NAME_TAKEN = "find the application of this user on the node: it made a name that is the agent's"


@dataclass(frozen=True, kw_only=True)
class Second:
    """The store of the replica, its receipts, and the prefix of its keys."""

    store: Store
    ledger: Ledger
    prefix: str


@dataclass(frozen=True, kw_only=True)
class UploadPlan:
    """What an uploader is asked to do: `root` is DUMP_ROOT, `prefix` S3_PREFIX; a dry run writes nothing anywhere."""

    root: str
    prefix: str
    place: Place
    watching: Watching
    compressing: Compressing
    remembering: Remembering
    keeping: Keeping
    beside: BesideDumps
    dry_run: bool = False


def owned_state_dir(state_dir: str, tell: Tell) -> str:
    """Give the directory of the state: this one, made ours, or one beside it where another user has the name."""
    above, name = os.path.split(state_dir.rstrip("/"))
    try:
        with opened_directory(above, "") as directory:
            owned = own_directory(directory, name)
    except OSError:
        return state_dir  # not there yet, or not to be written: the ledger tells
    for taken, uid in owned.moved_aside:
        tell(NameTaken(path=f"{above}/{taken}", uid=uid, hint=_NAME_TAKEN))
    if owned.mapped_uid is not None:
        tell(UsersMapped(path=above, uid=owned.mapped_uid, hint=MAPPED_HINT))
    return f"{above}/{owned.name}"


def build_ledger(state_dir: str, *, store: Store, read_only: bool, tell: Tell) -> Ledger:
    """Give the ledger of `state_dir`, which tells once that it cannot be written, and once that it can again."""
    state = Incident(tell, StateUnwritable, StateWritable)
    return Ledger(
        state_dir,
        store=store.name,
        read_only=read_only,
        unwritable=lambda error: state.failed(
            "state", StateUnwritable(error=error.strerror or str(error), path=error.filename or state_dir)
        ),
        writable=lambda: state.ended_for("state", StateWritable(path=state_dir)),
    )


def build_loop(
    plan: UploadPlan,
    *,
    store: Store,
    ledger: Ledger,
    tell: Tell,
    stop: threading.Event,
    progress: ShowProgress,
    second: Second | None = None,
) -> UploadLoop:
    """Give the loop that scans, uploads and frees space, with all that it works with."""
    barrier = Barrier(tell)
    deletion = Deletion(plan.keeping, root=plan.root, store=store, ledger=ledger, tell=tell, barrier=barrier)
    return UploadLoop(
        root=plan.root,
        store=store,
        ledger=ledger,
        uploader=Uploader(
            store,
            plan.place,
            prefix=plan.prefix,
            packed=plan.compressing.compression == "gzip",
            stop=stop,
            index=Indexer(store, plan.place, tell, prefix=plan.prefix).write,
        ),
        judge=CompletenessJudge(quiet_s=plan.watching.file_stable_time_s),
        tell=tell,
        stop=stop,
        retention_days=plan.remembering.state_retention_days,
        deletion=None if plan.dry_run else deletion,
        barrier=barrier,
        sweep=Sweep(store, ledger, tell, prefix=plan.prefix, node=plan.place.node_name),
        claim=claim if plan.watching.claim and not plan.dry_run else None,
        progress=progress,
        recogniser=Recogniser(_rules(plan)),
        travel=None if plan.dry_run else _travel(plan, store=store, ledger=ledger, barrier=barrier),
        replica=_replica(plan, second, tell, progress) if second else None,
    )


def _replica(plan: UploadPlan, second: Second, tell: Tell, progress: ShowProgress) -> ReplicaParts:
    def uploader(stop: threading.Event, index: Index) -> Uploader:
        packed = plan.compressing.compression == "gzip"
        return Uploader(second.store, plan.place, prefix=second.prefix, packed=packed, stop=stop, index=index)

    return ReplicaParts(
        store=second.store,
        ledger=second.ledger,
        uploader=uploader,
        judge=CompletenessJudge(quiet_s=plan.watching.file_stable_time_s),
        index=Indexer(second.store, plan.place, tell, prefix=second.prefix).write,
        sweep=Sweep(second.store, second.ledger, tell, prefix=second.prefix, node=plan.place.node_name),
        progress=progress,
    )


def _rules(plan: UploadPlan) -> FileRules:
    off = plan.beside.companions.strip().lower() == "off"
    companions = Globs("" if off else f"{COMPANIONS}, {plan.beside.companions}")
    return FileRules(Globs(plan.watching.include), Globs(plan.watching.exclude), companions)


def _travel(plan: UploadPlan, *, store: Store, ledger: Ledger, barrier: Barrier) -> Travel:
    return Travel(
        uploader=lambda event: Uploader(store, plan.place, prefix=plan.prefix, stop=event),
        limits=CompanionLimits(plan.beside.companion_max_bytes, plan.beside.companion_max_count),
        quiet_s=plan.watching.file_stable_time_s,
        deletion=lambda tell: Deletion(
            plan.keeping, root=plan.root, store=store, ledger=ledger, tell=tell, barrier=barrier
        ),
    )
