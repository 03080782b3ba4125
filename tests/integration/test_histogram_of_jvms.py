"""The histogram against the JVM's own: `jcmd GC.class_histogram -all` of the same idle JVM, class by class."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from dumpagent.cli.inspect import inspect
from dumpagent.hprof.facts import java_name
from tests.harness.jvm import Jdk

pytestmark = pytest.mark.slow

# Gaps that the collector fills with arrays of a class of its own; in a dump they are int[].
_FILLERS = {"jdk.internal.vm.FillerElement[]", "jdk.internal.vm.FillerObject", "int[]"}
_ADDRESS = re.compile(r"/0x[0-9a-f]+")


def jcmd(jdk: Jdk, pid: int, *command: str) -> str:
    return subprocess.run(
        [str(jdk.tool("jcmd")), str(pid), *command], check=True, capture_output=True, text=True, timeout=120
    ).stdout


def counted_by_jvm(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for line in text.splitlines():
        found = re.match(r"\s*\d+:\s+(\d+)\s+\d+\s+(\S+)", line)
        if found:
            name = java_name(found[2]) if found[2].startswith("[") else found[2]
            name = _ADDRESS.sub("", name)
            counts[name] = counts.get(name, 0) + int(found[1])
    return counts


def test_ninety_nine_of_a_hundred_classes_have_as_many_objects_as_the_jvm_says(
    every_jdk: Jdk, tmp_path: Path
) -> None:
    with every_jdk.start_leaky(tmp_path, xmx_mib=200) as app:
        app.ask("fill 20")
        app.ask("classes 50")
        jcmd(
            every_jdk, app.pid, "GC.class_histogram", "-all"
        )  # what jcmd itself loads is there before the dump
        jcmd(every_jdk, app.pid, "GC.heap_dump", "-all", f"{tmp_path}/a.hprof")
        wanted = counted_by_jvm(jcmd(every_jdk, app.pid, "GC.class_histogram", "-all"))
    histogram = inspect(f"{tmp_path}/a.hprof", classes=1 << 30, quick=False).histogram
    assert histogram is not None
    assert histogram.damage is None
    found: dict[str, int] = {}
    for each in histogram.classes:
        name = _ADDRESS.sub("", each.name)
        found[name] = found.get(name, 0) + each.instances
    compared = set(wanted) - _FILLERS
    differing = {
        name: (wanted[name], found.get(name)) for name in compared if wanted[name] != found.get(name)
    }
    assert len(compared) > 200
    assert len(differing) <= len(compared) / 100, differing
