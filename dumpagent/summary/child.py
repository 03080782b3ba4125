"""Summarises the dump that is its standard input: the program of a process of its own, `python -m dumpagent.summary.child`.

Takes the CPU seconds that it may use, the bytes of the file, and its parent's number. Prints an empty line when it is sure to
die with its parent, then one line of JSON: `report` and `lines`, both null where the file holds no heap, or `error`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

from dumpagent.kernel.children import die_with_parent
from dumpagent.kernel.reading import OpenFile

# With the interpreter's own libraries, which are shared pages of files, it stays inside 96 MiB.
# Source: getrlimit(2), RLIMIT_DATA: since Linux 4.7 private writable mappings count too.
_DATA_BYTES = 80 << 20
_SPARE_S = 20.0


def main() -> None:
    """Print the summary of standard input."""
    die_with_parent()
    budget_s, size_bytes, parent = float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    if os.getppid() != parent:
        return  # it ended before we had the kernel tell us
    os.write(1, b"\n")  # from now on it may be stopped
    try:
        _yield_to_everybody(budget_s)
        answer = summary_of(OpenFile(0, "the dump"), size_bytes=size_bytes, budget_s=budget_s)
    except MemoryError:
        answer = {"error": f"it needs more than the {_DATA_BYTES >> 20} MiB of memory that a summary may use"}
    except OSError as error:
        answer = {"error": f"the dump cannot be read: {error.strerror}"}
    except Exception as error:  # noqa: BLE001 - nobody else tells of a fault of ours
        answer = {"error": f"{type(error).__name__}: {error}"}
    sys.stdout.write(json.dumps(answer))


def summary_of(opened: OpenFile, *, size_bytes: int, budget_s: float) -> dict[str, Any]:
    """Give the answer about a plain or gzip dump. Raises OSError, MemoryError."""
    # Not before the kernel was told with whom this process ends: they take longer than all the rest of its start.
    from dumpagent.hprof.gzip import Unpacked
    from dumpagent.hprof.records import GZIP_MAGIC
    from dumpagent.summary.summarise import summarise

    unpacked = Unpacked(opened) if opened.read_at(0, 3) == GZIP_MAGIC else None
    report = summarise(
        unpacked or opened,
        size_bytes=None if unpacked else size_bytes,
        packed=unpacked is not None,
        part_read=(lambda: unpacked.packed_offset / max(1, size_bytes)) if unpacked else None,
        budget_s=budget_s,
        cpu_s=time.process_time,
    )
    return {"report": report and report.as_dict(), "lines": report and report.lines()}


def _yield_to_everybody(budget_s: float) -> None:
    """Be the first that goes where memory is short, the last where the CPU is, and end in any case."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
        os.nice(19)
    except OSError:
        pass  # a kernel that does not let us: the limits hold all the same
    _limit(resource.RLIMIT_CPU, int(2 * budget_s + _SPARE_S))
    _limit(resource.RLIMIT_DATA, _DATA_BYTES)
    _limit(resource.RLIMIT_CORE, 0)


def _limit(what: int, most: int) -> None:
    """Set a limit; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


if __name__ == "__main__":
    main()
