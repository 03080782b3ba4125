"""An analysis as text for a terminal: who holds the memory first, tables behind it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from dumpagent.analyze.model import Analysis, Suspect

Style = Callable[..., str]
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_PATH_MOST = 14
_STACK_MOST = 8
_TEXT_MOST = 60


def clean(text: str) -> str:
    """Give `text` so that a terminal shows it as it is: what would steer it becomes an escape."""
    return _CONTROL.sub(
        lambda found: found[0].encode("unicode_escape", "surrogatepass").decode("ascii", "replace"), text
    )


def size(size_bytes: int) -> str:
    """Give a size as people read it."""
    amount, unit, *larger = float(size_bytes), "B", "KiB", "MiB", "GiB", "TiB"
    while amount >= 1024 and larger:
        amount, unit = amount / 1024, larger.pop(0)
    return f"{amount:.1f} {unit}" if unit != "B" else f"{size_bytes} B"


def plain(text: str, **_how: object) -> str:
    """Give `text` without a style."""
    return text


def as_text(analysis: Analysis, *, rows: int = 10, style: Style = plain) -> str:
    """Give the report; `style` colours a text as click.style does. It ends with a newline."""
    lines = [*_head(analysis, style), ""]
    for number, suspect in enumerate(analysis.suspects[:5], 1):
        lines += [*_suspect(number, suspect, style), ""]
    if not analysis.suspects:
        lines += ["  Nothing holds a large share of the heap.", ""]
    total = analysis.heap.reachable_bytes or 1
    lines += table(
        "Classes", ("instances", "own bytes", "kept alive", "share", "class"),
        [(f"{row.instances:,}", size(row.shallow_bytes), size(row.retained_bytes), f"{100 * row.retained_bytes / total:.1f}%", row.name)
         for row in analysis.classes[:rows]], style,
    )  # fmt: skip
    lines += table(
        "Threads", ("kept alive", "thread"),
        [(size(row.retained_bytes), row.name) for row in analysis.threads[:rows] if row.retained_bytes], style,
    )  # fmt: skip
    lines += table(
        "Largest collections", ("size", "kept alive", "collection", "holder"),
        [(f"{row.size:,}", size(row.retained_bytes), row.name, row.holder) for row in analysis.largest_collections[:rows]], style,
    )  # fmt: skip
    lines += table(
        "Collections with room that they do not use", ("wasted", "collections", "empty", "class"),
        [(size(row.wasted_bytes), f"{row.collections:,}", f"{row.empty:,}", row.name) for row in analysis.sparse_collections[:5]], style,
    )  # fmt: skip
    lines += table(
        "Classes loaded by several loaders", ("loaders", "instances", "class"),
        [(f"{row.loaders:,}", f"{row.instances:,}", row.name) for row in analysis.classes_with_many_loaders[:rows]], style,
    )  # fmt: skip
    if analysis.strings:
        at_least = "" if analysis.strings.exact else "at least "
        lines += table(
            "Texts that are there several times", ("wasted", "times", "text"),
            [(size(row.wasted_bytes), f"{at_least}{row.count:,}", _cut(row.text)) for row in analysis.strings.repeated[:rows]], style,
        )  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


def _head(analysis: Analysis, style: Style) -> list[str]:
    dump, heap = analysis.dump, analysis.heap
    lines = [f"{style(clean(dump.name), bold=True)}  {size(dump.size_bytes)}"]
    rows = [
        ("state", dump.state if not dump.damage else f"{dump.state}: {clean(dump.damage)}"),
        ("dump time", dump.dump_time or "not a possible one"),
        ("JVM", clean(dump.jvm or "not named")),
        ("reachable", f"{heap.reachable_objects:,} objects, {size(heap.reachable_bytes)} ({heap.layout})"),
        ("unreachable", f"{heap.unreachable_objects:,} objects, {size(heap.unreachable_bytes)}"),
    ]
    if dump.snapshots > 1:
        rows.append(("snapshots", f"{dump.snapshots} are in the file; this is the last whole one"))
    if heap.roots_made_up:
        rows.append(("roots", "missing: the dump is cut before them; all classes and threads stand for them"))
    if dump.oom_thread:
        rows.append(("died", f"OutOfMemoryError in thread {clean(dump.oom_thread)}"))
    return lines + [f"  {name:<12}{value}" for name, value in rows]


def _suspect(number: int, suspect: Suspect, style: Style) -> list[str]:
    lines = [
        style(f"{number}. {clean(suspect.holder)}", bold=True, fg="red" if number == 1 else None),
        f"   holds {size(suspect.retained_bytes)}, {100 * suspect.share:.0f}% of the heap",
    ]
    if suspect.places > 1:
        lines.append(f"   in {suspect.places} places; the way to the largest:")
    lines.append(f"   {style(clean(suspect.root), dim=True)}")
    shown = (
        suspect.path
        if len(suspect.path) <= _PATH_MOST
        else (*suspect.path[: _PATH_MOST // 2], *suspect.path[-_PATH_MOST // 2 :])
    )
    for place, step in enumerate(shown):
        if len(suspect.path) > _PATH_MOST and place == _PATH_MOST // 2:
            lines.append(f"     ... {len(suspect.path) - _PATH_MOST} more")
        label = f".{step.label}" if step.kind != "local" else f"local in {step.label or 'an unknown frame'}"
        lines.append(f"     {clean(label)}: {clean(step.target)}, keeps {size(step.retained_bytes)}")
    if suspect.contents:
        inside = ", ".join(
            f"{row.instances:,} {clean(row.name)} ({size(row.shallow_bytes)})" for row in suspect.contents[:4]
        )
        lines.append(f"   in it: {inside}")
    if suspect.also_held_by:
        lines.append(f"   also held by: {'; '.join(clean(name) for name in suspect.also_held_by[:4])}")
    lines += [
        f"   another holder of the {clean(other.target)}: {clean(other.holder)}.{clean(other.label)}"
        for other in suspect.other_holders[:3]
    ]
    return lines


def table(title: str, heads: Sequence[str], rows: Iterable[Sequence[str]], style: Style) -> list[str]:
    """Give the lines of a table, numbers to the right, with an empty one behind it; none if there are no rows."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[at]) for row in [list(heads), *cells]) for at in range(len(heads))]
    right = [
        all(
            row[at][:1].isdigit() or row[at][:1] in ("+", "-") or row[at].startswith("at least")
            for row in cells
        )
        for at in range(len(heads))
    ]

    def line(row: Sequence[str]) -> str:
        parts = [
            cell.rjust(width) if turn else cell.ljust(width)
            for cell, width, turn in zip(row, widths, right, strict=True)
        ]
        return "  " + "  ".join(parts).rstrip()

    return [style(title, bold=True), style(line(heads), dim=True), *(line(row) for row in cells), ""]


def _cut(text: str) -> str:
    return repr(text if len(text) <= _TEXT_MOST else text[:_TEXT_MOST] + "...")
