"""A running virtual machine: commands go in; output, exit code and files come back.

    with Machine(image(), folder) as machine:
        machine.run(["uname", "-r"]).out

Software emulation by default: it is the same everywhere. VM_ACCEL=kvm is for machines whose /dev/kvm is known to work;
that the device opens says nothing (a stock kernel can hang under it).
"""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.harness.children import end, start
from tests.vm.image import PROJECT, Image

HOST_FROM_INSIDE = "10.0.2.2"  # the host's 127.0.0.1. Source: QEMU, "Network emulation", user mode
MEMORY_MIB = 2560
_START_S = 600.0
_GRACE_S = 30.0  # beside a command's own time limit: the frame's way through an emulated port


@dataclass(frozen=True, slots=True)
class Done:
    """How a command inside the machine ended; `code` is negative after a signal."""

    argv: Sequence[str]
    code: int
    out: str
    err: str

    def check(self) -> Done:
        """Give itself. Raises AssertionError with what was printed if the command failed."""
        assert self.code == 0, f"{shlex.join(self.argv)} ended with {self.code}\n{self.out}\n{self.err}"
        return self


class MachineGone(Exception):
    """The machine does not answer (any more); the text has the end of its console."""


class Machine:
    """One machine, ended with its `with` block, at the latest after `limit_s`, whatever it hangs in."""

    def __init__(self, image: Image, folder: Path, *, selinux: bool = True, limit_s: float = 1800.0) -> None:
        self._image, self._folder, self._selinux, self._limit_s = image, folder, selinux, limit_s
        self._lock = threading.Lock()

    def __enter__(self) -> Machine:
        self._folder.mkdir(parents=True, exist_ok=True)
        _pack_project(self._folder / "project.tar")
        self._console = self._folder / "console.log"
        port = self._folder / "port"
        with open(self._console, "wb") as console:
            self._qemu = start(
                self._argv(port), stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(self._folder)},
            )  # fmt: skip
        self._watchdog = threading.Timer(self._limit_s, self._qemu.kill)
        self._watchdog.daemon = True
        self._watchdog.start()
        try:
            until = time.monotonic() + _START_S
            self._socket = self._connected(port, until)
            self.release = str(self._receive(until)["ready"])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchdog.cancel()
        if hasattr(self, "_socket"):
            self._socket.close()
        end(self._qemu, grace_s=0)  # nothing in it is to be kept

    def _argv(self, port: Path) -> list[str]:
        kernel = f"console=ttyS0 panic=-1 loglevel=3 log_buf_len=8M rdinit=/init selinux={self._selinux:d}"
        if self._selinux:
            kernel += " security=selinux enforcing=1"
        accelerator = os.environ.get("VM_ACCEL", "tcg")
        return [
            "qemu-system-x86_64", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
            "-machine", "q35", "-accel", "tcg,thread=multi" if accelerator == "tcg" else accelerator,
            "-cpu", "max" if accelerator == "tcg" else "host", "-smp", "2", "-m", str(MEMORY_MIB),
            "-kernel", str(self._image.kernel), "-initrd", str(self._image.initrd), "-append", kernel,
            "-drive", f"file={self._image.root},format=raw,if=virtio,snapshot=on",
            "-drive", f"file={self._folder / 'project.tar'},format=raw,if=virtio,readonly=on",
            # The same disk again, for the containers' images: mounted with their label (tests/vm/node.py).
            "-drive", f"file={self._image.root},format=raw,if=virtio,readonly=on",
            "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
            "-device", "virtio-serial", "-chardev", f"socket,id=commands,path={port},server=on,wait=off",
            "-device", "virtserialport,chardev=commands,name=commands",
        ]  # fmt: skip

    def _connected(self, port: Path, until: float) -> socket.socket:
        while time.monotonic() < until and self._qemu.poll() is None:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(port))
                return connection
            except OSError:
                connection.close()
                time.sleep(0.05)
        raise MachineGone(self._last_words("QEMU did not start"))

    def _last_words(self, what: str) -> str:
        return f"{what}; its console ends with:\n{self._console.read_text(errors='replace')[-3000:]}"

    def _receive(self, until: float) -> dict[str, object]:
        length = int.from_bytes(self._exactly(4, until), "big")
        found: dict[str, object] = json.loads(self._exactly(length, until))
        return found

    def _exactly(self, length: int, until: float) -> bytes:
        read = bytearray()
        while len(read) < length:
            ready, _, _ = select.select([self._socket], [], [], max(0.0, until - time.monotonic()))
            chunk = self._socket.recv(length - len(read)) if ready else b""
            if not chunk:
                raise MachineGone(
                    self._last_words("the machine went off" if ready else "the machine does not answer")
                )
            read += chunk
        return bytes(read)

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Done:
        """Run a program as root inside, to its end; it is killed with all it started after `timeout_s` (code -9).

        Raises MachineGone when the machine itself does not answer.
        """
        order = {
            "argv": list(argv),
            "env": dict(env or {}),
            "stdin": base64.b64encode(stdin).decode(),
            "timeout_s": timeout_s,
        }
        encoded = json.dumps(order).encode()
        with self._lock:
            self._socket.sendall(len(encoded).to_bytes(4, "big") + encoded)
            answer = self._receive(time.monotonic() + timeout_s + _GRACE_S)
        out, err = (base64.b64decode(str(answer[name])).decode(errors="replace") for name in ("out", "err"))
        return Done(argv, int(str(answer["code"])), out, err)

    def sh(self, script: str, *, timeout_s: float = 60.0) -> str:
        """Give the output of a shell script that must succeed (`set -e`). Raises AssertionError."""
        return self.run(["/bin/sh", "-ec", script], timeout_s=timeout_s).check().out

    def write(self, path: str, content: str | bytes) -> None:
        """Put a file into the machine."""
        data = content.encode() if isinstance(content, str) else content
        self.run(["/bin/sh", "-ec", f"cat > {shlex.quote(path)}"], stdin=data).check()

    def read(self, path: str) -> bytes:
        """Give the content of a file inside. Raises AssertionError if it cannot be read."""
        encoded = self.run(["base64", "-w0", path]).check().out
        return base64.b64decode(encoded)

    def wait_for(self, script: str, *, timeout_s: float, every_s: float = 0.5) -> str:
        """Run a shell script again and again until it succeeds, and give its output. Raises AssertionError."""
        until = time.monotonic() + timeout_s
        while True:
            done = self.run(["/bin/sh", "-c", script])
            if done.code == 0:
                return done.out
            assert time.monotonic() < until, f"not within {timeout_s} s: {script}\n{done.out}\n{done.err}"
            time.sleep(every_s)


def _pack_project(archive: Path) -> None:
    """Pack what is needed inside: the package, the tests and the manifests."""
    with tarfile.open(archive, "w") as tar:
        for name in ("dumpagent", "scripts", "tests", "manifests"):
            tar.add(PROJECT / name, arcname=name, filter=_without_caches)


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if entry.name.endswith(("__pycache__", ".pyc")) else entry
