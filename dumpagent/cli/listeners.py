"""Lets the metrics page, the webhook and the pods hear what a daemon tells."""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dumpagent.kernel.cgroup import memory_limit_bytes
from dumpagent.kernel.files import replace_file
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.observe.barrier import Barrier, repeat
from dumpagent.observe.events import Event, Tell
from dumpagent.observe.events.dumps import SummarySkipped
from dumpagent.observe.log import tell_all
from dumpagent.probes.heartbeat import Pulse
from dumpagent.settings import Keeping, Metrics, Notifying, Place, Summarising
from dumpagent.store.protocol import Link, Store
from dumpagent.upload.entry import Counts
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.replica.replica import ReplicaUploads

if TYPE_CHECKING:
    from dumpagent.notify.message import Sender
    from dumpagent.observe.metrics.daemon import DaemonMetrics
    from dumpagent.upload.summaries import Summaries

_SUMMARY_LEAST_BYTES = 192 << 20
_PASS_SUMMARIES = 5  # as many budgets of time the summaries of one pass may take
_NO_MEMORY = "SUMMARY is off here: the container has {} MiB of memory, and summaries are made from 192 MiB on"


class Audience:
    """Everybody who is told of events; more can join while the daemon is put together."""

    def __init__(self, *listeners: Tell) -> None:
        self._tell = tell_all(*listeners)

    def join(self, listener: Tell) -> None:
        """Tell `listener` too from now on."""
        self._tell = tell_all(self._tell, listener)

    def __call__(self, event: Event, /) -> None:
        self._tell(event)


def serve_metrics(
    settings: Metrics,
    counted: DaemonMetrics,
    *,
    pulse: Pulse,
    audience: Audience,
    shutdown: Shutdown,
    barrier: Barrier,
) -> None:
    """Count what is told from now on, and show it on METRICS_PORT. Raises BadSettings when the port is taken."""
    from dumpagent.cli.status import open_status  # prometheus-client loads ssl: 4 MiB, for those who ask

    counted.add_process()
    audience.join(counted)
    server = open_status(
        settings,
        metrics=counted.text,
        why_not_live=pulse.why_not_live,
        why_not_ready=pulse.why_not_ready,
        tell=audience,
    )
    stopped = shutdown.stop.is_set
    repeat("status", lambda: server.serve(stopped), stopped=stopped, barrier=barrier)


def upload_metrics(loop: UploadLoop, audience: Audience) -> DaemonMetrics:
    """Give the counts of upload mode, with those of the replica where there is one."""
    from dumpagent.observe.metrics.upload import DumpCounts, FileCounts, UploadMetrics

    def counts() -> DumpCounts:
        now = loop.counts
        waiting = {
            "writing": now.writing,
            "queued": now.queued,
            "sending": now.sending,
            "retrying": now.retrying,
        }
        beside = loop.companions.counts if loop.companions else Counts()
        return DumpCounts(
            now.seen, now.uploaded, now.failed, now.pending, now.oldest_pending_s, waiting,
            FileCounts(beside.seen, beside.uploaded, beside.failed, beside.pending),
        )  # fmt: skip

    counted = UploadMetrics(counts)
    if loop.replica:
        _count_replica(loop.replica, counted, audience)
    return counted


def _count_replica(replica: ReplicaUploads, counted: DaemonMetrics, audience: Audience) -> None:
    from dumpagent.observe.metrics.replica import ReplicaCounts, ReplicaMetrics, TableCounts

    def table(counts: Counts) -> TableCounts:
        return TableCounts(
            counts.seen, counts.uploaded, counts.failed, counts.pending, counts.oldest_pending_s
        )

    audience.join(
        ReplicaMetrics(
            counted.registry,
            lambda: ReplicaCounts(table(replica.counts), table(replica.companion_counts)),
        )
    )


def notify(
    settings: Notifying,
    audience: Audience,
    shutdown: Shutdown,
    *,
    sender: Sender,
    outbox: str,
    owned: threading.Event,
    barrier: Barrier,
    link: Callable[..., Link] | None = None,
) -> None:
    """Send what is told from now on to NOTIFY_URL; what could not be sent waits in `outbox` over restarts.

    `link` makes the link to an object that holds for so long, where PRESIGN_FOR asks for it.
    """
    from dumpagent.notify.formats import content_type_of
    from dumpagent.notify.webhook import Notifier, webhook

    make_link = None
    if link and settings.presign_for_s and sender.address.leads_there_from_anywhere:
        make_link = functools.partial(link, for_s=settings.presign_for_s)
    notifier = Notifier(
        settings,
        outbox=outbox,
        sender=sender,
        tell=audience,
        post=webhook(settings.notify_url, content_type_of(settings.notify_format)),
        save=functools.partial(replace_file, mode=0o600),
        link=make_link,
    )
    audience.join(notifier)
    notifier.start(shutdown.stop.is_set, owned=owned, barrier=barrier)


def tell_pods(audience: Audience, shutdown: Shutdown, *, root: str, place: Place, barrier: Barrier) -> None:
    """Put an Event on the pod of each dump that is stored from now on. Raises BadSettings outside a cluster."""
    from dumpagent.notify.api_server import ApiServer, address_of
    from dumpagent.notify.pod_events import PodEvents

    events = PodEvents(
        ApiServer(address_of(os.environ)).ask,
        root=root,
        node=place.node_name,
        agent=place.pod_name,
        tell=audience,
    )
    audience.join(events)
    events.start(shutdown.stop.is_set, barrier=barrier)


@dataclass(frozen=True, slots=True)
class SummaryPlan:
    """How stored dumps are summarised, and everybody who has to do with it. `prefix` is S3_PREFIX."""

    settings: Summarising
    keeping: Keeping
    audience: Audience
    shutdown: Shutdown
    store: Store
    loop: UploadLoop
    ledger: Ledger
    prefix: str


def summarise(plan: SummaryPlan) -> None:
    """Have each dump that is stored from now on summarised, in a thread of its own, where there is memory for it."""
    summaries = _summaries(plan)
    if summaries is None:
        return
    loaded = False

    def step() -> None:
        nonlocal loaded
        if not loaded:
            if not plan.ledger.is_owned.wait(1.0):
                return
            summaries.load()
            loaded = True
        summaries.step()

    try:
        repeat("summary", step, stopped=plan.shutdown.stop.is_set, barrier=plan.loop.barrier)
    except RuntimeError as error:  # the pod's pids limit: dumps go to the store without
        plan.audience(SummarySkipped(path=plan.loop.root, reason=f"SUMMARY is off: {error}"))
        return
    plan.loop.summarise_by(summaries.add)


def summarise_pass(plan: SummaryPlan) -> Callable[[], None]:
    """Have what one pass stores noted; give what makes the summaries after it, within as much time as 5 may take."""
    summaries = _summaries(plan) if plan.settings.summary == "always" else None
    if summaries is None:
        return lambda: None
    plan.loop.summarise_by(summaries.add)

    def finish() -> None:
        until = time.monotonic() + _PASS_SUMMARIES * plan.settings.summary_budget_s
        summaries.finish(lambda: time.monotonic() >= until)

    return finish


def _summaries(plan: SummaryPlan) -> Summaries | None:
    from dumpagent.summary.process import SummaryProcess
    from dumpagent.upload.summaries import Summaries

    if plan.settings.summary == "off":
        return None
    limit = memory_limit_bytes()
    if limit is not None and limit < _SUMMARY_LEAST_BYTES:
        plan.audience(SummarySkipped(path=plan.loop.root, reason=_NO_MEMORY.format(limit >> 20)))
        return None
    return Summaries(
        plan.store,
        root=plan.loop.root,
        directory=f"{plan.ledger.directory}/summaries",
        begin=lambda opened, size_bytes: SummaryProcess(
            opened.fd, size_bytes=size_bytes, budget_s=plan.settings.summary_budget_s
        ),
        precedence=plan.loop.precedence,
        tell=plan.audience,
        stop=plan.shutdown.stop,
        least_free=plan.keeping.local_min_free_percent / 100,
        prefix=plan.prefix,
    )
