"""`dumpagent trigger`: asks a running JVM for a heap dump."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import Any

import click

from dumpagent.cli.options import takes
from dumpagent.dumps.text import printable, size_text
from dumpagent.errors import BadSettings, DumpagentError, Refused
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.observe.events import Tell
from dumpagent.observe.events.trigger import DumpRequestFailed, HeapDumpRequested, RequestedDumpWritten
from dumpagent.observe.log import log_to
from dumpagent.settings import Logging, Place, Runtime, Triggering, Volume
from dumpagent.trigger import request
from dumpagent.trigger.limits import LeastInterval, one_at_a_time
from dumpagent.trigger.place import PodDirectory
from dumpagent.trigger.pod import UID, uid_of
from dumpagent.trigger.processes import HeldProcess, Jvm, held

# Source: Kubernetes, "Object Names and IDs".
_POD = re.compile(
    r"(?P<namespace>[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)/(?P<name>[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)"
)


@click.command("trigger", short_help="Ask a running JVM of a pod on this node for a heap dump.")
@click.argument("pod", metavar="[NAMESPACE/POD]", required=False)
@takes(Triggering, Volume, Runtime, Place, Logging, without=("pod_name", "pod_namespace", "cluster_name"))
@click.option(
    "--pod-uid", metavar="UID", help="The pod's metadata.uid, where no API server can be asked for it."
)
@click.option(
    "--pid", type=int, help="Which process of the pod, by its number on the node, if it has several JVMs."
)
@click.option(
    "--all", "every", is_flag=True, help="Dump unreachable objects too: larger, but no collection before."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--stand-by", is_flag=True, help="Do nothing until SIGTERM: the pod that requests are made in.")
def command(
    triggering: Triggering,
    volume: Volume,
    runtime: Runtime,
    place: Place,
    logging: Logging,
    pod: str | None,
    pod_uid: str | None,
    pid: int | None,
    every: bool,
    yes: bool,
    stand_by: bool,
) -> None:
    """Ask a running JVM of NAMESPACE/POD for a heap dump, into the pod's own directory on the dump volume.

    Says before how large the dump and how long the pause will be, as estimates, and asks for confirmation. Refuses where
    the volume has no room for two such dumps, while another request is under way on this node, and where the pod was
    asked less than TRIGGER_INTERVAL ago. The uploader stores the dump like any other.

    Needs hostPID and the capabilities SYS_PTRACE, SETUID and SETGID: see manifests/trigger. HotSpot JVMs only.
    """
    if stand_by:
        _stand_by()
        return
    found = _POD.fullmatch(pod or "")
    if not found:
        raise BadSettings(
            f"{pod!r} is not accepted; accepted: NAMESPACE/POD" if pod else "no pod was named",
            hint="name the pod as in `dumpagent trigger shop/orders-7d4b9c-x2x8z`",
        )
    if pod_uid is not None and not UID.fullmatch(pod_uid):
        raise BadSettings(
            f"--pod-uid is {pod_uid!r}; accepted: a pod's metadata.uid",
            hint="`kubectl get pod NAME -o jsonpath={.metadata.uid}` gives it",
        )
    root = volume.dump_root.rstrip("/") or "/"
    directory = PodDirectory(root, found["namespace"], found["name"])
    uid = pod_uid or _uid_of(directory, place.node_name)
    with one_at_a_time(runtime.runtime_dir):
        interval = LeastInterval(runtime.runtime_dir, triggering.least_interval_s)
        interval.require(uid)
        with held(_chosen(request.find(uid), directory, pid)) as process:
            prospect = request.look(process, directory)
            _say(process, directory, prospect)
            request.require_room(prospect)
            _confirm(yes)
            interval.note(uid)
            _ask(
                process,
                directory,
                prospect,
                live=not every,
                timeout_s=triggering.timeout_s,
                tell=log_to(None, logging),
            )


def _stand_by() -> None:
    shutdown = Shutdown()
    with shutdown:
        while not shutdown.stop.is_set():
            shutdown.wait(3600.0)


def _uid_of(directory: PodDirectory, node: str) -> str:
    """Ask the API server for the pod's uid. Raises Refused, Unreachable."""
    from dumpagent.notify.api_server import ACCOUNT, ApiServer, address_of

    if not os.environ.get("KUBERNETES_SERVICE_HOST") or not os.path.exists(f"{ACCOUNT}/token"):
        raise Refused(
            "the pod's uid is not known here: no token of a service account",
            hint="name it: --pod-uid $(kubectl get pod NAME -o jsonpath={.metadata.uid})",
        )
    return uid_of(ApiServer(address_of(os.environ)).ask, directory.namespace, directory.pod, node)


def _chosen(found: list[Jvm], directory: PodDirectory, pid: int | None) -> Jvm:
    """Choose the one JVM. Raises Refused with the list where there are several, or none."""
    if pid is not None:
        found = [jvm for jvm in found if jvm.pid == pid]
    if not found:
        raise Refused(
            f"{directory.namespace}/{directory.pod} has no {'such ' if pid else ''}HotSpot JVM on this node",
            hint="is it its node, and is its JVM started? This needs hostPID",
        )
    if len(found) > 1:
        lines = "".join(
            f"\n  --pid {jvm.pid}: {jvm.command}, {size_text(jvm.resident_bytes)}, container {jvm.container[:12]}"
            for jvm in found
        )
        raise Refused(f"the pod has {len(found)} JVMs:{lines}", hint="name one of them with --pid")
    return found[0]


def _say(process: HeldProcess, directory: PodDirectory, prospect: request.Prospect) -> None:
    cost, jvm = prospect.estimate, process.jvm
    whose = "used heap" if prospect.told else "memory of the process, its heap is not told"
    click.echo(
        f"{directory.namespace}/{directory.pod}: {printable(prospect.version)}, process {jvm.pid}, user {jvm.uid}\n"
        f"  {size_text(cost.used_bytes)} {whose}; the dump may take up to {size_text(cost.dump_bytes)} (estimate), "
        f"the volume has {size_text(prospect.free_bytes)} free\n"
        f"  the application stands still for {cost.shortest_pause_s:.1f} to {cost.longest_pause_s:.0f} s (estimate), "
        "longer where its CPU is limited"
    )


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(
            "nobody can be asked for confirmation: this is no terminal", hint="use --yes, or `oc exec -it`"
        )
    click.confirm("Ask for the dump?", abort=True)


def _ask(
    process: HeldProcess,
    directory: PodDirectory,
    prospect: request.Prospect,
    *,
    live: bool,
    timeout_s: float,
    tell: Tell,
) -> None:
    path, begun = directory.new_dump(), time.monotonic()
    of: dict[str, Any] = {
        "namespace": directory.namespace,
        "pod": directory.pod,
        "pid": process.jvm.pid,
        "path": path,
    }
    tell(
        HeapDumpRequested(
            **of,
            live=live,
            used_bytes=prospect.estimate.used_bytes,
            dump_bytes=prospect.estimate.dump_bytes,
            longest_pause_seconds=prospect.estimate.longest_pause_s,
        )
    )
    try:
        answer = request.ask_for_dump(process, path, live=live, seconds=timeout_s)
    except DumpagentError as error:
        seconds = time.monotonic() - begun
        tell(DumpRequestFailed(**of, error=str(error), hint=error.hint, seconds=seconds))
        raise
    tell(RequestedDumpWritten(**of, seconds=time.monotonic() - begun, answer=answer.splitlines()[-1]))
    click.echo(path)
