"""Planted leaks: what each puts into the heap of a real JVM, and who must be named as its holder."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.harness.jvm import Jdk

JAR = Path(__file__).parent / "java" / "planted-leaks.jar"
# Leak -> what the name of the holder must contain.
HOLDERS = {
    "map": "PlantedLeaks.CACHE",
    "threadlocal": "PlantedLeaks.CONTEXT",
    "sessions": "PlantedLeaks$SessionStore.sessions",
    "queue": "PlantedLeaks.pool",
    "listeners": "PlantedLeaks$EventBus.listeners",
    "list": "PlantedLeaks.head",
    "loaders": "PlantedLeaks.PLUGINS",
    "buffers": "PlantedLeaks$Inbox.BUFFERS",
    "finalizer": "java.lang.ref.Finalizer",
    "soft": "PlantedLeaks$SoftCache.entries",
    "local": "local of thread main in PlantedLeaks.local",
    "shared": "BY_N",
}
COLLECTORS = {
    "Serial": ["-XX:+UseSerialGC"],
    "G1": ["-XX:+UseG1GC"],
    "Parallel": ["-XX:+UseParallelGC"],
    "ZGC": ["-XX:+UnlockExperimentalVMOptions", "-XX:+UseZGC"],
}


def dump_leak(jdk: Jdk, leak: str, path: Path, *, mib: int = 15, options: list[str]) -> None:
    """Run a JVM that leaks about `mib` MiB, and have it write its heap to `path`."""
    argv = [str(jdk.java), "-Xmx160m", *options, "-cp", str(JAR), "PlantedLeaks", leak, str(mib), str(path)]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=150)
