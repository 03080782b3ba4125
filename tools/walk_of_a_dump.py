"""Counts the modules of upload/ and store/ that one dump goes through, from the scan to its receipt.

    python -m tools.walk_of_a_dump

Runs one `upload --once` of one dump against moto under sys.setprofile. An entry is one module calling into another of the two folders,
however often it does. Calls into dumps, kernel, hprof and observe do not count, nor do questions to a value (properties and special
methods) or functions that a module was handed (lambdas and generators): a reader does not go there for them.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

PACKAGE = Path(__file__).parents[1] / "dumpagent"
FOLDERS = ("upload", "store")
BEGIN = "upload/volume/scan.py:Scanner.step"
END = "upload/ledger.py:Ledger.record"
# So many a reader can keep in mind; docs/architecture.md names them. Never raise these figures: the aim was 12 modules and 16 entries.
MOST_MODULES = 12
MOST_ENTRIES = 14


@dataclass(frozen=True, order=True)
class Entry:
    """One module calls into another, the first time at `line`, there `function`."""

    caller: str
    module: str
    line: int = field(compare=False)
    function: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.caller}:{self.line} -> {self.module} {self.function}"


@dataclass
class Walk:
    """What is called between the beginning and the end of a dump's way; `modules` and `entries` in the order of the way."""

    modules: list[str] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    begun: bool = False
    ended: bool = False
    _modules: dict[CodeType, str] = field(default_factory=dict)

    def __enter__(self) -> Walk:
        threading.setprofile(self._seen)
        sys.setprofile(self._seen)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _seen(self, frame: FrameType, event: str, _: object) -> None:
        if event not in ("call", "return") or self.ended:
            return
        module = self._module_of(frame.f_code)
        if not module:
            return
        name = f"{module}:{frame.f_code.co_qualname}"
        if event == "return":
            self.ended = self.begun and name == END
            return
        self.begun = self.begun or name == BEGIN
        caller = self._caller_of(frame)
        if not self.begun or not caller or caller[0] == module or _is_no_step(frame):
            return
        for path in (caller[0], module):
            if path not in self.modules:
                self.modules.append(path)
        entry = Entry(caller[0], module, caller[1], frame.f_code.co_qualname)
        if entry not in self.entries:
            self.entries.append(entry)

    def _caller_of(self, frame: FrameType) -> tuple[str, int] | None:
        """Give module and line of the nearest caller in the two folders."""
        caller = frame.f_back
        while caller is not None:
            if module := self._module_of(caller.f_code):
                return module, caller.f_lineno
            caller = caller.f_back
        return None

    def _module_of(self, code: CodeType) -> str:
        """Give the module's path in the package, "" for one outside the two folders."""
        if code not in self._modules:
            path = Path(code.co_filename)
            inside = path.is_relative_to(PACKAGE) and path.relative_to(PACKAGE).parts[0] in FOLDERS
            self._modules[code] = str(path.relative_to(PACKAGE)) if inside else ""
        return self._modules[code]


def _is_no_step(frame: FrameType) -> bool:
    """Say whether a call is a question to a value, or comes back to a function that was handed over."""
    name = frame.f_code.co_name
    if name.startswith(("<", "__")) or "<locals>" in frame.f_code.co_qualname:
        return True
    owner: Any = sys.modules.get(frame.f_globals["__name__"])
    for part in frame.f_code.co_qualname.split(".")[:-1]:
        owner = getattr(owner, part, None)
    return isinstance(inspect.getattr_static(owner, name, None), property)


def main() -> None:
    """Print the walk; exit 1 where it is too long."""
    if "--inside" in sys.argv:
        _upload_once()
        return
    from tests.harness.environment import forget_own_settings
    from tests.harness.hprof import Maker
    from tests.harness.stores.moto import Moto

    forget_own_settings()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "store").mkdir()
        (folder / "dumps").mkdir()
        (folder / "dumps" / "java_pid1.hprof").write_bytes(Maker().dump(segments=3))
        with Moto(folder / "store") as moto:
            variables = moto.server.environment(moto.server.new_bucket())
            variables |= {"DUMP_ROOT": str(folder / "dumps"), "FILE_STABLE_TIME": "0"}
            subprocess.run(
                [sys.executable, "-m", "tools.walk_of_a_dump", "--inside"],
                env=os.environ | variables,
                check=True,
            )


def _upload_once() -> None:
    from dumpagent.cli import cli

    code: object = 0
    with Walk() as walk:
        try:
            cli(["upload", "--once"], standalone_mode=False)
        except SystemExit as exit_:
            code = exit_.code
    for entry in walk.entries:
        print(entry)
    print(
        f"{len(walk.modules)} modules, at most {MOST_MODULES}; {len(walk.entries)} entries, at most {MOST_ENTRIES}"
    )
    if code or not walk.ended:
        sys.exit(f"the walk did not go from {BEGIN} to {END}: exit {code}")
    if len(walk.modules) > MOST_MODULES or len(walk.entries) > MOST_ENTRIES:
        sys.exit(1)


if __name__ == "__main__":
    main()
