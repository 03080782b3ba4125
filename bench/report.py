"""The medians of all runs, their ratios, and whether the project's own demands are met; as values, text and JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bench.speed import told
from bench.stage import Conditions, Sample

GIB, MIB = 1 << 30, 1 << 20
AGENT, GZIP, LIMIT = "dumpagent", "dumpagent-gzip", "raw socket"


@dataclass(frozen=True)
class Row:
    """The medians of one client under one set of conditions. Per GiB of dump, start-up in `net_cpu_s` subtracted."""

    client: str
    conditions: Conditions
    runs: int
    size_bytes: int
    cpu_s: float
    net_cpu_s: float
    startup_cpu_s: float
    cpu_spread_s: float
    wall_s: float
    rss_bytes: int
    wire_share: float
    requests: int
    peak_bytes: int
    failed: str = ""


def rows(samples: Iterable[Sample], startups: dict[tuple[str, str], list[float]]) -> list[Row]:
    """Give a row for each client and conditions, in the order of their first runs.

    `startups` are the CPU seconds of uploads of a tiny file, by client and scheme.
    """
    groups: dict[tuple[str, Conditions], list[Sample]] = {}
    for sample in samples:
        groups.setdefault((sample.client, sample.conditions), []).append(sample)
    return [_row(group, startups) for group in groups.values()]


def _row(group: list[Sample], startups: dict[tuple[str, str], list[float]]) -> Row:
    first = group[0]
    per_gib = GIB / first.size_bytes
    cpus = [sample.cost.cpu_s for sample in group]
    startup = statistics.median(startups.get((first.client, first.conditions.scheme), [0.0]))
    cpu = statistics.median(cpus)
    return Row(
        client=first.client,
        conditions=first.conditions,
        runs=len(group),
        size_bytes=first.size_bytes,
        cpu_s=cpu * per_gib,
        net_cpu_s=(cpu - startup) * per_gib,
        startup_cpu_s=startup,
        cpu_spread_s=(max(cpus) - min(cpus)) * per_gib,
        wall_s=statistics.median(sample.cost.wall_s for sample in group),
        rss_bytes=max(sample.cost.rss_bytes for sample in group),
        wire_share=statistics.median(sample.wire_bytes / sample.size_bytes for sample in group),
        requests=first.requests,
        peak_bytes=max(sample.cost.cgroup.peak_bytes if sample.cost.cgroup else 0 for sample in group),
    )


@dataclass(frozen=True)
class Demand:
    """One thing that the project asks of itself: `value` must be at most `limit`. None: not measured in this run."""

    text: str
    limit: float
    value: float | None
    unit: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.value is None else self.value <= self.limit


@dataclass(frozen=True)
class _Found:
    """The rows of a run, and the questions that demands ask them; None where a row is missing."""

    rows: list[Row]

    def of(self, client: str, where: Callable[[Row], bool]) -> Row | None:
        return next(
            (row for row in self.rows if row.client == client and where(row) and not row.failed), None
        )

    def ratio(
        self, mine: str, over: str, what: Callable[[Row], float], where: Callable[[Row], bool]
    ) -> float | None:
        ours, theirs = self.of(mine, where), self.of(over, where)
        return what(ours) / what(theirs) if ours and theirs and what(theirs) > 0 else None

    def ratio_to_best(self, mine: str, over: str) -> float | None:
        """Compare net CPU over https with the cheapest of the settings of a client, whose names begin with `over`."""
        ours = self.of(mine, _free)
        best = min(
            (row.net_cpu_s for row in self.rows if row.client.startswith(over) and _free(row)), default=None
        )
        return ours.net_cpu_s / best if ours and best else None

    def peak_mib(self) -> float | None:
        """Give the most that any of the agent's uploads inside limits took, with page cache."""
        peaks = (row.peak_bytes / MIB for row in self.rows if row.client in (AGENT, GZIP) and row.peak_bytes)
        return max(peaks, default=None)


def _free(row: Row) -> bool:
    return row.conditions == Conditions()


def _narrow(row: Row) -> bool:  # start-up is the larger part of a small dump's time
    return row.conditions.mbit == 100 and row.conditions.rtt_ms == 0 and row.size_bytes > 900 * MIB


def demands(rows: list[Row], daemons: dict[str, dict[str, float]], sizes: dict[str, float]) -> list[Demand]:
    """Give the demands with what was measured for each."""
    found = _Found(rows)
    gzip = found.of(GZIP, _free)
    return [
        Demand(
            "https, start-up subtracted: CPU against the raw socket",
            1.10,
            found.ratio(AGENT, LIMIT, lambda row: row.net_cpu_s, _free),
        ),
        Demand("the same against s5cmd's better setting", 0.40, found.ratio_to_best(AGENT, "s5cmd")),
        Demand("the same against rclone's better setting", 0.40, found.ratio_to_best(AGENT, "rclone")),
        Demand(
            "start-up of `upload --once`: CPU against aws-cli",
            0.5,
            found.ratio(AGENT, "aws-cli", lambda row: row.startup_cpu_s, _free),
        ),
        *_memory_demands(found, sizes),
        Demand("gzip: CPU per GiB of dump, all in all", 2.6, gzip.cpu_s if gzip else None, "s"),
        Demand("gzip: size against `gzip -1`", 1.05, sizes.get("gzip_ratio_against_gzip_1")),
        Demand(
            "gzip, 1 GiB at 200m and 100 Mbit/s: time against plain",
            0.35,
            found.ratio(GZIP, AGENT, lambda row: row.wall_s, _narrow),
        ),
        *_idle_demands(daemons.get("idle", {})),
        *_fetch_demands(daemons),
        Demand(
            "scan of 100,000 files in 1,000 directories: CPU", 1.0, daemons.get("scan", {}).get("cpu_s"), "s"
        ),
    ]


def _memory_demands(found: _Found, sizes: dict[str, float]) -> list[Demand]:
    large = {name: value / MIB for name, value in sizes.items() if name.startswith("rss_5_gib")}
    rss = [row.rss_bytes / MIB for row in found.rows if row.client == AGENT]
    rss += [value for name, value in large.items() if name == "rss_5_gib"]
    killed = sum("memory" in row.failed for row in found.rows if row.client in (AGENT, GZIP))
    return [
        Demand("peak RSS of a plain upload, any size", 90, max(rss, default=None), "MiB"),
        Demand("peak RSS of a 5 GiB upload, plain and gzip", 128, max(large.values(), default=None), "MiB"),
        Demand("cgroup peak, in every row", 128, found.peak_mib(), "MiB"),
        Demand("ends by the OOM killer", 0, float(killed)),
    ]


def _fetch_demands(daemons: dict[str, dict[str, float]]) -> list[Demand]:
    found = [
        figures for name, figures in daemons.items() if name.startswith("get, ") and "speed_to_aws" in figures
    ]
    slowest = max((1 / figures["speed_to_aws"] for figures in found), default=None)
    dearest = max((figures["cpu_to_aws"] for figures in found), default=None)
    return [
        Demand("`get` over 50 ms, at every width: time against `aws s3 cp`", 1.11, slowest),
        Demand("the same: CPU", 0.5, dearest),
    ]


def _idle_demands(idle: dict[str, float]) -> list[Demand]:
    def mib(name: str) -> float | None:
        return idle[name] / MIB if name in idle else None

    return [
        Demand("idle before the first upload: RSS", 32, mib("rss_bytes"), "MiB"),
        Demand(
            "idle before the first upload: share of a core",
            0.2,
            idle["cpu_share"] * 100 if "cpu_share" in idle else None,
            "%",
        ),
        Demand("idle after an upload: RSS", 65, mib("rss_after_upload_bytes"), "MiB"),
    ]


def text(values: dict[str, Any]) -> str:
    """Give the report, as `as_json` gave it, as Markdown."""
    found = [Row(**{**row, "conditions": Conditions(**row["conditions"])}) for row in values["rows"]]
    about = values["about"]
    lines = [
        f"Commit {about['commit']}, {about['cores']} cores of {about['cpu']}, Linux {about['kernel']}, "
        f"Python {about['python']}, {about['openssl']}; {about['seconds'] / 60:.0f} minutes"
        + (", ended early." if about["ended_early"] else "."),
        *(
            [
                "",
                "A quick run: what each dump costs in any case weighs more in 256 MiB than in the 1 GiB of the demands.",
            ]
            if about["quick"]
            else []
        ),
        "",
    ]
    machine = told(about.get("speed", {}))
    groups: dict[str, list[Row]] = {}
    for row in found:
        groups.setdefault(named(row.size_bytes / MIB, row.conditions), []).append(row)
    for name, group in groups.items():
        baseline = next((row for row in group if row.client == AGENT), group[0])
        inside = baseline.peak_bytes > 0
        lines += [
            f"### {name}",
            "",
            machine,
            "",
            "| client | CPU s/GiB | without start-up | to dumpagent | wall s | peak RSS MiB |"
            + (" cgroup peak MiB |" if inside else "")
            + " on the wire | requests | runs |",
            "|---|---|---|---|---|---|" + ("---|" if inside else "") + "---|---|---|",
        ]
        for row in group:
            if row.failed:
                lines.append(f"| {row.client} | {row.failed} |" + " |" * (8 if inside else 7))
                continue
            to = row.net_cpu_s / baseline.net_cpu_s if baseline.net_cpu_s > 0 else 0.0
            lines.append(
                f"| {row.client} | {row.cpu_s:.2f} ±{row.cpu_spread_s / 2:.2f} | {row.net_cpu_s:.2f} | {to:.2f} "
                f"| {row.wall_s:.2f} | {row.rss_bytes / MIB:.0f} |"
                + (f" {row.peak_bytes / MIB:.0f} |" if inside else "")
                + f" {row.wire_share:.3f} | {row.requests} | {row.runs} |"
            )
        lines.append("")
    if values["daemons"]:
        lines += ["### The daemons", "", machine, "", "| what | figures |", "|---|---|"]
        lines += [f"| {name} | {_figures(figures)} |" for name, figures in values["daemons"].items()] + [""]
    if values["mount"]:
        lines += [
            "### Mount mode",
            "",
            machine,
            "",
            "| what | at most | measured | | |",
            "|---|---|---|---|---|",
        ]
        lines += [_mount_line(figure) for figure in values["mount"]] + [""]
    lines += ["### Demands", "", machine, "", "| demand | at most | measured | |", "|---|---|---|---|"]
    for demand in values["demands"]:
        value = demand["value"]
        measured = "not measured" if value is None else f"{value:.2f} {demand['unit']}".strip()
        limit = f"{demand['limit']:g} {demand['unit']}".strip()
        lines.append(f"| {demand['text']} | {limit} | {measured} | {_MARK[demand['met']]} |")
    return "\n".join(lines) + "\n"


_MARK = {None: "?", True: "met", False: "**not met**"}


def _mount_line(figure: dict[str, Any]) -> str:
    promised = figure["promised"]
    limit = "" if promised is None else f"{promised:g} {figure['unit']}"
    mark = "" if promised is None else _MARK[figure["value"] <= promised]
    return f"| {figure['what']} | {limit} | {figure['value']:.2f} {figure['unit']} | {mark} | {figure['detail']} |"


def named(size_mib: float, at: Conditions) -> str:
    """Say in words how much is sent, and under which conditions."""
    parts = [f"{size_mib:.0f} MiB over {at.scheme}"]
    if at.rtt_ms or at.mbit:
        parts.append(f"round trip {at.rtt_ms:g} ms, {f'{at.mbit:g} Mbit/s' if at.mbit else 'any bandwidth'}")
    if at.cpus:
        parts.append(f"inside {at.cpus * 1000:.0f}m / {at.memory_bytes // MIB} MiB")
    parts.append("cold cache" if at.cold else "warm cache")
    return ", ".join(parts)


def _figures(figures: dict[str, Any]) -> str:
    said = []
    for name, value in figures.items():
        if isinstance(value, str):
            said.append(f"{name}: {value}")
        elif name.endswith("_bytes"):
            said.append(f"{name.removesuffix('_bytes')} {value / MIB:.1f} MiB")
        elif name.endswith("_s"):
            said.append(
                f"{name.removesuffix('_s')} {value * 1000:.1f} ms"
                if value < 1
                else f"{name.removesuffix('_s')} {value:.2f} s"
            )
        elif name.endswith("share"):
            said.append(f"{name} {value * 100:.2f} %")
        else:
            said.append(f"{name} {value:g}")
    return ", ".join(said)


def as_json(
    found: list[Row],
    daemons: dict[str, dict[str, float]],
    sizes: dict[str, float],
    mount: list[dict[str, Any]],
    asked: list[Demand],
    about: dict[str, Any],
) -> dict[str, Any]:
    """Give everything as plain values."""
    return {
        "about": about,
        "rows": [dataclasses.asdict(row) for row in found],
        "daemons": daemons,
        "sizes": sizes,
        "mount": mount,
        "demands": [{**dataclasses.asdict(demand), "met": demand.met} for demand in asked],
    }
