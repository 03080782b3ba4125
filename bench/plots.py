"""Draws the plots of a bench report: `python plots.py DIRECTORY` reads report.json there and writes SVG beside it."""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "dumpagent"  # the same figures give the same file

OURS, THEIRS, LIMIT = "#1f6fb2", "#b8bec6", "#7a7f87"


def colour(client: str) -> str:
    return OURS if client.startswith("dumpagent") else LIMIT if client == "raw socket" else THEIRS


def bars(rows: list[dict[str, Any]], value: str, title: str, unit: str, out: Path) -> None:
    """Draw one bar a client, the smallest on top."""
    rows = sorted((row for row in rows if not row["failed"]), key=lambda row: float(row[value]))
    if not rows:
        return
    figure, axes = plt.subplots(figsize=(7, 0.42 * len(rows) + 1.1))
    names = [row["client"] for row in rows]
    drawn = axes.barh(names, [row[value] for row in rows], color=[colour(name) for name in names])
    axes.bar_label(drawn, fmt="%.2f", padding=3)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel(unit)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


def lines(rows: list[dict[str, Any]], out: Path) -> None:
    """Draw seconds per GiB over the round trip, a panel for each bandwidth."""
    rows = [row for row in rows if not row["failed"] and row["conditions"]["cpus"] and row["size_bytes"]]
    lengths: dict[float, set[float]] = {}
    for row in rows:
        lengths.setdefault(row["conditions"]["mbit"], set()).add(row["conditions"]["rtt_ms"])
    widths = sorted(width for width, found in lengths.items() if len(found) > 1)
    if not widths:
        return
    figure, panels = plt.subplots(1, len(widths), figsize=(4 * len(widths) + 1, 3.4), squeeze=False)
    for axes, width in zip(panels[0], widths, strict=True):
        for client in dict.fromkeys(row["client"] for row in rows):
            points = sorted(
                (row["conditions"]["rtt_ms"], row["wall_s"] * 2**30 / row["size_bytes"])
                for row in rows
                if row["client"] == client and row["conditions"]["mbit"] == width
            )
            if len(points) > 1:
                axes.plot(*zip(*points, strict=True), marker="o", label=client)
        axes.set_title(f"{width:g} Mbit/s" if width else "any bandwidth", loc="left", fontsize=11)
        axes.set_xlabel("round trip, ms")
        axes.set_ylabel("seconds per GiB, at 200m CPU")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})
    plt.close(figure)


folder = Path(sys.argv[1])
found = json.loads((folder / "report.json").read_text())["rows"]
free = [row for row in found if row["conditions"]["scheme"] == "https" and not row["conditions"]["cpus"]]
pod = [
    row
    for row in found
    if row["conditions"]["cpus"] and not row["conditions"]["rtt_ms"] and not row["conditions"]["mbit"]
]
bars(
    free,
    "net_cpu_s",
    "CPU to move one GiB over https, start-up subtracted",
    "CPU seconds per GiB",
    folder / "cpu.svg",
)
bars(
    pod,
    "wall_s",
    "Time for the dump inside 200m CPU and 256 MiB, cold cache",
    "seconds",
    folder / "pod-time.svg",
)
bars(
    [{**row, "peak_mib": row["peak_bytes"] / 2**20} for row in pod],
    "peak_mib",
    "Memory charged to the container, page cache included",
    "MiB (the limit is 256)",
    folder / "pod-memory.svg",
)
lines(found, folder / "round-trip.svg")
