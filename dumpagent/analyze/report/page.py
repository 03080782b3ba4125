"""An analysis as one HTML page: no network, no script, readable on a phone and in the dark.

Everything that a dump says is cleaned of control characters and escaped, and a policy in the page forbids scripts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from dumpagent.analyze.model import Analysis, Suspect
from dumpagent.analyze.report.text import clean, size

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2430; --dim: #5b6677; --back: #fff; --box: #f5f7fa; --line: #dde3ea;
        --hot: #c0262d; --bar: #d9534f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e9f0; --dim: #9aa7b8; --back: #14181f; --box: #1c222c;
        --line: #303a48; --hot: #ff7b72; --bar: #c4504b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; color: var(--ink); background: var(--back);
       font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; margin: 0 0 .5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; color: var(--hot); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .2rem 1.5rem; margin: 0; }
.facts div { border-bottom: 1px solid var(--line); padding: .2rem 0; }
dt { color: var(--dim); font-size: .85rem; } dd { margin: 0; }
article { background: var(--box); border: 1px solid var(--line); border-radius: .5rem; padding: .8rem 1rem; margin: .8rem 0; }
.bar { height: .5rem; background: var(--line); border-radius: .25rem; margin: .3rem 0 .6rem; }
.bar span { display: block; height: 100%; min-width: 2px; background: var(--bar); border-radius: .25rem; }
ol.way { list-style: none; margin: .3rem 0; padding: 0; font-family: ui-monospace, monospace; font-size: .88rem; }
ol.way li { padding: .1rem 0 .1rem 1rem; border-left: 2px solid var(--line); }
.dim { color: var(--dim); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th { text-align: left; color: var(--dim); font-weight: 600; } th, td { padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td { overflow-wrap: anywhere; min-width: 4rem; }
pre { overflow-x: auto; font-size: .85rem; margin: .3rem 0; }
summary { cursor: pointer; padding: .2rem 0; }
"""


def as_page(analysis: Analysis) -> str:
    """Give the page."""
    name = _text(analysis.dump.name)
    total = analysis.heap.reachable_bytes or 1
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>Heap dump {name}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{name}</h1>",
        _facts(analysis),
        "<h2>Who holds the memory</h2>",
        *(_suspect(number, suspect) for number, suspect in enumerate(analysis.suspects, 1)),
    ]
    if not analysis.suspects:
        parts.append('<p class="dim">Nothing holds a large share of the heap.</p>')
    parts += [
        _table("Classes", ("instances", "own bytes", "kept alive", "share", "class", "loader"), (
            (f"{row.instances:,}", size(row.shallow_bytes), size(row.retained_bytes),
             f"{100 * row.retained_bytes / total:.1f}%", row.name, row.loader) for row in analysis.classes), 4),
        _table("Largest objects", ("kept alive", "own bytes", "object", "address"), (
            (size(row.retained_bytes), size(row.shallow_bytes), row.name, row.id) for row in analysis.biggest_objects), 2),
        _threads(analysis),
        _table("Largest collections", ("size", "kept alive", "collection", "holder"), (
            (f"{row.size:,}", size(row.retained_bytes), row.name, row.holder) for row in analysis.largest_collections), 2),
        _table("Collections with room that they do not use", ("wasted", "collections", "empty", "class"), (
            (size(row.wasted_bytes), f"{row.collections:,}", f"{row.empty:,}", row.name) for row in analysis.sparse_collections), 3),
        _table("Class loaders", ("kept alive", "classes", "loader", "address"), (
            (size(row.retained_bytes), f"{row.classes:,}", row.name, row.id) for row in analysis.class_loaders), 2),
        _table("Classes loaded by several loaders", ("loaders", "instances", "class"), (
            (f"{row.loaders:,}", f"{row.instances:,}", row.name) for row in analysis.classes_with_many_loaders), 2),
    ]  # fmt: skip
    if analysis.strings:
        at_least = "" if analysis.strings.exact else "at least "
        parts.append(
            _table("Texts that are there several times", ("wasted", "times", "text"), (
                (size(row.wasted_bytes), f"{at_least}{row.count:,}", row.text) for row in analysis.strings.repeated), 2)
        )  # fmt: skip
    return "\n".join([*parts, "</body></html>\n"])


def _text(text: str) -> str:
    return html.escape(clean(text))


def _facts(analysis: Analysis) -> str:
    dump, heap = analysis.dump, analysis.heap
    rows = [
        ("State", f"{dump.state}: {dump.damage}" if dump.damage else dump.state),
        ("Dump time", dump.dump_time or "not a possible one"),
        ("JVM", dump.jvm or "not named"),
        ("Size of the file", size(dump.size_bytes)),
        ("Reachable", f"{heap.reachable_objects:,} objects, {size(heap.reachable_bytes)}"),
        ("Unreachable", f"{heap.unreachable_objects:,} objects, {size(heap.unreachable_bytes)}"),
        ("Classes", f"{heap.classes:,} of {heap.class_loaders:,} loaders"),
        ("HeapLayout", heap.layout),
    ]
    if dump.oom_thread:
        rows.append(("Out of memory in", f"thread {dump.oom_thread}"))
    if heap.roots_made_up:
        rows.append(("Roots", "missing: the dump is cut before them; all classes and threads stand for them"))
    cells = "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in rows)
    return f'<dl class="facts">{cells}</dl>'


def _suspect(number: int, suspect: Suspect) -> str:
    percent = 100 * suspect.share
    way = [f'<li class="dim">{_text(suspect.root)}</li>']
    for step in suspect.path:
        label = f".{step.label}" if step.kind != "local" else f"local in {step.label or 'an unknown frame'}: "
        kept = f'<span class="dim">{_text(step.target)}, keeps {size(step.retained_bytes)}</span>'
        way.append(f"<li>{_text(label)} {kept}</li>")
    more = [f"In {suspect.places:,} places; the way to the largest:"] if suspect.places > 1 else []
    notes = [f"Also held by {_text(name)}" for name in suspect.also_held_by]
    notes += [
        f"Another holder of the {_text(other.target)}: {_text(other.holder)}.{_text(other.label)}"
        for other in suspect.other_holders
    ]
    inside = _table(
        "", ("objects", "own bytes", "class"),
        ((f"{row.instances:,}", size(row.shallow_bytes), row.name) for row in suspect.contents), 2,
    )  # fmt: skip
    return "\n".join(
        [
            f"<article><h3>{number}. {_text(suspect.holder)}</h3>",
            f"<div>holds <b>{size(suspect.retained_bytes)}</b>, {percent:.0f}% of the heap</div>",
            f'<div class="bar"><span style="width:{min(100.0, percent):.1f}%"></span></div>',
            *(f"<div>{text}</div>" for text in more),
            f'<ol class="way">{"".join(way)}</ol>',
            *(f'<div class="dim">{text}</div>' for text in notes),
            f"<details><summary>What it holds</summary>{inside}</details></article>",
        ]
    )


def _threads(analysis: Analysis) -> str:
    if not analysis.threads:
        return ""
    parts = ["<h2>Threads</h2>"]
    for row in analysis.threads:
        stack = "\n".join(_text(frame) for frame in row.stack) or "no stack"
        held = "".join(f"<li>{_text(local)}</li>" for local in row.locals)
        parts.append(
            f"<details><summary>{_text(row.name)} <span class='dim'>keeps {size(row.retained_bytes)}</span></summary>"
            f"<ul>{held}</ul><pre>{stack}</pre></details>"
        )
    return "\n".join(parts)


def _table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> str:
    """Give a table whose first `numbers` columns are numbers; nothing if it has no rows."""
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="n">{_text(cell)}</td>' if at < numbers else f"<td>{_text(cell)}</td>"
            for at, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    if not body:
        return ""
    head = "".join(
        f'<th class="n">{cell}</th>' if at < numbers else f"<th>{cell}</th>" for at, cell in enumerate(heads)
    )
    heading = f"<h2>{title}</h2>" if title else ""
    return (
        f'{heading}<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )
