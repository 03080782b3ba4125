"""The histogram against the JVM's own: `jcmd GC.class_histogram -all` of the same idle JVM, class by class."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from dumpagent.cli.commands.inspect import inspect
from dumpagent.hprof.facts import java_name
from dumpagent.hprof.histogram import Histogram
from tests.harness.jvm import Jdk

pytestmark = pytest.mark.slow

# Gaps that the collector fills with arrays of a class of its own; in a dump they are int[].
_FILLERS = {"jdk.internal.vm.FillerElement[]", "jdk.internal.vm.FillerObject", "int[]"}
_ADDRESS = re.compile(r"/0x[0-9a-f]+")


def jcmd(jdk: Jdk, pid: int, *command: str) -> str:
    return subprocess.run(
        [str(jdk.tool("jcmd")), str(pid), *command], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def counted_by_jvm(text: str) -> dict[str, tuple[int, int]]:
    """Give objects and bytes of each class."""
    counts: dict[str, tuple[int, int]] = {}
    for line in text.splitlines():
        found = re.match(r"\s*\d+:\s+(\d+)\s+(\d+)\s+(\S+)", line)
        if found:
            name = java_name(found[3]) if found[3].startswith("[") else found[3]
            name = _ADDRESS.sub("", name)
            before = counts.get(name, (0, 0))
            counts[name] = before[0] + int(found[1]), before[1] + int(found[2])
    return counts


def both(jdk: Jdk, folder: Path, options: Sequence[str]) -> tuple[dict[str, tuple[int, int]], Histogram]:
    """Give what the JVM counts of itself, and what its dump shows."""
    with jdk.start_leaky(folder, xmx_mib=200, options=options) as app:
        app.ask("fill 10")
        app.ask("classes 50")
        jcmd(jdk, app.pid, "GC.class_histogram", "-all")  # what jcmd itself loads is there before the dump
        jcmd(jdk, app.pid, "GC.heap_dump", "-all", f"{folder}/a.hprof")
        wanted = counted_by_jvm(jcmd(jdk, app.pid, "GC.class_histogram", "-all"))
    histogram = inspect(f"{folder}/a.hprof", classes=1 << 30, quick=False).histogram
    assert histogram is not None
    assert histogram.damage is None
    return wanted, histogram


def compare(wanted: dict[str, tuple[int, int]], histogram: Histogram) -> None:
    """Hold 99 of 100 classes to the JVM's count and bytes, and java.lang.Class to 0.5 % of its bytes."""
    found: dict[str, tuple[int, int]] = {}
    for each in histogram.classes:
        name = _ADDRESS.sub("", each.name)
        before = found.get(name, (0, 0))
        found[name] = before[0] + each.instances, before[1] + each.shallow_bytes
    compared = set(wanted) - _FILLERS
    differing = {
        name: (wanted[name], found.get(name)) for name in compared if wanted[name] != found.get(name)
    }
    assert len(compared) > 200
    assert len(differing) <= len(compared) / 100, differing
    # The JVM counts two classes more from 21 on, those of its fillers.
    (classes, classes_bytes), (seen, seen_bytes) = wanted["java.lang.Class"], found["java.lang.Class"]
    assert abs(classes_bytes - seen_bytes) <= 200 * (classes - seen) <= 400


def test_ninety_nine_of_a_hundred_classes_have_as_many_objects_and_bytes_as_the_jvm_says(
    every_jdk: Jdk, tmp_path: Path
) -> None:
    compare(*both(every_jdk, tmp_path, ()))


@pytest.mark.parametrize(
    ("options", "layout"),
    [
        (["-XX:ObjectAlignmentInBytes=16"], "compressed references, aligned to 16 bytes"),
        (["-XX:ObjectAlignmentInBytes=32"], "compressed references, aligned to 32 bytes"),
        (["-XX:-UseCompressedOops"], "full references"),
        (["-XX:-UseSerialGC", "-XX:+UseG1GC"], "compressed references"),
        (["-XX:-UseSerialGC", "-XX:+UseShenandoahGC"], "compressed references"),
        (["-XX:-UseSerialGC", "-XX:+UseZGC"], "full references"),
    ],
)
def test_sizes_are_those_of_the_jvm_whatever_its_layout_and_collector(
    every_jdk: Jdk, options: list[str], layout: str, tmp_path: Path
) -> None:
    wanted, histogram = both(every_jdk, tmp_path, ["-XX:+UnlockExperimentalVMOptions", *options])
    assert histogram.layout.startswith(layout)
    compare(wanted, histogram)
