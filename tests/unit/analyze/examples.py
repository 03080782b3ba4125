"""An analysis made by hand, for what shows one."""

from __future__ import annotations

import dataclasses

from dumpagent.analyze.model import (
    Analysis,
    ClassRow,
    CollectionRow,
    Content,
    DumpPart,
    HeapPart,
    HolderRow,
    LoaderRow,
    ManyLoaders,
    ObjectRow,
    PathStep,
    SparseRow,
    StringPart,
    StringRow,
    Suspect,
    ThreadRow,
)

MIB = 1 << 20


def analysis(text: str = "com.acme.Session") -> Analysis:
    """Give an analysis in which every name that a dump can choose is `text`."""
    step = PathStep(text, "static", text, text, "0x10", 60 * MIB, text)
    local = PathStep(text, "local", text, text, "0x18", 60 * MIB, text)
    return Analysis(
        schema_version=1,
        dump=DumpPart(text, 200 * MIB, "JAVA PROFILE 1.0.2", 8, "2026-01-01T12:00:00Z", text, "oom", "complete", None, 1, text, (text,)),
        heap=HeapPart(1000, 900, 100 * MIB, 100, 5 * MIB, 50, 3, 20, False, 2000, 0, "compressed references"),
        suspects=(
            Suspect(
                holder=text, retained_bytes=60 * MIB, share=0.6, places=2, shared=False, summary=text, object_class=text,
                object_id="0x10", root=text, thread=text, frame=text, path=(step, local), also_held_by=(text,),
                other_holders=(HolderRow(text, text, text, 3),), contents=(Content(text, 3, 60 * MIB),),
            ),
        ),
        classes=(ClassRow(text, text, 1001, 50 * MIB, 60 * MIB),),
        biggest_objects=(ObjectRow(text, "0x10", 16, 60 * MIB),),
        class_loaders=(LoaderRow(text, "0x20", 5, MIB),),
        classes_with_many_loaders=(ManyLoaders(text, 7, 10),),
        largest_collections=(CollectionRow(text, "0x30", 12345, 60 * MIB, text),),
        sparse_collections=(SparseRow(text, 10, 5, 100, 20, 320),),
        threads=(ThreadRow(text, "0x40", 2 * MIB, (text,), (text,)),),
        strings=StringPart(100, True, (StringRow(text, 50, 4000),)),
    )  # fmt: skip


def without_suspects() -> Analysis:
    """Give an analysis of a heap in which nothing stands out."""
    return dataclasses.replace(analysis(), suspects=(), strings=None, threads=())
