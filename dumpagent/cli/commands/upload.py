"""`dumpagent upload`: brings finished dumps to S3, as a daemon or in one pass."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager

import click

from dumpagent import __version__
from dumpagent.cli.listeners import Audience, notify, serve_metrics, tell_pods
from dumpagent.cli.options import require_directory, takes
from dumpagent.cli.store import open_store
from dumpagent.dumps.model import DumpFile
from dumpagent.dumps.text import printable
from dumpagent.kernel.beneath import opened_directory
from dumpagent.kernel.owned import own_directory
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import AgentStarted, AgentStopped
from dumpagent.observe.events.dumps import PassFinished, PassInterrupted
from dumpagent.observe.events.volume import NameTaken, StateUnwritable, StateWritable
from dumpagent.observe.incident import Incident
from dumpagent.observe.libraries import hear_libraries
from dumpagent.observe.log import log_to
from dumpagent.probes.heartbeat import Heartbeat, Pulse
from dumpagent.settings import (
    S3,
    Asking,
    Compressing,
    Keeping,
    Logging,
    Metrics,
    Notifying,
    Place,
    Remembering,
    Runtime,
    Volume,
    Watching,
)
from dumpagent.store.protocol import LookRefused, Store
from dumpagent.terminal import progress
from dumpagent.upload.daemon import GRACE_S, Daemon
from dumpagent.upload.indexing import Indexer
from dumpagent.upload.keeping.deletion import Deletion, restore_hidden
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import Pass, UploadLoop
from dumpagent.upload.transfer.multipart import Progress
from dumpagent.upload.transfer.sweep import Sweep
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.claim import claim
from dumpagent.upload.volume.judge import CompletenessJudge

# A scan of a big volume with a fifth of a core, or one that waits for a network file system, is no dead daemon yet.
_BEAT_BELIEVED_S = 120.0
_NAME_TAKEN = "find the application of this user on the node: it made a name that is the agent's"


@click.command("upload", short_help="Bring finished heap dumps to S3.")
@takes(
    Volume,
    Watching,
    S3,
    Asking,
    Compressing,
    Remembering,
    Keeping,
    Place,
    Runtime,
    Metrics,
    Notifying,
    Logging,
)
@click.option(
    "--once", is_flag=True, help="One pass over DUMP_ROOT, then exit: 0, or 1 if a dump could not be stored."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what one pass would do; change nothing here or in the store."
)
def command(
    volume: Volume,
    watching: Watching,
    s3: S3,
    asking: Asking,
    compressing: Compressing,
    remembering: Remembering,
    keeping: Keeping,
    place: Place,
    runtime: Runtime,
    metrics: Metrics,
    notifying: Notifying,
    logging: Logging,
    once: bool,
    dry_run: bool,
) -> None:
    """Find finished heap dumps below DUMP_ROOT and bring them to an S3 bucket.

    Runs until SIGTERM or Ctrl-C, or for one pass with --once. What a stop cuts off goes on at the next start.

    Credentials, region, CA and proxies are the AWS SDK's own: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,
    AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, AWS_DEFAULT_REGION, AWS_CA_BUNDLE, HTTPS_PROXY.
    """
    root = volume.dump_root.rstrip("/") or "/"
    state_dir = remembering.state_dir or f"{root}/.dumpagent"
    if once or dry_run:
        require_directory(root, "DUMP_ROOT")
    host = socket.gethostname()
    place = dataclasses.replace(place, node_name=place.node_name or host, pod_name=place.pod_name or host)
    as_daemon = not (once or dry_run)
    audience = Audience(log_to(None, logging))
    tell: Tell = audience
    hear_libraries(tell)
    ending = Shutdown()
    if not dry_run:
        state_dir = _owned(state_dir, tell)
    store = open_store(
        s3, tell=tell, stop=ending.stop, remembered_in=None if dry_run else f"{state_dir}/store.json"
    )
    barrier = Barrier(tell)
    state = Incident(tell, StateUnwritable, StateWritable)
    ledger = Ledger(
        state_dir,
        store=store.name,
        read_only=dry_run,
        unwritable=lambda error: state.failed(
            "state", StateUnwritable(error=error.strerror or str(error), path=error.filename or state_dir)
        ),
        writable=lambda: state.ended_for("state", StateWritable(path=state_dir)),
    )
    loop = UploadLoop(
        root=root,
        store=store,
        ledger=ledger,
        sender=Uploader(
            store,
            place,
            prefix=s3.prefix,
            packed=compressing.compression == "gzip",
            stop=ending.stop,
        ),
        judge=CompletenessJudge(quiet_s=watching.file_stable_time_s),
        tell=tell,
        stop=ending.stop,
        retention_days=remembering.state_retention_days,
        deletion=None
        if dry_run
        else Deletion(keeping, root=root, store=store, ledger=ledger, tell=tell, barrier=barrier),
        barrier=barrier,
        sweep=Sweep(store, ledger, tell, prefix=s3.prefix, node=place.node_name),
        claim=claim if watching.claim and not dry_run else None,
        progress=_bar,
        index=Indexer(store, place, tell, prefix=s3.prefix).write,
    )
    with ending:
        if not as_daemon:
            code = _once(loop, ledger, store, tell, ending, dry_run=dry_run)
        else:
            pulse = Pulse(
                Heartbeat(runtime.runtime_dir, "upload", _as_mounted(root)), tell, good_for_s=_BEAT_BELIEVED_S
            )
            if metrics.metrics_port:
                serve_metrics(metrics, loop, pulse, audience, ending)
            if notifying.notify_url:
                notify(
                    notifying,
                    audience,
                    ending,
                    root=root,
                    outbox=f"{state_dir}/outbox",
                    node=place.node_name,
                    s3=s3,
                    owned=ledger.is_owned,
                    barrier=barrier,
                )
            if notifying.pod_events:
                tell_pods(audience, ending, root=root, place=place, barrier=barrier)
            pulse.begin()
            tell(
                AgentStarted(
                    mode="upload",
                    version=__version__,
                    node=place.node_name,
                    settings={
                        "path": root,
                        "bucket": s3.bucket,
                        "prefix": s3.prefix or None,
                        "endpoint": s3.endpoint_url or "AWS",
                        "scan_every_seconds": watching.watch_interval_s,
                    },
                )
            )
            Daemon(
                loop,
                ledger,
                s3=s3,
                warm_up=store.warm_up,
                watching=watching,
                asking=asking,
                pulse=pulse,
                tell=tell,
                ending=ending,
            ).run()
            counts = loop.counts
            tell(AgentStopped(mode="upload", pending=counts.pending, uploaded=counts.uploaded))
            code = 0
    if ending.stop.is_set():
        # A part that hangs on the network must not hold the end up; nothing that it could still do counts.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _once(
    loop: UploadLoop, ledger: Ledger, store: Store, tell: Tell, ending: Shutdown, *, dry_run: bool
) -> int:
    began = time.monotonic()
    outcome: list[Pass | BaseException] = []

    def one_pass() -> None:
        try:
            with contextlib.suppress(LookRefused):  # may write, but not list: the first dump will tell
                store.check()
            with ledger.owned():
                if not dry_run:
                    restore_hidden(loop.root, ledger.directory, barrier=loop.barrier)
                outcome.append(loop.run_once(dry_run=dry_run))
        except BaseException as error:  # noqa: BLE001 - raised again below, by the main thread
            outcome.append(error)
        finally:
            ending.wake()

    # In a thread, so that a stop need not wait for a request that hangs.
    worker = threading.Thread(target=one_pass, name="pass", daemon=True)
    worker.start()
    while not outcome and not ending.stop.is_set():
        ending.wait(60)
    worker.join(GRACE_S)
    if not outcome:
        tell(PassInterrupted(hint="run it again: it goes on from what the store holds"))
        return 1
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    finished = outcome[0]
    if finished.left:
        tell(PassInterrupted(left=finished.left, hint="run it again: it goes on from what the store holds"))
    elif not dry_run:
        counted = dataclasses.asdict(finished)
        del counted["left"]
        tell(PassFinished(**counted, seconds=time.monotonic() - began, store=store.name))
    return 1 if finished.failed or finished.left else 0


def _owned(state_dir: str, tell: Tell) -> str:
    """Give the directory of the state: this one, made ours, or one beside it where another user has the name."""
    above, name = os.path.split(state_dir.rstrip("/"))
    try:
        with opened_directory(above, "") as directory:
            owned = own_directory(directory, name)
    except OSError:
        return state_dir  # not there yet, or not to be written: the ledger tells
    for taken, uid in owned.moved_aside:
        tell(NameTaken(path=f"{above}/{taken}", uid=uid, hint=_NAME_TAKEN))
    return f"{above}/{owned.name}"


def _as_mounted(root: str) -> str:
    """Give `root` as the mount table names it; of the last part nothing is asked, since the volume may hang."""
    return os.path.join(os.path.realpath(os.path.dirname(root)), os.path.basename(root))


def _bar(dump: DumpFile) -> AbstractContextManager[Progress]:
    return progress.bar(printable(os.path.basename(dump.relpath)), dump.size_bytes)
