"""What grew between two dumps, as values: JSON and text are made of these. Sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two dumps. `state`: complete or truncated."""

    name: str
    size_bytes: int
    dump_time: str | None
    jvm: str | None
    state: str
    layout: str
    reachable_objects: int
    reachable_bytes: int
    unreachable_bytes: int


@dataclass(frozen=True, slots=True)
class ClassGrowth:
    """Reachable objects of one class, before and now; `grown` values are the differences.

    Retained bytes are null where the two dumps are not comparable.
    """

    name: str
    old_instances: int
    new_instances: int
    grown_instances: int
    old_shallow_bytes: int
    new_shallow_bytes: int
    grown_shallow_bytes: int
    old_retained_bytes: int | None
    new_retained_bytes: int | None
    grown_retained_bytes: int | None


@dataclass(frozen=True, slots=True)
class OwnerGrowth:
    """What one static or field holds, before and now. Each reachable object counts for one owner alone.

    `kind` is static or field (`holder` is the class that declares it, `label` its name), local (of a thread's stack)
    or root (what no field leads to). The sizes are those of the objects themselves.
    """

    holder: str
    label: str
    kind: str
    old_objects: int
    new_objects: int
    grown_objects: int
    old_bytes: int
    new_bytes: int
    grown_bytes: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What grew from `old` to `new`. `comparable` is false where JVM or layout differ: objects of `old` then have the sizes of `new`.

    `notes` are sentences on what is no growth. Rows that did not grow are left out.
    """

    schema_version: int
    old: Side
    new: Side
    comparable: bool
    notes: tuple[str, ...]
    owners: tuple[OwnerGrowth, ...]
    classes: tuple[ClassGrowth, ...]
