"""Twelve applications that die of a leak: the summary of their dumps names the holder of at least ten."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from dumpagent.kernel.reading import open_regular
from dumpagent.summary.summarise import summarise
from tests.harness.jvm import JAR, Jdk, any_jdk, pinned_jdk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# Leak -> what may be named as its owner.
LEAKS = {
    "static-map": {"Leaks$Registry.CACHE"},
    "thread-local": {"Leaks$Worker.CONTEXT"},
    "session-map": {"Leaks$SessionStore.sessions", "Leaks$App.store"},
    "executor-queue": {"Leaks$Pool.executor"},
    "listeners": {"Leaks$Bus.listeners", "Leaks$Pool.bus"},
    "linked-list": {"Leaks$Chain.head", "Leaks$Pool.chain"},
    "class-loaders": {"Leaks$Plugin.TABLE", "Leaks$Plugins.LOADED"},
    "byte-buffers": {"Leaks$Buffers.pooled", "Leaks$Pool.buffers"},
    "finalizers": {"java.lang.ref.Finalizer.unfinalized", "java.lang.ref.Finalizer.queue"},
    "soft-cache": {"Leaks$SoftCache.ENTRIES"},
    "local": {"a local variable of thread"},
    "two-maps": {"Leaks$IndexA.byName", "Leaks$IndexB.byNumber", "Leaks$Indexes."},
}


def owner_of(jdk: Jdk, leak: str, folder: Path) -> tuple[str, float]:
    """Give what the summary of a leak's dump names, and the CPU seconds that it took."""
    path = folder / f"{leak}.hprof"
    subprocess.run(
        [
            *(str(jdk.java), "-Xmx40m", "-XX:+UseSerialGC", "-XX:+HeapDumpOnOutOfMemoryError"),
            *(f"-XX:HeapDumpPath={path}", "-XX:+ExitOnOutOfMemoryError"),
            *("-cp", str(JAR.with_name("leaks.jar")), "Leaks", leak),
        ],
        capture_output=True,
        timeout=300,
        check=False,
    )
    with open_regular(str(path)) as opened:
        size_bytes = opened.status().st_size
        report = summarise(opened, size_bytes=size_bytes, cpu_s=time.process_time)
    assert report is not None
    if leak == "class-loaders":
        assert report.loaded_often[0].name == "Leaks$Plugin"
        assert report.loaded_often[0].loaders > 100
    path.unlink()
    return report.owner.name if report.owner else "nothing", report.cpu_s


@pytest.mark.parametrize("version", ["own", "25.0.2.1"])
def test_the_holder_is_named_in_ten_of_twelve_leaks(version: str, tmp_path: Path) -> None:
    jdk = any_jdk() if version == "own" else pinned_jdk(version)
    named = {leak: owner_of(jdk, leak, tmp_path) for leak in LEAKS}
    right = [leak for leak, (name, _) in named.items() if any(name.startswith(each) for each in LEAKS[leak])]
    assert len(right) >= 10, named
