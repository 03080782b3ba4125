"""Analyzes the dump that is its standard input: the program of a process of its own, `python -m dumpagent.pending.child`.

Takes its task as one argument of JSON (`Task`), writes both reports into the task's folder, and prints one line of JSON:
`suspect` (a sentence), or `no_heap`, `needs` (bytes of memory) or `error`.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from dumpagent.errors import DumpagentError
from dumpagent.kernel.children import die_with_parent
from dumpagent.kernel.reading import OpenFile
from dumpagent.pending.task import HTML_NAME, JSON_NAME, Task


def main() -> None:
    """Print the outcome of the analysis of standard input."""
    die_with_parent()
    task = Task(**json.loads(sys.argv[1]))
    if os.getppid() != task.parent:
        return  # it ended before we had the kernel tell us
    try:
        # Where the kernel looks for memory, this process goes and the job stays.
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
    except OSError:
        pass
    print(json.dumps(outcome_of(OpenFile(0, task.name), task)))


def outcome_of(opened: OpenFile, task: Task) -> dict[str, Any]:
    """Analyze, write both reports, and give the outcome."""
    from dumpagent.analyze.analysis import Wishes, analyze
    from dumpagent.analyze.known import known_of
    from dumpagent.analyze.memory import Budget, NeedsMoreMemory
    from dumpagent.analyze.opened import NoHeap
    from dumpagent.analyze.report.asjson import as_json
    from dumpagent.analyze.report.page import as_page

    try:
        analysis = analyze(
            opened,
            known_of(opened, task.name, task.size_bytes),
            Budget(task.limit_bytes, _tell, spilled=task.spill is not None),
            wishes=Wishes(rows=task.rows, strings=task.strings, show_text=task.show_text),
            step=lambda _title: lambda _bytes: None,
            spill=task.spill,
        )
        for name, text in ((HTML_NAME, as_page(analysis)), (JSON_NAME, as_json(analysis))):
            with open(f"{task.folder}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
    except NoHeap as error:
        return {"no_heap": str(error)}
    except NeedsMoreMemory as error:
        return {"needs": error.need_bytes, "reason": str(error)}
    except MemoryError as error:
        return {"error": f"there is not enough memory: {error}"}
    except DumpagentError as error:
        return {"error": str(error)}
    except OSError as error:
        return {"error": f"{error.filename or 'the dump'}: {error.strerror or error}"}
    first = analysis.suspects[0] if analysis.suspects else None
    return {"suspect": f"{first.holder} holds {100 * first.share:.0f} %" if first else "no suspect"}


def _tell(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
