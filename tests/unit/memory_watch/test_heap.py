"""How large a heap may grow is read as HotSpot reads it, and unknown where the spec does not say."""

from __future__ import annotations

from typing import Any

import pytest

from dumpagent.memory_watch.heap import heap_of, spec_limit

MIB = 1 << 20


def _container(*args: str, **env: str) -> dict[str, Any]:
    return {"args": list(args), "env": [{"name": name, "value": value} for name, value in env.items()]}


@pytest.mark.parametrize(
    ("container", "limit_mib", "heap_mib"),
    [
        (_container("-Xmx1600m"), 2000, 1600),
        (_container("java", "-Xmx1g", "-jar", "a.jar"), 2000, 1024),
        (_container("sh", "-c", "exec java -Xmx300m -jar a.jar"), 512, 300),
        (_container(JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=80"), 1000, 800),
        (_container(JAVA_TOOL_OPTIONS="-XX:+ExitOnOutOfMemoryError"), 1000, 250),
        # Small machines have another rule: 50 % as long as that is below 124 MiB.
        (_container(JAVA_TOOL_OPTIONS="-XX:MaxRAMPercentage=80"), 200, 100),
        # The command line beats JAVA_TOOL_OPTIONS, _JAVA_OPTIONS beats both.
        (_container("-Xmx200m", JAVA_TOOL_OPTIONS="-Xmx100m"), 1000, 200),
        (_container("-Xmx200m", _JAVA_OPTIONS="-Xmx300m"), 1000, 300),
        (_container("-XX:MaxHeapSize=209715200"), 1000, 200),
        # A JVM refuses what cannot be read, too.
        (_container("-Xmxlots", "-XX:MaxRAMPercentage=x"), 1000, 250),
    ],
)
def test_the_heap_is_what_the_jvm_makes_of_the_options(
    container: dict[str, Any], limit_mib: int, heap_mib: int
) -> None:
    """The order of HotSpot's own sources of options counts."""
    heap = heap_of(container, limit_mib * MIB)
    assert heap
    assert heap.most_bytes == heap_mib * MIB


@pytest.mark.parametrize("container", [{}, _container("nginx"), _container(JAVA_OPTS="$(FROM_A_CONFIG_MAP)")])
def test_without_an_option_the_heap_is_unknown(container: dict[str, Any]) -> None:
    """It may be no JVM at all; a guess would name healthy pods."""
    assert heap_of(container, 1000 * MIB) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("256Mi", 256 * MIB), ("1Gi", 1024 * MIB), ("1G", 10**9), ("1500000000", 1500000000), ("1.5Gi", 1536 * MIB),
        ("", None), ("a lot", None),
    ],
)  # fmt: skip
def test_limits_are_read_as_kubernetes_writes_them(text: str, size: int | None) -> None:
    """Decimal and binary units."""
    assert spec_limit({"resources": {"limits": {"memory": text}}}) == size
