"""A process in a mount namespace of its own that runs the Python it is given: a container without the rest.

Started by `Container` below as `python -I -S container.py`; speaks JSON lines on stdin and stdout.
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import shutil
import subprocess
import sys
import traceback
from contextlib import redirect_stdout
from types import TracebackType
from typing import Any

_NSENTER = shutil.which("nsenter") or "nsenter"
_CLONE_NEWNS = 0x20000
_libc = ctypes.CDLL(None, use_errno=True)


def _check(done: int, what: str) -> None:
    if done != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(
    source: str | None, target: str, flags: int = 0, fstype: str | None = None, options: str = ""
) -> None:
    """mount(2), independent of the code under test."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fstype)]
    _check(_libc.mount(*encoded, ctypes.c_ulong(flags), os.fsencode(options) or None), f"mount {target!r}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2); 2 is MNT_DETACH."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target!r}")


def enter(parent_pid: int | None) -> None:
    """Leave the namespace we are in: for a private copy, or for a copy of that of `parent_pid`, with its propagation."""
    if parent_pid is not None:
        fd = os.open(f"/proc/{parent_pid}/ns/mnt", os.O_RDONLY)
        _check(_libc.setns(fd, _CLONE_NEWNS), "setns")
        os.close(fd)
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    if parent_pid is None:
        mount(None, "/", MS_REC | MS_PRIVATE)


MS_BIND, MS_REC, MS_RDONLY, MS_REMOUNT = 4096, 16384, 1, 32
MS_UNBINDABLE, MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 17, 1 << 18, 1 << 19, 1 << 20


class Container:
    """Runs Python statements inside a namespace; `pid` is for those that enter it."""

    def __init__(self, parent: Container | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(parent.pid) if parent else ""],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid: int = self._process.pid
        self.run("None")

    def run(self, code: str, **names: Any) -> Any:
        """Execute `code` inside, with `names`, and give what the last expression or `result =` gives.

        Raises RuntimeError with the traceback from inside.
        """
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"code": code, "names": names}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the container is gone")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def popen(self, words: list[str], **more: Any) -> subprocess.Popen[Any]:
        """Start a program inside."""
        return subprocess.Popen([_NSENTER, f"--mount=/proc/{self.pid}/ns/mnt", "--", *words], **more)

    def mounts(self, target: str) -> list[str]:
        """Give the mountinfo lines of what is mounted at `target`, as the container sees it."""
        lines = self.run("open('/proc/self/mountinfo').read()").splitlines()
        return [line for line in lines if line.split(" ")[4] == target]

    def close(self) -> None:
        """End the process; its namespace goes with the last one inside."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _serve() -> None:
    enter(int(sys.argv[1]) if sys.argv[1] else None)
    names: dict[str, Any] = dict(globals())
    for line in sys.stdin:
        order = json.loads(line)
        names.update(order["names"])
        names["result"] = None
        try:
            with redirect_stdout(io.StringIO()):
                try:
                    answer = eval(compile(order["code"], "inside", "eval"), names)
                except SyntaxError:
                    exec(compile(order["code"], "inside", "exec"), names)
                    answer = names["result"]
            text = json.dumps({"result": answer})
        except BaseException:  # noqa: BLE001 - whatever happens inside is the caller's to see
            text = json.dumps({"error": traceback.format_exc()})
        print(text, flush=True)


if __name__ == "__main__":
    _serve()
