"""Draws docs/dashboard.png: every panel of the shipped dashboard with what a real Prometheus answers to its queries.

python -m tools.dashboard_picture    needs prometheus, promtool and chromium

Grafana itself is nowhere to be had as a package, so its panels are drawn here from the dashboard's own JSON: by type, at
the place, with title, unit, thresholds and legend. The history is made up (tools/dashboard_history.py).
"""

from __future__ import annotations

import contextlib
import html
import itertools
import json
import math
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.dashboard import MANIFEST, queries
from tools.dashboard_history import END, SHOWN_S, write

PICTURE = Path(__file__).parent.parent / "docs" / "dashboard.png"
Panel = dict[str, Any]
Series = tuple[str, list[tuple[float, float]]]  # legend, (seconds since the epoch, value)

_STEP_S = 30
_WIDTH, _ROW, _GAP, _TOP = 1680, 30, 8, 64  # Grafana: 24 columns, rows of 30 px, 8 px between
_COLOURS = (
    "#73BF69",
    "#F2CC0C",
    "#8AB8FF",
    "#FF9830",
    "#F2495C",
    "#5794F2",
    "#B877D9",
    "#37872D",
    "#E0B400",
    "#FFA6B0",
)
_THRESHOLDS = {"green": "#299c46", "red": "#d44a3a", "blue": "#1f60c4"}
_LEGENDS_MOST = 6
_CSS = """
* { box-sizing: border-box; margin: 0; }
body { background: #111217; color: #ccccdc; font: 13px Inter, "DejaVu Sans", sans-serif; position: relative; }
h1 { font-size: 20px; font-weight: 500; position: absolute; left: 16px; top: 20px; }
.when { position: absolute; right: 16px; top: 22px; border: 1px solid #2c3235; border-radius: 2px; padding: 4px 10px; }
.panel { position: absolute; background: #181b1f; border: 1px solid #25282d; border-radius: 2px; overflow: hidden; }
.panel > b { display: block; padding: 8px 10px 0; font-weight: 500; white-space: nowrap; }
.row { position: absolute; font-size: 15px; font-weight: 500; padding: 4px 2px; }
.row::before { content: "\\25BE"; color: #8e8e9e; padding-right: 8px; }
.stat { color: white; }
.stat div { text-align: center; font-size: 46px; font-weight: 500; line-height: 74px; }
svg { display: block; }
svg text { fill: #9fa0ab; font-size: 11px; }
.legend { padding: 0 10px; line-height: 19px; font-size: 12px; overflow: hidden; }
.legend span { margin-right: 14px; white-space: nowrap; display: inline-block; }
.legend i { display: inline-block; width: 14px; height: 4px; border-radius: 1px; margin-right: 6px; vertical-align: 3px; }
table { width: 100%; border-collapse: collapse; margin-top: 4px; }
td, th { text-align: left; padding: 4px 12px; font-size: 12px; border-bottom: 1px solid #25282d; font-weight: 400; }
th { color: #6e9fff; font-weight: 500; }
"""


def dashboard() -> dict[str, Any]:
    """Give the dashboard as the sidecar gets it."""
    found: dict[str, Any] = json.loads(yaml.safe_load(MANIFEST.read_text())["data"]["dumpagent.json"])
    return found


class Prometheus:
    """Answers from the history alone, at its end."""

    def __init__(self, address: str) -> None:
        self._address = address

    def range(self, expression: str) -> list[dict[str, Any]]:
        """Give the series of `expression` over the time that is shown."""
        return self._ask("query_range", query=expression, start=END - SHOWN_S, end=END, step=_STEP_S)

    def now(self, expression: str) -> list[dict[str, Any]]:
        """Give the samples of `expression` at the end."""
        return self._ask("query", query=expression, time=END)

    def _ask(self, what: str, **parameters: object) -> list[dict[str, Any]]:
        url = f"http://{self._address}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found


@contextlib.contextmanager
def prometheus_of_the_history(folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus that holds the history, and scrapes nothing."""
    with (folder / "history").open("w") as out:
        write(out, [query for _, query in queries()])
    load = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "history", "data"]
    subprocess.run(load, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (folder / "prometheus.yaml").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            ["prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data",
             "--storage.tsdb.retention.time=100y", f"--web.listen-address={address}"],
            cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        for _ in range(600):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://{address}/-/ready", timeout=5).close()
                break
            time.sleep(0.1)
        yield Prometheus(address)
    finally:
        child.terminate()
        child.wait()


def page(prometheus: Prometheus) -> tuple[str, int]:
    """Give the dashboard as HTML, and its height in pixels. Raises LookupError for a panel without data."""
    board = dashboard()
    parts, height = [], 0
    for panel in board["panels"]:
        at = panel["gridPos"]
        column = (_WIDTH - 2 * _GAP) / 24
        left, top = _GAP + at["x"] * column + _GAP / 2, _TOP + at["y"] * (_ROW + _GAP)
        width, tall = at["w"] * column - _GAP, at["h"] * _ROW + (at["h"] - 1) * _GAP
        height = max(height, int(top + tall) + 2 * _GAP)
        style = f"left:{left:.0f}px;top:{top}px;width:{width:.0f}px;height:{tall}px"
        title = html.escape(panel["title"])
        if panel["type"] == "row":
            parts.append(f'<div class="row" style="{style}">{title}</div>')
            continue
        draw = {"stat": _stat, "timeseries": _series, "table": _table}[panel["type"]]
        look, inside = draw(panel, prometheus, width, tall)
        parts.append(
            f'<div class="panel {panel["type"]}" style="{style};{look}"><b>{title}</b>{inside}</div>'
        )
    when = f"{_clock(END - SHOWN_S)} to {_clock(END)} UTC"
    head = f'<h1>{html.escape(board["title"])}</h1><div class="when">{when}</div>'
    body = f'<body style="width:{_WIDTH}px;height:{height}px">{head}{"".join(parts)}</body>'
    return f'<!doctype html><meta charset="utf-8"><style>{_CSS}</style>{body}', height


def _expressions(panel: Panel) -> Iterator[tuple[str, str]]:
    for target in panel["targets"]:
        yield target["expr"].replace('"$node"', '".*"'), target.get("legendFormat") or ""


def _stat(panel: Panel, prometheus: Prometheus, _width: float, _tall: float) -> tuple[str, str]:
    ((expression, _),) = _expressions(panel)
    value = float(_some(panel, prometheus.now(expression))[0]["value"][1])
    defaults = panel["fieldConfig"]["defaults"]
    (colour,) = [
        s["color"] for s in defaults["thresholds"]["steps"] if s["value"] is None or value >= s["value"]
    ][-1:]
    return f"background:{_THRESHOLDS[colour]}", f"<div>{_written(value, defaults.get('unit', 'short'))}</div>"


def _table(panel: Panel, prometheus: Prometheus, _width: float, _tall: float) -> tuple[str, str]:
    ((expression, _),) = _expressions(panel)
    rows = _some(panel, prometheus.now(expression))
    columns = sorted(rows[0]["metric"])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in [*columns, "Value"])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(row['metric'][name])}</td>" for name in columns) + f"<td>{row['value'][1]}</td></tr>"
        for row in sorted(rows, key=lambda row: [row["metric"][name] for name in columns])
    )  # fmt: skip
    return "", f"<table><tr>{head}</tr>{body}</table>"


def _series(panel: Panel, prometheus: Prometheus, width: float, tall: float) -> tuple[str, str]:
    series: list[Series] = []
    for expression, legend in _expressions(panel):
        for found in prometheus.range(expression):
            points = [(float(at), float(value)) for at, value in found["values"]]
            name = re.sub(r"{{(\w+)}}", lambda label, of=found: of["metric"].get(label[1], ""), legend)  # type: ignore[misc] # a default argument
            series.append((name, [point for point in points if not math.isnan(point[1])]))
    series = _some(panel, [each for each in series if each[1]])
    # Those that say something first: a legend of zeros helps nobody.
    order = sorted(range(len(series)), key=lambda number: not any(value for _, value in series[number][1]))
    names = [
        f'<span><i style="background:{_colour(number)}"></i>{html.escape(series[number][0])}</span>'
        for number in sorted(order[:_LEGENDS_MOST])
    ]
    if len(series) > _LEGENDS_MOST:
        names.append(f"<span>and {len(series) - _LEGENDS_MOST} more</span>")
    lines = math.ceil(sum(7.0 * len(re.sub("<[^>]*>", "", name)) + 34 for name in names) / (width - 20))
    unit = panel["fieldConfig"]["defaults"].get("unit", "short")
    chart = _chart(series, unit, width, tall - 30 - max(2, lines) * 19 - 6)
    return "", f'{chart}<div class="legend">{"".join(names)}</div>'


def _chart(series: Sequence[Series], unit: str, width: float, tall: float) -> str:
    left, right, above, below = 74, 14, 10, 22
    most = max(value for _, points in series for _, value in points)
    ticks = _ticks(most, unit)
    top = ticks[-1]

    def x(at: float) -> float:
        return left + (at - (END - SHOWN_S)) / SHOWN_S * (width - left - right)

    def y(value: float) -> float:
        return above + (1 - value / top) * (tall - above - below)

    drawn = [
        f'<line x1="{left}" x2="{width - right:.0f}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#2a2d33"/>'
        f'<text x="{left - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{_written(tick, unit)}</text>'
        for tick in ticks
    ]
    for hour in range(0, SHOWN_S + 1, 3600):
        at = END - SHOWN_S + hour
        anchor = "end" if hour == SHOWN_S else "middle"
        drawn.append(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{above}" y2="{tall - below:.0f}" stroke="#22252b"/>'
            f'<text x="{x(at):.1f}" y="{tall - 5:.0f}" text-anchor="{anchor}">{_clock(at)}</text>'
        )
    for number, (_, points) in enumerate(series):
        for run in _runs(points):
            places = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
            if len(series) <= 4:
                shape = f"{x(run[0][0]):.1f},{y(0):.1f} {places} {x(run[-1][0]):.1f},{y(0):.1f}"
                drawn.append(f'<polygon points="{shape}" fill="{_colour(number)}" fill-opacity="0.07"/>')
            drawn.append(
                f'<polyline points="{places}" fill="none" stroke="{_colour(number)}" stroke-width="1.5" stroke-linejoin="round"/>'
            )
    return f'<svg width="{width:.0f}" height="{tall:.0f}">{"".join(drawn)}</svg>'


def _runs(points: list[tuple[float, float]]) -> Iterator[list[tuple[float, float]]]:
    """Give the points in pieces: where there was no sample, no line is drawn."""
    run = points[:1]
    for before, point in itertools.pairwise(points):
        if point[0] - before[0] > 1.5 * _STEP_S:
            yield run
            run = []
        run.append(point)
    yield run


def _ticks(most: float, unit: str) -> list[float]:
    """Give round values from 0 to above `most`, at most six."""
    most = most * 1.05 or 1.0
    base = 1024.0 if unit == "bytes" else 1000.0
    power = base ** math.floor(math.log(most, base)) if unit in ("bytes", "Bps") else 1.0
    if unit == "s" and most > 60:
        power = 3600.0 if most > 2 * 3600 else 60.0
    rough = most / power / 5
    ten = 10 ** math.floor(math.log10(rough))
    step = next(each * ten for each in (1, 2, 2.5, 5, 10) if each * ten >= rough) * power
    return [step * number for number in range(math.ceil(most / step) + 1)]


def _written(value: float, unit: str) -> str:
    """Give the value as Grafana writes this unit."""
    if unit == "percentunit":
        return f"{value * 100:.0f}%"
    if unit in ("bytes", "Bps"):
        base, names = (
            (1024, ("B", "KiB", "MiB", "GiB")) if unit == "bytes" else (1000, ("B/s", "kB/s", "MB/s", "GB/s"))
        )
        power = min(3, int(math.log(value, base) + 1e-9)) if value >= 1 else 0
        return f"{value / base**power:.3g} {names[power]}"
    if unit == "s":
        for seconds, name in ((3600.0, "hours"), (60.0, "mins"), (1.0, "s")):
            if value >= (seconds * 2 if name == "hours" else seconds):
                return f"{value / seconds:.3g} {name}"
        return f"{value * 1000:.3g} ms" if value else "0 s"
    return f"{value:.3g}" if value < 1000 else f"{value / 1000:.3g} K"


def _some(panel: Panel, found: list[Any]) -> list[Any]:
    if not found:
        raise LookupError(f"the panel {panel['title']!r} has no data")
    return found


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _clock(at: float) -> str:
    return time.strftime("%H:%M", time.gmtime(at))


def main() -> None:
    missing = [program for program in ("prometheus", "promtool", "chromium") if not shutil.which(program)]
    if missing:
        sys.exit(f"no {', '.join(missing)} on PATH: apt-get install prometheus chromium")
    with tempfile.TemporaryDirectory(prefix="dashboard-") as name:
        folder = Path(name)
        with prometheus_of_the_history(folder) as prometheus:
            text, height = page(prometheus)
        (folder / "page.html").write_text(text)
        subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={name}/profile",
             f"--window-size={_WIDTH},{height}", f"--screenshot={PICTURE}", f"file://{name}/page.html"],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
