"""What an analysis found, as values: JSON, text and page are made of these. Sizes are bytes, shares 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class DumpPart:
    """Which dump it is. `state`: complete or truncated; `damage` is a clause."""

    name: str
    size_bytes: int
    format: str
    id_size: int
    dump_time: str | None
    jvm: str | None
    cause: str
    state: str
    damage: str | None
    snapshots: int
    oom_thread: str | None
    oom_stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeapPart:
    """The heap in numbers. What only weak or phantom references lead to counts as unreachable."""

    objects: int
    reachable_objects: int
    reachable_bytes: int
    unreachable_objects: int
    unreachable_bytes: int
    classes: int
    class_loaders: int
    roots: int
    roots_made_up: bool
    references: int
    dangling_references: int
    layout: str


@dataclass(frozen=True, slots=True)
class PathStep:
    """One reference on a way: `holder` (a class) refers by `label` to an object of class `target`.

    `kind` is static, field, element or local. `retained_bytes` is what the target keeps alive. `times`: as many equal
    steps follow one another.
    """

    holder: str
    kind: str
    label: str
    target: str
    target_id: str
    retained_bytes: int
    text: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Content:
    """Objects of one class among what a suspect keeps alive."""

    name: str
    instances: int
    shallow_bytes: int


@dataclass(frozen=True, slots=True)
class HolderRow:
    """Another object that refers to one on the way."""

    target: str
    holder: str
    label: str
    referrers: int


@dataclass(frozen=True, slots=True)
class Suspect:
    """Somebody who keeps much of the heap alive.

    `holder` names the static, field, local or ThreadLocal that holds it; `also_held_by` others that hold the same
    objects. `retained_bytes` would be free without it; where `shared`, only without all its holders together.
    """

    holder: str
    retained_bytes: int
    share: float
    places: int
    shared: bool
    summary: str
    object_class: str
    object_id: str
    root: str
    thread: str | None
    frame: str | None
    path: tuple[PathStep, ...]
    also_held_by: tuple[str, ...]
    other_holders: tuple[HolderRow, ...]
    contents: tuple[Content, ...]


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Reachable objects of one class: how many, their own bytes, what they keep alive together."""

    name: str
    loader: str
    instances: int
    shallow_bytes: int
    retained_bytes: int


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """One object that keeps much alive and that no other object dominates."""

    name: str
    id: str
    shallow_bytes: int
    retained_bytes: int


@dataclass(frozen=True, slots=True)
class LoaderRow:
    """A class loader: `name` is its class; what its classes and it keep alive."""

    name: str
    id: str
    classes: int
    retained_bytes: int


@dataclass(frozen=True, slots=True)
class ManyLoaders:
    """A class that several loaders have loaded."""

    name: str
    loaders: int
    instances: int


@dataclass(frozen=True, slots=True)
class CollectionRow:
    """A large collection: `size` is its size field; `holder` says who has it."""

    name: str
    id: str
    size: int
    retained_bytes: int
    holder: str


@dataclass(frozen=True, slots=True)
class SparseRow:
    """Collections of one class whose arrays have more room than they use."""

    name: str
    collections: int
    empty: int
    slots: int
    used: int
    wasted_bytes: int


@dataclass(frozen=True, slots=True)
class ThreadRow:
    """A thread, what it keeps alive by its fields and locals, and its stack, innermost frame first."""

    name: str
    id: str
    retained_bytes: int
    locals: tuple[str, ...]
    stack: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StringRow:
    """A text that is there several times. `count` is a lower bound where `Strings.exact` is false."""

    text: str
    count: int
    wasted_bytes: int


@dataclass(frozen=True, slots=True)
class StringPart:
    """Texts that are there several times."""

    strings: int
    exact: bool
    repeated: tuple[StringRow, ...]


@dataclass(frozen=True, slots=True)
class Analysis:
    """All that an analysis found."""

    schema_version: int
    dump: DumpPart
    heap: HeapPart
    suspects: tuple[Suspect, ...]
    classes: tuple[ClassRow, ...]
    biggest_objects: tuple[ObjectRow, ...]
    class_loaders: tuple[LoaderRow, ...]
    classes_with_many_loaders: tuple[ManyLoaders, ...]
    largest_collections: tuple[CollectionRow, ...]
    sparse_collections: tuple[SparseRow, ...]
    threads: tuple[ThreadRow, ...]
    strings: StringPart | None
