"""Writes the dashboard for Grafana and for OpenShift's console from the panels below.

python -m tools.dashboard           write it
python -m tools.dashboard --check   say whether it is out of date, and exit 1
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DataSourceRef,
    Threshold,
    ThresholdsMode,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

MANIFEST = Path(__file__).parent.parent / "manifests" / "monitoring" / "dashboard.yaml"
CONSOLE_MANIFEST = MANIFEST.parent.parent / "overlays" / "console" / "dashboard.yaml"
_SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
_N = 'node=~"$node"'  # every panel follows the node that is chosen at the top


@dataclass(frozen=True)
class Panel:
    """One panel: queries by their legend. `bad_from` colours a figure red from there on (below it, with `low_is_bad`)."""

    title: str
    queries: dict[str, str]
    why: str
    unit: str = "short"
    width: int = 8
    bad_from: float | None = None
    low_is_bad: bool = False


FLEET = [
    Panel(
        "Nodes with a mounted volume",
        {"": f"sum(dumpagent_mount_up{{{_N}}})"},
        "Nodes on which dumps reach the volume",
        width=4,
        bad_from=1,
        low_is_bad=True,
    ),
    Panel(
        "Nodes without",
        {"": f"count(dumpagent_mount_up{{{_N}}} != 1) or vector(0)"},
        "Dumps of these nodes land elsewhere",
        width=4,
        bad_from=1,
    ),
    Panel(
        "Dumps pending",
        {"": f"sum(dumpagent_dumps_pending{{{_N}}})"},
        "Not in the store yet",
        width=4,
        bad_from=10,
    ),
    Panel(
        "Oldest pending",
        {"": f"max(dumpagent_dumps_oldest_pending_seconds{{{_N}}})"},
        "Time since it was first seen",
        "s",
        4,
        900,
    ),
    Panel(
        "Store unusable from",
        {"": f"count(dumpagent_store_reachable{{{_N}}} == 0) or vector(0)"},
        "Nodes that cannot store anything now",
        width=4,
        bad_from=1,
    ),
    Panel(
        "Stored in 24 h",
        {"": f"sum(increase(dumpagent_dumps_stored_total{{{_N}}}[24h]))"},
        "Dumps that were uploaded",
        width=4,
    ),
]
DUMPS = [
    Panel(
        "Dumps stored per hour",
        {"{{verdict}}": f"sum by (verdict) (increase(dumpagent_dumps_stored_total{{{_N}}}[1h]))"},
        "The history of dumps, by verdict",
    ),
    Panel(
        "Why they were written",
        {"{{cause}}": f"sum by (cause) (increase(dumpagent_dumps_stored_total{{{_N}}}[1h]))"},
        "Out of memory, on request, or not known",
    ),
    Panel(
        "Dumps on the volumes",
        {
            "seen": f"sum(dumpagent_dumps_seen_total{{{_N}}})",
            "stored": f"sum(dumpagent_dumps_uploaded_total{{{_N}}})",
            "lost": f"sum(dumpagent_dumps_failed_total{{{_N}}})",
            "pending": f"sum(dumpagent_dumps_pending{{{_N}}})",
        },
        "seen = stored + lost + pending, since each agent's start",
    ),
    Panel(
        "What pending dumps wait for",
        {"{{node}} {{reason}}": f"sum by (node, reason) (dumpagent_dumps_waiting{{{_N}}})"},
        "writing: the JVM has not finished; retrying: see the log",
    ),
    Panel(
        "From the last write to the store",
        {
            f"p{percent}": f"histogram_quantile(0.{percent}, sum by (le) (increase(dumpagent_dump_stored_delay_seconds_bucket{{{_N}}}[6h])))"
            for percent in (50, 95)
        },
        "What a developer waits",
        "s",
    ),
    Panel(
        "Upload time",
        {
            f"p{percent}": f"histogram_quantile(0.{percent}, sum by (le) (increase(dumpagent_upload_seconds_bucket{{{_N}}}[6h])))"
            for percent in (50, 95)
        },
        "From the first byte read",
        "s",
    ),
    Panel(
        "Sent",
        {"{{node}}": f"sum by (node) (rate(dumpagent_sent_bytes_total{{{_N}}}[5m]))"},
        "Counted when a dump is stored",
        "Bps",
    ),
    Panel(
        "Failed attempts",
        {
            "{{node}} {{fault}}": f"sum by (node, fault) (increase(dumpagent_upload_failures_total{{{_N}}}[10m]))"
        },
        "Each is tried again",
    ),
    Panel(
        "Deleted to make room",
        {"{{node}}": f"sum by (node) (increase(dumpagent_dumps_deleted_total{{{_N}}}[1h]))"},
        "LOCAL_KEEP; only dumps that the store has confirmed",
    ),
]
NODES = [
    Panel("Volume mounted", {"{{node}}": f"dumpagent_mount_up{{{_N}}}"}, "1: the target shows the volume"),
    Panel(
        "Last proven",
        {"{{node}}": f"dumpagent_mount_verified_age_seconds{{{_N}}}"},
        "Time since a write through the mount reached the volume",
        "s",
    ),
    Panel(
        "State of the volume",
        {"{{node}} {{state}}": f"dumpagent_volume_state{{{_N}}} == 1"},
        "By the last write test",
    ),
    Panel(
        "Free on the volume",
        {"{{node}}": f"dumpagent_volume_free_bytes{{{_N}}} / dumpagent_volume_size_bytes{{{_N}}}"},
        "The next dump needs room, twice its size on JDK 22+",
        "percentunit",
    ),
    Panel(
        "Free, and the largest dump",
        {
            "free {{node}}": f"dumpagent_volume_free_bytes{{{_N}}}",
            "largest {{node}}": f"dumpagent_largest_dump_bytes{{{_N}}}",
        },
        "Twice the largest must fit",
        "bytes",
    ),
    Panel(
        "Mounts lost and made again",
        {
            "lost {{node}} {{finding}}": f"increase(dumpagent_mount_losses_total{{{_N}}}[1h])",
            "mounted again {{node}}": f"increase(dumpagent_mount_remounts_total{{{_N}}}[1h])",
        },
        "Somebody unmounts it if these grow",
    ),
    Panel(
        "Write test",
        {
            "p95 {{node}}": f"histogram_quantile(0.95, sum by (node, le) (increase(dumpagent_mount_write_test_seconds_bucket{{{_N}}}[10m])))"
        },
        "4 KiB with fsync through the mount",
        "s",
    ),
    Panel(
        "Rescued files",
        {"{{node}}": f"increase(dumpagent_rescued_files_total{{{_N}}}[24h])"},
        "Written on the node's disk while the mount was away",
    ),
    Panel(
        "Lasting troubles",
        {"{{node}} {{trouble}}": f"max by (node, trouble) (dumpagent_trouble{{{_N}}})"},
        "The log has each with a hint",
    ),
    Panel(
        "Time since the last scan",
        {"{{node}}": f"time() - dumpagent_last_scan_timestamp_seconds{{{_N}}}"},
        "WATCH_INTERVAL and a little",
        "s",
    ),
    Panel(
        "Memory",
        {"{{node}} {{pod}}": f'process_resident_memory_bytes{{{_N},job="dumpagent"}}'},
        "Of each daemon",
        "bytes",
    ),
    Panel(
        "CPU",
        {"{{node}} {{pod}}": f'rate(process_cpu_seconds_total{{{_N},job="dumpagent"}}[5m])'},
        "Cores of each daemon",
    ),
]
VERSIONS = Panel(
    "Agents", {"": f"count by (node, mode, version) (dumpagent_build_info{{{_N}}})"}, "Which version runs where", width=24
)  # fmt: skip


def queries() -> list[tuple[str, str]]:
    """Give every query of every panel with the panel's title."""
    panels = [*FLEET, *DUMPS, *NODES, VERSIONS]
    return [(panel.title, query) for panel in panels for query in panel.queries.values()]


def manifest() -> str:
    """Give the ConfigMap that Grafana's sidecar loads."""
    built = dashboard.Dashboard("Java heap dumps").uid("dumpagent").tags(["dumpagent", "java"]).refresh("30s")
    built.time("now-6h", "now").tooltip(DashboardCursorSync.CROSSHAIR).readonly()
    built.with_variable(dashboard.DatasourceVariable("datasource").type("prometheus"))
    built.with_variable(
        dashboard.QueryVariable("node").label("Node").datasource(_SOURCE).multi(True).include_all(True)
        .all_value(".*").query("label_values(dumpagent_build_info, node)")
    )  # fmt: skip
    built.with_row(dashboard.Row("The fleet at a glance"))
    for panel in FLEET:
        built.with_panel(_stat(panel))
    built.with_row(dashboard.Row("Dumps"))
    for panel in DUMPS:
        built.with_panel(_series(panel))
    built.with_row(dashboard.Row("Nodes and volumes"))
    for panel in NODES:
        built.with_panel(_series(panel))
    built.with_panel(_table(VERSIONS))
    text = JSONEncoder(sort_keys=True, indent=1).encode(built.build())
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    return (
        "# Written by tools/dashboard.py (`make docs`); do not edit. Grafana's sidecar finds it by its label.\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: dumpagent-dashboard\n  namespace: heap-dumps\n"
        '  labels: {grafana_dashboard: "1", app.kubernetes.io/name: dumpagent, app.kubernetes.io/part-of: dumpagent}\n'
        f"data:\n  dumpagent.json: |\n{lines}"
    )


def console_manifest() -> str:
    """Give the ConfigMap that OpenShift's console shows under Observe > Dashboards.

    The console reads the form of Grafana's first years: rows of panels of the types graph, singlestat and table, the
    widths in twelfths. Source: OpenShift documentation, "Reviewing monitoring dashboards as a developer"; the
    dashboards that the cluster monitoring operator installs in openshift-config-managed.
    """
    rows = (
        ("The fleet at a glance", "singlestat", FLEET),
        ("Dumps", "graph", DUMPS),
        ("Nodes and volumes", "graph", NODES),
        ("Agents", "table", [VERSIONS]),
    )
    node = {
        "name": "node", "label": "Node", "type": "query", "query": "label_values(dumpagent_build_info, node)",
        "datasource": "$datasource", "multi": True, "includeAll": True, "allValue": ".*", "hide": 0,
    }  # fmt: skip
    board = {
        "title": "Java heap dumps",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [node]},
        "rows": [
            {"title": title, "panels": [_of_console(panel, kind) for panel in panels]}
            for title, kind, panels in rows
        ],
    }
    lines = "".join(f"    {line}\n" for line in json.dumps(board, indent=1, sort_keys=True).splitlines())
    return (
        "# Written by tools/dashboard.py (`make docs`); do not edit. OpenShift's console finds it by its label.\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: dumpagent-dashboard\n"
        "  namespace: openshift-config-managed\n"
        '  labels: {console.openshift.io/dashboard: "true", app.kubernetes.io/part-of: dumpagent}\n'
        f"data:\n  dumpagent.json: |\n{lines}"
    )


def _of_console(panel: Panel, kind: str) -> dict[str, object]:
    units: dict[str, dict[str, object]] = {
        "singlestat": {"format": panel.unit},
        "graph": {"yaxes": [{"format": panel.unit, "min": 0}]},
    }
    targets = [
        {"expr": query, "legendFormat": legend, "refId": chr(65 + number)}
        for number, (legend, query) in enumerate(panel.queries.items())
    ]
    described: dict[str, object] = {"title": panel.title, "description": panel.why, "type": kind}
    return described | {"span": panel.width // 2, "targets": targets} | units.get(kind, {})


def _targets(panel: Panel, *, instant: bool = False) -> list[prometheus.Dataquery]:
    made = []
    for number, (legend, query) in enumerate(panel.queries.items()):
        target = prometheus.Dataquery().expr(query).legend_format(legend).ref_id(chr(65 + number))
        made.append(target.instant() if instant else target.range())
    return made


def _stat(panel: Panel) -> stat.Panel:
    built = stat.Panel().title(panel.title).description(panel.why).datasource(_SOURCE).unit(panel.unit)
    built.height(4).span(panel.width).color_mode(BigValueColorMode.BACKGROUND)
    below, above = ("red", "green") if panel.low_is_bad else ("green", "red")
    steps = [Threshold(value=None, color=below if panel.bad_from is not None else "blue")]
    if panel.bad_from is not None:
        steps.append(Threshold(value=panel.bad_from, color=above))
    built.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    for target in _targets(panel, instant=True):
        built.with_target(target)
    return built


def _series(panel: Panel) -> timeseries.Panel:
    built = timeseries.Panel().title(panel.title).description(panel.why).datasource(_SOURCE).unit(panel.unit)
    built.height(8).span(panel.width).min(0)
    for target in _targets(panel):
        built.with_target(target)
    return built


def _table(panel: Panel) -> table.Panel:
    built = table.Panel().title(panel.title).description(panel.why).datasource(_SOURCE)
    built.height(6).span(panel.width)
    for target in _targets(panel, instant=True):
        built.with_target(target.format(PromQueryFormat.TABLE))
    return built


def main() -> None:
    for path, made in ((MANIFEST, manifest()), (CONSOLE_MANIFEST, console_manifest())):
        if path.exists() and path.read_text() == made:
            continue
        if sys.argv[1:] == ["--check"]:
            print(f"{path.name} is out of date: run `make docs`", file=sys.stderr)
            sys.exit(1)
        path.write_text(made)
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
