"""What grew, as JSON (its schema is `growth.schema.json` beside this module) or as text for a terminal."""

from __future__ import annotations

import dataclasses
import json

from dumpagent.analyze.growth.model import ClassGrowth, Growth, OwnerGrowth, Side
from dumpagent.analyze.report.text import Style, clean, plain, size, table

_KINDS = {"root": "(roots)", "local": "(local variables of threads)"}


def growth_as_json(growth: Growth) -> str:
    """Give what grew as one JSON text; no surrogate and no control character stands in it as itself."""
    return json.dumps(dataclasses.asdict(growth), ensure_ascii=True)


def growth_as_text(growth: Growth, *, style: Style = plain) -> str:
    """Give what grew; `style` colours a text as click.style does. It ends with a newline."""
    lines = [*_side("old", growth.old, style), *_side("new", growth.new, style), ""]
    lines += [f"  note: {clean(note)}" for note in growth.notes]
    lines += [""] if growth.notes else []
    lines += table(
        "Who holds more", ("grown", "from", "to", "objects", "from", "to", "holder"), map(_owner, growth.owners), style
    )  # fmt: skip
    lines += table(
        "Classes that grew", ("grown", "from", "to", "instances", "from", "to", "kept alive", "class"),
        map(_class, growth.classes), style,
    )  # fmt: skip
    if not growth.owners and not growth.classes:
        lines.append("  Nothing grew.")
    return "\n".join(lines).rstrip() + "\n"


def _side(which: str, side: Side, style: Style) -> list[str]:
    told = f"{side.dump_time or 'no possible time'}, {clean(side.jvm or 'JVM not named')}, {side.state}"
    heap = f"{side.reachable_objects:,} reachable objects, {size(side.reachable_bytes)} ({side.layout})"
    return [f"{which}  {style(clean(side.name), bold=True)}", f"     {told}", f"     {heap}"]


def _owner(row: OwnerGrowth) -> tuple[str, ...]:
    holder = f"{row.holder}.{row.label}" if row.holder else _KINDS[row.kind]
    counts = (f"{row.grown_objects:+,}", f"{row.old_objects:,}", f"{row.new_objects:,}")
    return f"+{size(row.grown_bytes)}", size(row.old_bytes), size(row.new_bytes), *counts, holder


def _class(row: ClassGrowth) -> tuple[str, ...]:
    counts = (f"{row.grown_instances:+,}", f"{row.old_instances:,}", f"{row.new_instances:,}")
    kept = "-" if row.grown_retained_bytes is None else _signed(row.grown_retained_bytes)
    sizes = (f"+{size(row.grown_shallow_bytes)}", size(row.old_shallow_bytes), size(row.new_shallow_bytes))
    return *sizes, *counts, kept, row.name


def _signed(size_bytes: int) -> str:
    return f"{'-' if size_bytes < 0 else '+'}{size(abs(size_bytes))}"
