"""Examples for the end of each command's --help; a test parses every one of them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "mount": ("dumpagent mount --mount-source /pv-storage --mount-target /host/mnt/dump",),
    "wait": ("dumpagent wait --timeout 10m",),
    "check": ("dumpagent check ready", "dumpagent check live"),
    "upload": (
        "dumpagent upload --once --dump-root /mnt/dump --s3-bucket my-heap-dumps",
        "dumpagent upload --dry-run",
        "dumpagent upload --compression gzip",
    ),
    "inspect": (
        "dumpagent inspect java_pid1.hprof",
        "dumpagent inspect --histogram *.hprof.gz",
        "dumpagent inspect --latest --workload shop/checkout",
    ),
    "analyze": (
        "dumpagent analyze java_pid1.hprof",
        "dumpagent analyze heap-dumps/shop_checkout-7d4b9.hprof --html report.html",
        "dumpagent analyze java_pid1.hprof.gz --json --fail-on 'suspect > 30%'",
    ),
    "diff": (
        "dumpagent diff monday.hprof tuesday.hprof",
        "dumpagent diff --previous heap-dumps/shop_checkout-7d4b9.hprof",
        "dumpagent diff before.hprof.gz after.hprof.gz --json --rows 30",
    ),
    "rechunk": ("dumpagent rechunk java_pid1.hprof.gz for-mat.hprof.gz",),
    "get": (
        "dumpagent get --latest --app shop/checkout",
        "dumpagent get heap-dumps/shop_checkout-7d4b9.hprof",
    ),
    "verify": ("dumpagent verify --since 7d",),
    "reindex": ("dumpagent reindex",),
    "cleanup": ("dumpagent cleanup --mount-target /host/mnt/dump",),
    "config": ("dumpagent config", "dumpagent config --set", "dumpagent config --json"),
    "memory-watch": (
        "dumpagent memory-watch --dump-root /mnt/dump --node-name worker-1",
        "dumpagent memory-watch --once",
    ),
    "trigger": (
        "dumpagent trigger shop/orders-7d4b9c-x2x8z",
        "dumpagent trigger shop/orders-7d4b9c-x2x8z --all --yes",
    ),
    "doctor": ("dumpagent doctor", "dumpagent doctor --json"),
    "gather": (
        "dumpagent gather",
        "dumpagent gather --output support.tar.gz --since 2h",
    ),
}


def epilog(command: str) -> str | None:
    """Give what stands at the end of a command's help; the mark keeps click from filling the lines."""
    lines = EXAMPLES.get(command, ())
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines) if lines else None
