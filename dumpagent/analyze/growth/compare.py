"""Compares two measured heaps: what grew, and what only looks like growth."""

from __future__ import annotations

from dumpagent.analyze.growth.measure import Amount, Measured
from dumpagent.analyze.growth.model import SCHEMA_VERSION, ClassGrowth, Growth, OwnerGrowth

_NOTED_SHARE = 0.05  # unreachable objects are told of from this share of the heap on


def compare(old: Measured, new: Measured, *, rows: int) -> Growth:
    """Give what grew from `old`, measured like `new`, to `new`: `rows` of each table at most, most growth first."""
    comparable = new.ruler.fits(old.ruler)
    owners = [_owner(key, old.owners.get(key, Amount()), amount) for key, amount in new.owners.items()]
    classes = [
        _class(name, old.classes.get(name, Amount()), amount, retained=comparable)
        for name, amount in new.classes.items()
    ]
    owners = [row for row in owners if row.grown_bytes > 0]
    classes = [row for row in classes if row.grown_shallow_bytes > 0]
    owners.sort(key=lambda row: (-row.grown_bytes, row.holder, row.label, row.kind))
    classes.sort(key=lambda row: (-row.grown_shallow_bytes, row.name))
    return Growth(
        schema_version=SCHEMA_VERSION, old=old.side, new=new.side, comparable=comparable,
        notes=tuple(_notes(old, new, comparable=comparable)), owners=tuple(owners[:rows]), classes=tuple(classes[:rows]),
    )  # fmt: skip


def _owner(key: tuple[str, str, str], old: Amount, new: Amount) -> OwnerGrowth:
    return OwnerGrowth(
        *key, old.objects, new.objects, new.objects - old.objects,
        old.size_bytes, new.size_bytes, new.size_bytes - old.size_bytes,
    )  # fmt: skip


def _class(name: str, old: Amount, new: Amount, *, retained: bool) -> ClassGrowth:
    kept = (old.retained_bytes, new.retained_bytes, new.retained_bytes - old.retained_bytes)
    old_kept, new_kept, grown_kept = kept if retained else (None, None, None)
    return ClassGrowth(
        name, old.objects, new.objects, new.objects - old.objects,
        old.size_bytes, new.size_bytes, new.size_bytes - old.size_bytes, old_kept, new_kept, grown_kept,
    )  # fmt: skip


def _notes(old: Measured, new: Measured, *, comparable: bool) -> list[str]:
    found = list[str]()
    if old.ruler.jvm and new.ruler.jvm and old.ruler.jvm != new.ruler.jvm:
        found.append(f"the JVMs differ: {old.ruler.jvm}, then {new.ruler.jvm}")
    elif (old.ruler.jvm is None) != (new.ruler.jvm is None):
        side = "OLD" if old.ruler.jvm is None else "NEW"
        found.append(f"the JVM of {side} is not known; it is taken for the same")
    if old.ruler.layout != new.ruler.layout:
        found.append(f"objects lie otherwise in memory: {old.ruler.layout}, then {new.ruler.layout}")
    if not comparable:
        found.append(
            "objects of OLD are counted with the sizes that they have in NEW, so that this is not shown as growth; "
            "what they keep alive is not compared"
        )
    for side, measured in (("OLD", old), ("NEW", new)):
        if measured.dump.damage:
            found.append(f"{side} is cut off: what is missing there was not counted ({measured.dump.damage})")
        if measured.heap.roots_made_up:
            found.append(f"{side} has no roots: all classes and threads stand for them")
        if measured.dump.snapshots > 1:
            found.append(f"{side} has {measured.dump.snapshots} snapshots; the last whole one is compared")
    if old.side.dump_time and new.side.dump_time and old.side.dump_time > new.side.dump_time:
        found.append(f"OLD was written after NEW: {old.side.dump_time}, {new.side.dump_time}")
    unreachable = (old.side.unreachable_bytes, new.side.unreachable_bytes)
    fillers = (old.filler_bytes, new.filler_bytes)
    if max(unreachable) > _NOTED_SHARE * new.side.reachable_bytes or any(fillers):
        of_them = (
            f" (fillers of the collector among them: {fillers[0]:,}, then {fillers[1]:,})"
            if any(fillers)
            else ""
        )
        found.append(
            f"unreachable objects are not compared: {unreachable[0]:,} bytes, then {unreachable[1]:,}{of_them}"
        )
    return found
