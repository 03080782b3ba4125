"""What other commands of dumpagent print: doctor's findings, the settings."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from dumpagent.gather.collector import Desk
from dumpagent.kernel.children import die_with_parent

_DOCTOR_S, _STORE_S = 150.0, 60.0
DOCTOR_LIMIT_S = _DOCTOR_S + _STORE_S + 10
CONFIG_LIMIT_S = 20.0


def doctor(desk: Desk) -> None:
    """Run `dumpagent doctor --json`. Where the volume hangs before the first finding, ask about the store alone."""
    if not _run(desk, "doctor.jsonl", ["doctor", "--json"], _DOCTOR_S, fine=(0, 1)):
        _run(desk, "doctor-store.jsonl", ["doctor", "--store", "--json"], _STORE_S, fine=(0, 1))


def config(desk: Desk) -> None:
    """Run `dumpagent config`, which hides secrets by itself."""
    _run(desk, "config.txt", ["config"], CONFIG_LIMIT_S - 2, fine=(0,))


def _run(desk: Desk, file: str, words: Sequence[str], limit_s: float, fine: Sequence[int]) -> bool:
    """Add what the command prints, as it comes; say whether it printed anything. A command that hangs is left behind."""
    until = time.monotonic() + limit_s
    process = subprocess.Popen(
        [sys.executable, "-m", "dumpagent", *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=die_with_parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    assert process.stdout is not None  # noqa: S101 - both are pipes
    assert process.stderr is not None  # noqa: S101
    said = {process.stdout.fileno(): b"", process.stderr.fileno(): b""}
    out, err = said
    waiting, printed = {out, err}, False
    name = f"dumpagent {' '.join(words)}"
    while waiting:
        left_s = until - time.monotonic()
        if left_s <= 0:
            os.kill(process.pid, signal.SIGKILL)
            desk.miss(f"`{name}`: no end within {limit_s:g} s", "the volume or the store hangs")
            break
        for fd in select.select(list(waiting), [], [], left_s)[0]:
            piece = os.read(fd, 1 << 16)
            if not piece:
                waiting.discard(fd)
            if fd == err:
                said[err] = (said[err] + piece)[-4096:]
                continue
            *lines, said[out] = (said[out] + piece).split(b"\n")
            for line in lines:
                printed = True
                desk.add(file, line.decode(errors="replace") + "\n")
    else:
        code = process.wait()
        if code not in fine:
            desk.miss(f"`{name}`: exit code {code}: {said[err].decode(errors='replace').strip()}")
    if said[out]:
        desk.add(file, said[out].decode(errors="replace") + "\n")
    return printed
