"""`dumpagent upload`: brings finished dumps to S3, as a daemon or in one pass."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import socket
import sys
import threading
import time
from contextlib import AbstractContextManager

import click

from dumpagent import __version__
from dumpagent.cli.greeting import Greeting, Unanswered
from dumpagent.cli.options import takes
from dumpagent.cli.signals import Ending
from dumpagent.cli.status import open_status
from dumpagent.cli.store import open_store
from dumpagent.errors import BadSettings, Unreachable
from dumpagent.kernel.files import replace_file
from dumpagent.model import DumpFile
from dumpagent.observe import events as ev
from dumpagent.observe import progress
from dumpagent.observe.events import Event, Tell
from dumpagent.observe.heartbeat import Health, Heartbeat, Pulse
from dumpagent.observe.log import log_to, tell_all
from dumpagent.observe.trouble import Trouble
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
from dumpagent.upload.claim import claim
from dumpagent.upload.judge import CompletenessJudge
from dumpagent.upload.ledger import AnotherAgent, Ledger
from dumpagent.upload.loop import Pass, UploadLoop
from dumpagent.upload.parts import Progress
from dumpagent.upload.retention import Retention, settle_all, space_of
from dumpagent.upload.send import Brought, Sender
from dumpagent.upload.watch import Woken, open_watch

_GRACE_S = 3.0  # a pod is killed after its grace period; what is under way then goes on at the next start
_LOCK_RETRY_S = 5.0
_LEAST_RECHECK_S = 0.05
_UNANSWERED_S = 120.0  # the SDK's own tries end before, where anything answers at all
_BEAT_EVERY_S = 10.0
# A scan of a big volume with a fifth of a core, or one that waits for a network file system, is no dead daemon yet.
_BEAT_BELIEVED_S = 120.0


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
    if not state_dir.startswith("/"):
        raise BadSettings(
            f"STATE_DIR is {state_dir!r}; accepted: an absolute path",
            hint="set it to an absolute path, or leave it empty",
        )
    host = socket.gethostname()
    place = dataclasses.replace(place, node_name=place.node_name or host, pod_name=place.pod_name or host)
    as_daemon = not (once or dry_run)
    audience = Audience(log_to(None, logging))
    tell: Tell = audience
    ending = Ending()
    store = open_store(s3, tell=tell, stop=ending.stop, remembered_in=f"{state_dir}/store.json")
    state = Trouble(tell, ev.STATE_UNWRITABLE, ev.STATE_WRITABLE)
    ledger = Ledger(
        state_dir,
        store=store.name,
        unwritable=lambda error: state.failed(
            "state", error.strerror or str(error), path=error.filename or state_dir
        ),
        writable=lambda: state.ended_for("state", path=state_dir),
    )
    loop = UploadLoop(
        root=root,
        store=store,
        ledger=ledger,
        sender=Sender(
            store,
            ledger,
            place,
            prefix=s3.prefix,
            packed=compressing.compression == "gzip",
            stop=ending.stop,
        ),
        judge=CompletenessJudge(quiet_s=watching.file_stable_time_s),
        tell=tell,
        stop=ending.stop,
        retention_days=remembering.state_retention_days,
        retention=None if dry_run else Retention(keeping, root=root, store=store, ledger=ledger, tell=tell),
        claim=claim if watching.claim and not dry_run else None,
        progress=_bar,
    )
    with ending:
        if not as_daemon:
            code = _once(loop, ledger, store, tell, ending, dry_run=dry_run)
        else:
            pulse = Pulse(
                Heartbeat(runtime.runtime_dir, "upload", _as_mounted(root)), tell, good_for_s=_BEAT_BELIEVED_S
            )
            if metrics.metrics_port:
                _serve_metrics(metrics, loop, pulse, audience, ending)
            if notifying.notify_url:
                _notify(
                    notifying,
                    audience,
                    ending,
                    root=root,
                    outbox=f"{state_dir}/outbox",
                    node=place.node_name,
                    s3=s3,
                )
            code = _daemon(loop, ledger, tell, ending, watching, asking, s3, place, root, pulse)
    if ending.stop.is_set():
        # A part that hangs on the network must not hold the end up; nothing that it could still do counts.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _once(
    loop: UploadLoop, ledger: Ledger, store: Store, tell: Tell, ending: Ending, *, dry_run: bool
) -> int:
    began = time.monotonic()
    outcome: list[Pass | BaseException] = []

    def one_pass() -> None:
        try:
            with contextlib.suppress(LookRefused):  # may write, but not list: the first dump will tell
                store.check()
            ledger.load()
            if not dry_run:
                ledger.lock()
                settle_all(loop.root, ledger.directory)
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
    worker.join(_GRACE_S)
    if not outcome:
        tell(ev.PASS_INTERRUPTED, hint="run it again: it goes on from what the store holds")
        return 1
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    finished = outcome[0]
    if finished.left:
        tell(
            ev.PASS_INTERRUPTED, left=finished.left, hint="run it again: it goes on from what the store holds"
        )
    elif not dry_run:
        counted = dataclasses.asdict(finished)
        del counted["left"]
        tell(ev.PASS_FINISHED, **counted, seconds=time.monotonic() - began, store=store.name)
    ledger.close()
    return 1 if finished.failed or finished.left else 0


def _daemon(
    loop: UploadLoop,
    ledger: Ledger,
    tell: Tell,
    ending: Ending,
    watching: Watching,
    asking: Asking,
    s3: S3,
    place: Place,
    root: str,
    pulse: Pulse,
) -> int:
    pulse.begin()
    tell(
        ev.AGENT_STARTED,
        mode="upload",
        version=__version__,
        path=root,
        bucket=s3.bucket,
        prefix=s3.prefix or None,
        endpoint=s3.endpoint_url or "AWS",
        node=place.node_name,
        scan_every_seconds=watching.watch_interval_s,
    )
    ledger.load()
    other = Trouble(tell, ev.OTHER_AGENT_FOUND, ev.OTHER_AGENT_GONE)
    while not ending.stop.is_set():
        try:
            ledger.lock()
            settle_all(loop.root, ledger.directory)
            break
        except AnotherAgent as error:
            other.failed("lock", str(error), hint=error.hint)
            pulse.beat(Health.NOT_READY, str(error))
            ending.wait(_LOCK_RETRY_S)
    other.ended_for("lock")
    greeting, greeted_at = Greeting(s3), time.monotonic()
    next_greeting = greeted_at + asking.store_check_interval_s
    bringer = Bringer(loop, ending)
    bringer.start()
    watch = open_watch(root, tell=tell, skip=frozenset({ledger.directory}))
    next_scan, woken = 0.0, Woken()
    while not ending.stop.is_set():
        if woken.everything or time.monotonic() >= next_scan:
            next_scan = time.monotonic() + watching.watch_interval_s
            if watch:
                watch.cover()  # before the scan: what is finished between the two is seen by one of them
            recheck_s = loop.look()
            _measure_space(root, tell)
        elif woken.relpaths:
            recheck_s = loop.look_at(woken.relpaths)
        else:
            recheck_s = loop.look_again()
        wait_s = next_scan - time.monotonic()
        if recheck_s is not None:
            wait_s = min(wait_s, max(recheck_s, _LEAST_RECHECK_S))
        bringer.raise_if_dead()
        if trouble := loop.root_trouble:
            pulse.beat(Health.NOT_READY, f"{root} cannot be looked at: {trouble}")
        else:
            pulse.beat(Health.READY, "finished dumps are brought to the store")
        wait_s = min(wait_s, _BEAT_EVERY_S)
        heard = [each for each in (greeting.fd, watch.fileno() if watch else None) if each is not None]
        ready = ending.wait(wait_s, also=heard)
        woken = watch.read() if watch and watch.fileno() in ready else Woken()
        if greeting.fd in ready:
            with contextlib.suppress(Unanswered):
                loop.note_store(greeting.hear())
        if time.monotonic() >= next_greeting and greeting.fd is None:
            # A store that nobody needs just now must not be found broken by the next dump.
            greeting, greeted_at = Greeting(s3), time.monotonic()
            next_greeting = greeted_at + asking.store_check_interval_s
        elif greeting.fd is not None and time.monotonic() - greeted_at >= _UNANSWERED_S:
            greeting.close()
            hint = "check S3_ENDPOINT_URL and network policies; see whether the store itself answers"
            loop.note_store(Unreachable(f"no answer from {s3.bucket} for {_UNANSWERED_S:g} s", hint=hint))
    if watch:
        watch.close()
    loop.backlog.wake()
    greeting.close()
    bringer.join(_GRACE_S)
    pulse.stop()
    counts = loop.counts
    tell(ev.AGENT_STOPPED, mode="upload", pending=counts.pending, uploaded=counts.uploaded)
    return 0


class Bringer(threading.Thread):
    """Brings dumps to the store, one after the other, until the end. However long one takes, the main loop turns."""

    def __init__(self, loop: UploadLoop, ending: Ending) -> None:
        super().__init__(name="bring", daemon=True)
        self._loop, self._ending = loop, ending
        self._died_of: BaseException | None = None

    def run(self) -> None:
        """Bring until a stop. What nobody foresaw ends the daemon, not its uploads alone."""
        try:
            while not self._ending.stop.is_set():
                brought = self._loop.bring_next(timeout_s=1.0)
                if brought is None or isinstance(brought, Brought):
                    self._loop.reclaim()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self._died_of = error
            self._ending.wake()

    def raise_if_dead(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._died_of is not None:
            raise self._died_of


class Audience:
    """Everybody who is told of events; more can join while the daemon is put together."""

    def __init__(self, *listeners: Tell) -> None:
        self._tell = tell_all(*listeners)

    def join(self, listener: Tell) -> None:
        """Tell `listener` too from now on."""
        self._tell = tell_all(self._tell, listener)

    def __call__(self, event: Event, /, **fields: object) -> None:
        self._tell(event, **fields)


def _serve_metrics(
    settings: Metrics, loop: UploadLoop, pulse: Pulse, audience: Audience, ending: Ending
) -> None:
    from dumpagent.observe.metrics import DumpCounts, UploadMetrics  # 4 MiB, for those who ask

    def counts() -> DumpCounts:
        now = loop.counts
        waiting = {
            "writing": now.writing,
            "queued": now.queued,
            "sending": now.sending,
            "retrying": now.retrying,
        }
        return DumpCounts(now.seen, now.uploaded, now.failed, now.pending, now.oldest_pending_s, waiting)

    counted = UploadMetrics(counts)
    counted.add_process()
    audience.join(counted)
    server = open_status(
        settings,
        metrics=counted.page,
        why_not_live=pulse.why_not_live,
        why_not_ready=pulse.why_not_ready,
        tell=audience,
    )
    threading.Thread(target=server.serve, args=(ending.stop.is_set,), name="status", daemon=True).start()


def _notify(
    settings: Notifying,
    audience: Audience,
    ending: Ending,
    *,
    root: str,
    outbox: str,
    node: str,
    s3: S3,
) -> None:
    from dumpagent.observe.notify import Notifier, webhook

    notifier = Notifier(
        settings,
        outbox=outbox,
        node=node,
        root=root,
        bucket=s3.bucket,
        tell=audience,
        post=webhook(settings.notify_url),
        save=functools.partial(replace_file, mode=0o600),
    )
    audience.join(notifier)
    notifier.start(ending.stop.is_set)


def _measure_space(root: str, tell: Tell) -> None:
    try:
        space = space_of(root)
    except OSError:
        return  # the scan tells what is wrong with it
    tell(
        ev.SPACE_MEASURED,
        path=root,
        free_bytes=space.free_bytes,
        size_bytes=space.total_bytes,
    )


def _as_mounted(root: str) -> str:
    """Give `root` as the mount table names it; of the last part nothing is asked, since the volume may hang."""
    return os.path.join(os.path.realpath(os.path.dirname(root)), os.path.basename(root))


def _bar(dump: DumpFile) -> AbstractContextManager[Progress]:
    return progress.bar(os.fsencode(os.path.basename(dump.relpath)).decode(errors="replace"), dump.size_bytes)
