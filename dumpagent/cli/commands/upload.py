"""`dumpagent upload`: uploads finished dumps to S3, as a daemon or in one pass."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NoReturn

import click

from dumpagent import __version__
from dumpagent.cli.listeners import (
    Audience,
    SummaryPlan,
    notify,
    serve_metrics,
    summarise,
    summarise_pass,
    tell_pods,
    upload_metrics,
)
from dumpagent.cli.options import require_directory, takes
from dumpagent.cli.store import open_store
from dumpagent.dumps.model import DumpFile
from dumpagent.dumps.owner import use_owner_pattern
from dumpagent.dumps.text import printable
from dumpagent.errors import DumpagentError
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import AgentStarted, AgentStopped
from dumpagent.observe.events.dumps import PassFinished, PassInterrupted
from dumpagent.observe.libraries import hear_libraries
from dumpagent.observe.log import log_to
from dumpagent.probes.heartbeat import Heartbeat, Pulse
from dumpagent.settings import (
    S3,
    BesideDumps,
    Compressing,
    Draining,
    Keeping,
    Logging,
    Metrics,
    Notifying,
    Place,
    Remembering,
    Replica,
    Runtime,
    Sending,
    StoreChecking,
    Summarising,
    Volume,
    Watching,
)
from dumpagent.store.pace import Pace
from dumpagent.store.protocol import LookRefused
from dumpagent.store.s3.store import S3Store
from dumpagent.terminal import progress
from dumpagent.upload.build import Second, UploadPlan, build_ledger, build_loop, owned_state_dir
from dumpagent.upload.daemon import GRACE_S, Daemon
from dumpagent.upload.keeping.deletion import restore_hidden
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import Pass, UploadLoop
from dumpagent.upload.replica.told import as_replica
from dumpagent.upload.transfer.multipart import Progress

if TYPE_CHECKING:
    from dumpagent.notify.message import Sender

# A scan of a big volume with a fifth of a core, or one that waits for a network file system, is no dead daemon yet.
_BEAT_BELIEVED_S = 120.0


@click.command("upload", short_help="Upload finished heap dumps to S3.")
@takes(
    Volume,
    Watching,
    Draining,
    S3,
    Replica,
    StoreChecking,
    Compressing,
    Sending,
    Remembering,
    Keeping,
    BesideDumps,
    Place,
    Runtime,
    Metrics,
    Notifying,
    Summarising,
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
    draining: Draining,
    s3: S3,
    replica: Replica,
    store_checking: StoreChecking,
    compressing: Compressing,
    sending: Sending,
    remembering: Remembering,
    keeping: Keeping,
    beside: BesideDumps,
    place: Place,
    runtime: Runtime,
    metrics: Metrics,
    notifying: Notifying,
    summarising: Summarising,
    logging: Logging,
    once: bool,
    dry_run: bool,
) -> None:
    """Find finished heap dumps below DUMP_ROOT and upload them to an S3 bucket.

    Runs until SIGTERM or Ctrl-C, or for one pass with --once. What a stop cuts off goes on at the next start.

    Credentials, region, CA and proxies are the AWS SDK's own: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,
    AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE, AWS_DEFAULT_REGION, AWS_CA_BUNDLE, HTTPS_PROXY.

    With S3_REPLICA_BUCKET every dump goes to that bucket too, after the first one, and leaves the volume once both hold
    it.
    """
    use_owner_pattern(place.owner_pattern)
    root = volume.dump_root.rstrip("/") or "/"
    state_dir = remembering.state_dir or f"{root}/.dumpagent"
    if once or dry_run:
        require_directory(root, "DUMP_ROOT")
    host = socket.gethostname()
    place = dataclasses.replace(place, node_name=place.node_name or host, pod_name=place.pod_name or host)
    audience = Audience(log_to(None, logging))
    hear_libraries(audience)
    shutdown = Shutdown()
    state_dir = state_dir if dry_run else owned_state_dir(state_dir, audience)
    plan = UploadPlan(
        root=root, prefix=s3.prefix, place=place, watching=watching, compressing=compressing, remembering=remembering,
        keeping=keeping, beside=beside, dry_run=dry_run,
    )  # fmt: skip
    built = _build(plan, s3, replica, Pace(sending.bandwidth_limit), state_dir, audience, shutdown)
    store, ledger, loop = built.store, built.ledger, built.loop
    about = SummaryPlan(summarising, keeping, audience, shutdown, store, loop, ledger, s3.prefix)
    with shutdown:
        if once or dry_run:
            then = summarise_pass(about)
            code = _run_once(loop, ledger, store, audience, shutdown, dry_run=dry_run)
            then()
        else:
            heartbeat = Heartbeat(runtime.runtime_dir, "upload", _as_mounted(root))
            pulse = Pulse(heartbeat, audience, good_for_s=_BEAT_BELIEVED_S)
            _start_listeners(plan, metrics, notifying, s3, store, loop, ledger, pulse, audience, shutdown)
            summarise(about)
            pulse.begin()
            audience(_started(plan, s3, replica))
            Daemon(
                loop,
                ledger,
                s3=s3,
                warm_up=store.warm_up,
                watching=watching,
                store_checking=store_checking,
                pulse=pulse,
                tell=audience,
                shutdown=shutdown,
                shutdown_wait_s=draining.shutdown_wait_s,
                replica=replica,
            ).run()
            audience(AgentStopped(mode="upload", pending=loop.counts.pending, uploaded=loop.counts.uploaded))
            code = 0
    _exit(code, now=shutdown.stop.is_set())


@dataclasses.dataclass(frozen=True)
class _Built:
    """What one uploader is made of."""

    store: S3Store
    ledger: Ledger
    loop: UploadLoop


def _build(
    plan: UploadPlan,
    s3: S3,
    replica: Replica,
    pace: Pace,
    state_dir: str,
    tell: Tell,
    shutdown: Shutdown,
) -> _Built:
    """Put the uploader together; `pace` limits what goes to both stores together."""
    remembered_in = None if plan.dry_run else f"{state_dir}/store.json"
    store = open_store(s3, tell=tell, stop=shutdown.stop, remembered_in=remembered_in, pace=pace)
    ledger = build_ledger(state_dir, store=store, read_only=plan.dry_run, tell=tell)
    second = None
    if replica.bucket:
        second = _second(replica, ledger, pace, tell, shutdown, dry_run=plan.dry_run)
    loop = build_loop(
        plan,
        store=store,
        ledger=ledger,
        tell=tell,
        stop=shutdown.stop,
        progress=_progress_bar,
        second=second,
    )
    return _Built(store, ledger, loop)


def _second(
    replica: Replica, first: Ledger, pace: Pace, tell: Tell, shutdown: Shutdown, *, dry_run: bool
) -> Second:
    """Give the replica's store with its receipts, which lie beside those of the first destination."""
    directory = f"{first.directory}/replica"
    store = open_store(
        replica.s3,
        tell=as_replica(tell),
        stop=shutdown.stop,
        remembered_in=None if dry_run else f"{directory}/store.json",
        access=replica.access,
        pace=pace,
    )
    ledger = build_ledger(directory, store=store, read_only=dry_run, tell=tell)
    return Second(store=store, ledger=ledger, prefix=replica.prefix)


def _exit(code: int, *, now: bool) -> NoReturn:
    """Exit; `now`: without waiting for a part that hangs on the network, since nothing that it could still do counts."""
    if now:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _start_listeners(
    plan: UploadPlan,
    metrics: Metrics,
    notifying: Notifying,
    s3: S3,
    store: S3Store,
    loop: UploadLoop,
    ledger: Ledger,
    pulse: Pulse,
    audience: Audience,
    shutdown: Shutdown,
) -> None:
    if metrics.metrics_port:
        serve_metrics(
            metrics,
            upload_metrics(loop, audience),
            pulse=pulse,
            audience=audience,
            shutdown=shutdown,
            barrier=loop.barrier,
        )
    if notifying.notify_url:
        notify(
            notifying,
            audience,
            shutdown,
            sender=_sender(plan, s3),
            outbox=f"{ledger.directory}/outbox",
            owned=ledger.is_owned,
            barrier=loop.barrier,
            link=store.link,
        )
    if notifying.pod_events:
        tell_pods(audience, shutdown, root=plan.root, place=plan.place, barrier=loop.barrier)


def _sender(plan: UploadPlan, s3: S3) -> Sender:
    from dumpagent.notify.commands import StoreAddress
    from dumpagent.notify.message import Sender

    address = StoreAddress(s3.bucket, s3.prefix, s3.endpoint_url)
    return Sender(plan.place.node_name, plan.place.cluster_name, plan.root, address)


def _started(plan: UploadPlan, s3: S3, replica: Replica) -> AgentStarted:
    return AgentStarted(
        mode="upload",
        version=__version__,
        node=plan.place.node_name,
        settings={
            "path": plan.root,
            "bucket": s3.bucket,
            "prefix": s3.prefix or None,
            "endpoint": s3.endpoint_url or "AWS",
            **({"replica": f"{replica.bucket} at {replica.endpoint_url or 'AWS'}"} if replica.bucket else {}),
            "scan_every_seconds": plan.watching.watch_interval_s,
        },
    )


def _run_once(
    loop: UploadLoop, ledger: Ledger, store: S3Store, tell: Tell, shutdown: Shutdown, *, dry_run: bool
) -> int:
    began = time.monotonic()
    outcome: list[Pass | BaseException] = []

    def one_pass() -> None:
        try:
            with contextlib.suppress(LookRefused):  # may write, but not list: the first dump will tell
                store.check()
            with ledger.owned(), loop.replica.ledger.owned() if loop.replica else contextlib.nullcontext():
                if not dry_run:
                    with contextlib.suppress(DumpagentError):  # the first dump will tell
                        store.get_to_know()
                    restore_hidden(loop.root, ledger.directory, barrier=loop.barrier)
                outcome.append(loop.run_once(dry_run=dry_run))
        except BaseException as error:  # noqa: BLE001 - raised again below, by the main thread
            outcome.append(error)
        finally:
            shutdown.wake()

    # In a thread, so that a stop need not wait for a request that hangs.
    worker = threading.Thread(target=one_pass, name="pass", daemon=True)
    worker.start()
    while not outcome and not shutdown.stop.is_set():
        shutdown.wait(60)
    worker.join(GRACE_S)
    if not outcome:
        tell(PassInterrupted(hint="run it again: it goes on from what the store holds"))
        return 1
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    finished = outcome[0]
    seconds = time.monotonic() - began
    code = _told(finished, tell, store.name, seconds, dry_run=dry_run)
    if finished.replica and loop.replica:
        of_replica = _told(
            finished.replica, loop.replica.told, loop.replica.store.name, seconds, dry_run=dry_run
        )
        return code or of_replica
    return code


def _told(finished: Pass, tell: Tell, store: str, seconds: float, *, dry_run: bool) -> int:
    """Tell what one destination's pass did, and give the exit code for it."""
    if finished.left:
        tell(PassInterrupted(left=finished.left, hint="run it again: it goes on from what the store holds"))
    elif not dry_run:
        tell(
            PassFinished(
                uploaded=finished.uploaded,
                already_stored=finished.already_stored,
                waiting=finished.waiting,
                failed=finished.failed,
                seconds=seconds,
                store=store,
            )
        )
    return 1 if finished.failed or finished.left else 0


def _as_mounted(root: str) -> str:
    """Give `root` as the mount table names it; of the last part nothing is asked, since the volume may hang."""
    return os.path.join(os.path.realpath(os.path.dirname(root)), os.path.basename(root))


def _progress_bar(dump: DumpFile) -> AbstractContextManager[Progress]:
    return progress.bar(printable(os.path.basename(dump.relpath)), dump.size_bytes)
