"""`dumpagent gather`: everything that support needs, in one archive."""

from __future__ import annotations

import functools
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

import click

from dumpagent import __version__
from dumpagent.cli.options import takes
from dumpagent.cli.stored import ending_at_once, say
from dumpagent.dumps.text import iso_time, size_text
from dumpagent.errors import BadSettings, DumpagentError
from dumpagent.gather import cluster, local, programs, volume
from dumpagent.gather.archive import Archive, open_archive
from dumpagent.gather.collector import Collector, Gap, collect
from dumpagent.gather.since import since as since_when
from dumpagent.gather.veil import learn, veiled
from dumpagent.notify.api_server import ACCOUNT, ApiServer, address_of
from dumpagent.secrets import NET
from dumpagent.settings import Metrics, Place, Remembering, Runtime, Volume
from dumpagent.terminal.progress import on_terminal

_T = TypeVar("_T")
_CLUSTER_S = 120.0


@dataclass(frozen=True)
class Scope:
    """Where `gather` looks: `since` is in seconds since the epoch, an empty `namespace` is that of the token."""

    root: str
    state_dir: str
    runtime_dir: str
    pod: str
    metrics_address: str
    metrics_port: int
    namespace: str
    since: float
    account: str


@click.command("gather", short_help="Collect what support needs: no dumps, no secrets.")
@click.option(
    "-o",
    "--output",
    metavar="PLACE",
    default="",
    help="a new or empty directory, a new FILE.tar.gz, or - for standard output; empty: dumpagent-gather-<pod>-<time>.tar.gz here",
)
@click.option(
    "--since",
    default="",
    metavar="DURATION",
    help="logs and events from so long ago: 30m, 2h, 7d (default: 24h)",
)
@click.option(
    "--since-time", default="", metavar="TIME", help="logs and events since this time: 2026-01-31T12:00:00Z"
)
@click.option(
    "--namespace",
    default="",
    metavar="NAME",
    help="the namespace whose pods, events, logs and metrics are asked for (default: that of this pod)",
)
@takes(
    Volume,
    Remembering,
    Runtime,
    Place,
    Metrics,
    without=("cluster_name", "owner_pattern", "state_retention_days"),
    when_asked=True,
)
def command(
    volume_settings: Callable[[], Volume],
    remembering: Callable[[], Remembering],
    runtime: Callable[[], Runtime],
    place: Callable[[], Place],
    metrics: Callable[[], Metrics],
    output: str,
    since: str,
    since_time: str,
    namespace: str,
) -> None:
    """Collect into one archive what support needs to know: the findings of `doctor`, settings, receipts, metrics, mounts,
    versions, the list of files below DUMP_ROOT, and, where a service account's token is mounted, pods, events and logs.

    No dump is opened and no secret is in it. A part that fails or hangs is left out and named in errors.json; no part
    takes longer than a few minutes. Exit 0 once the archive is written, 1 if it cannot be. Run it in the daemon's container:

    \b
      kubectl exec POD -- dumpagent gather -o - > gather.tar.gz
    """  # fmt: skip
    now = time.time()
    gaps: list[Gap] = []
    root = _taken(volume_settings, Volume(), gaps).dump_root.rstrip("/") or "/"
    where = _taken(place, Place(), gaps)
    asked = _taken(metrics, Metrics(), gaps)
    scope = Scope(
        root=root, state_dir=_taken(remembering, Remembering(), gaps).state_dir or f"{root}/.dumpagent",
        runtime_dir=_taken(runtime, Runtime(), gaps).runtime_dir, pod=where.pod_name or socket.gethostname(),
        metrics_address=asked.metrics_address, metrics_port=asked.metrics_port, namespace=namespace,
        since=since_when(since, since_time, now=now), account=ACCOUNT,
    )  # fmt: skip
    _hand_on(scope)
    learn(NET, os.environ, scope.account)
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    folder = f"dumpagent-gather-{re.sub('[^A-Za-z0-9.-]', '-', scope.pod)}-{stamp}"
    if output == "-" and sys.stdout.isatty():
        raise DumpagentError(
            "standard output is a terminal", hint="send it to a file: dumpagent gather -o - > gather.tar.gz"
        )
    with ending_at_once(said="nothing was kept"):
        archive = open_archive(output or f"{folder}.tar.gz", folder, sys.stdout.buffer)
        try:
            names = _gather(archive, list(collectors(scope)), gaps, now)
            archive.close()
        except OSError as error:
            archive.discard()
            raise DumpagentError(
                f"{archive.place} cannot be written: {error.strerror}", hint="give another --output"
            ) from error
        except BaseException:
            archive.discard()
            raise
    for gap in gaps:
        say(veiled(f"  missing: {gap.collector}: {gap.what}" + (f" ({gap.hint})" if gap.hint else "")))
    missing = f"; {len(gaps)} parts are missing, errors.json says why" if gaps else ""
    say(f"dumpagent: {len(names)} files in {archive.place}{missing}")
    sys.stdout.flush()
    os._exit(0)  # a child that hangs in the kernel must not hold up the end


def collectors(scope: Scope) -> Iterator[Collector]:
    """Give the collectors, the quick ones first."""
    yield Collector("versions", local.versions)
    yield Collector("mountinfo", local.mounts)
    yield Collector("limits", local.limits)
    yield Collector("runtime", lambda desk: local.verdicts(desk, scope.runtime_dir))
    yield Collector("config", programs.config, programs.CONFIG_LIMIT_S)
    yield Collector("metrics", lambda desk: local.metrics(desk, scope.metrics_address, scope.metrics_port))
    yield from _of_the_cluster(scope)
    yield Collector("state", lambda desk: volume.state(desk, scope.state_dir))
    yield Collector("listing", lambda desk: volume.listing(desk, scope.root), volume.LISTING_S + 10)
    yield Collector("doctor", programs.doctor, programs.DOCTOR_LIMIT_S)


def _of_the_cluster(scope: Scope) -> Iterator[Collector]:
    namespace = scope.namespace or cluster.namespace_of(os.environ, scope.account)
    if not os.environ.get("KUBERNETES_SERVICE_HOST") or not os.path.exists(f"{scope.account}/token"):
        back_s = time.time() - scope.since
        yield Collector("log", lambda desk: cluster.how_to_get_logs(desk, namespace, scope.pod, back_s))
        return
    server = ApiServer(address_of(os.environ), account=scope.account)
    yield Collector("cluster", lambda desk: cluster.objects(desk, server, namespace, scope.since), _CLUSTER_S)
    if scope.namespace:
        port = scope.metrics_port or Metrics().metrics_port
        work = functools.partial(cluster.metrics, cluster=server, namespace=namespace, port=port)
        yield Collector("metrics of the pods", work, _CLUSTER_S)


def _gather(archive: Archive, parts: list[Collector], gaps: list[Gap], now: float) -> list[str]:
    """Write what the collectors find, each as soon as it is there, and errors.json; give the names of the files."""
    names: list[str] = []
    watched = on_terminal()
    for number, part in enumerate(parts, 1):
        if watched:
            click.echo(f"[{number}/{len(parts)}] {part.name} ...", err=True, nl=False)
        begun = time.monotonic()
        found = collect(part)
        for name, text in sorted(found.files.items()):
            archive.write(name, veiled(text))
            names.append(name)
        gaps += found.gaps
        if watched:
            size = size_text(sum(map(len, found.files.values())))
            missing = f", {len(found.gaps)} missing" if found.gaps else ""
            click.echo(f" {size}, {time.monotonic() - begun:.1f} s{missing}", err=True)
    summary = {
        "dumpagent": __version__, "gathered": iso_time(now),
        "missing": [{key: veiled(value) for key, value in asdict(gap).items()} for gap in gaps],
    }  # fmt: skip
    archive.write("errors.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    return [*names, "errors.json"]


def _taken(setting: Callable[[], _T], default: _T, gaps: list[Gap]) -> _T:
    """Give the settings; those that are not accepted are a finding for support, and no reason to gather nothing."""
    try:
        return setting()
    except BadSettings as error:
        gaps.append(Gap("settings", f"{error}; the defaults are used", error.hint))
        return default


def _hand_on(scope: Scope) -> None:
    """Let `doctor` and `config`, which run on their own, see what flags say."""
    defaults = {"DUMP_ROOT": Volume().dump_root, "RUNTIME_DIR": Runtime().runtime_dir}
    for name, value in {"DUMP_ROOT": scope.root, "RUNTIME_DIR": scope.runtime_dir}.items():
        if value != defaults[name]:
            os.environ[name] = value
    if scope.state_dir != f"{scope.root}/.dumpagent":
        os.environ["STATE_DIR"] = scope.state_dir
