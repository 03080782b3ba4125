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
# The same of leaks that were thought of after the rules were written: BlindLeaks.java.
BLIND_JAR = JAR.with_name("blind-leaks.jar")
BLIND_HOLDERS = {
    "enum": "BlindLeaks$Registry.entries",
    "weakmap": "BlindLeaks$TenantCache.BY_TENANT",
    "skiplist": "BlindLeaks$Ranking.SCORES",
    "timer": "BlindLeaks$Reminders.TIMER",
    "thread": "BlindLeaks$Poller.received",
    "inner": "BlindLeaks$Clicks.HANDLERS",
    "lambda": "BlindLeaks$Suppliers.LATER",
    "future": "BlindLeaks$Audit.FIRST",
    "grid": "BlindLeaks$Grid.CELLS",
    "deque": "BlindLeaks$Recent.history",
    "classvalue": "ClassValue",  # a dump does not say of which class it is
    "delays": "BlindLeaks$Retries.QUEUE",
    "scheduler": "BlindLeaks$Jobs.SCHEDULER",
    "enummap": "BlindLeaks$Alerts.BY_LEVEL",
    "tree": "BlindLeaks$Index.root",
    "text": "BlindLeaks$Texts.LOG",
    "inherited": "BlindLeaks$Inherited.CONTEXT",
    "hook": "BlindLeaks$Shutdown$1.val$kept",
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


def dump_blind_leak(jdk: Jdk, leak: str, path: Path, *, mib: int = 15, options: list[str]) -> None:
    """The same with a leak of BLIND_HOLDERS."""
    argv = [
        str(jdk.java),
        "-Xmx160m",
        *options,
        "-cp",
        str(BLIND_JAR),
        "BlindLeaks",
        leak,
        str(mib),
        str(path),
    ]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=150)
