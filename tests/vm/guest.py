"""Runs inside the virtual machine as its first process: loads the SELinux policy, then carries out commands.

Frames on the virtio port "commands", in both directions: four bytes of length (big endian), then JSON; bytes in it are
base64. A command is {"argv", "env", "stdin", "timeout_s"}; its answer {"code", "out", "err"}, code -9 after the time limit.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, BinaryIO

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_POLICY_FAILED = 3  # Source: load_policy(8): 3 is "failed, and enforcing was asked for"


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def prepare() -> None:
    """Do what an init system does before anything else: the kernel's file systems, the policy, the network."""
    os.environ["PATH"] = _PATH
    _mount("-t", "proc", "proc", "/proc")
    _mount("-t", "sysfs", "sysfs", "/sys")
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    os.makedirs("/dev/pts", exist_ok=True)
    os.makedirs("/dev/shm", exist_ok=True)
    options = dict(word.partition("=")[::2] for word in Path("/proc/cmdline").read_text().split())
    if options.get("selinux") != "0":
        code = subprocess.run(["load_policy", "-i"], check=False).returncode
        if code:
            print(f"load_policy: {code}", flush=True)
        none = subprocess.DEVNULL  # not the console: it was opened before there were labels
        subprocess.run(
            ["restorecon", "-R", "/dev", "/run"], stdin=none, stdout=none, stderr=none, check=False
        )
    _mount("-t", "devpts", "devpts", "/dev/pts")
    _mount("-t", "tmpfs", "tmpfs", "/dev/shm")
    _mount("-t", "cgroup2", "cgroup2", "/sys/fs/cgroup")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+cpu +memory +pids +io")
    # Each denial counts: the kernel's log is where they are read, and it drops some above a rate.
    Path("/proc/sys/kernel/printk_ratelimit").write_text("0")
    # Shared, as systemd leaves it: what is mounted below /mnt goes from and to the containers.
    _mount("--make-rshared", "/")
    for words in (
        "link set lo up",
        "link set eth0 up",
        "addr add 10.0.2.15/24 dev eth0",
        "route add default via 10.0.2.2",
    ):
        subprocess.run(["ip", *words.split()], check=False)


def _answer(order: dict[str, Any]) -> dict[str, Any]:
    child = subprocess.Popen(
        order["argv"],
        env={"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8", **order.get("env", {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = child.communicate(base64.b64decode(order.get("stdin", "")), timeout=order["timeout_s"])
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
    return {
        "code": child.returncode,
        "out": base64.b64encode(out).decode(),
        "err": base64.b64encode(err).decode(),
    }


def _exactly(port: BinaryIO, length: int) -> bytes:
    read = b""
    while len(read) < length:
        chunk = port.read(length - len(read))
        if not chunk:
            raise EOFError("the host closed the port")
        read += chunk
    return read


def serve(path: str) -> None:
    """Carry out one command after the other until the host closes the port."""
    with open(path, "r+b", buffering=0) as port:
        _send(port, {"ready": os.uname().release})
        while True:
            order = json.loads(_exactly(port, int.from_bytes(_exactly(port, 4), "big")))
            try:
                answer = _answer(order)
            except Exception:  # noqa: BLE001 - the host is told, whatever it was
                answer = {
                    "code": 127,
                    "out": "",
                    "err": base64.b64encode(traceback.format_exc().encode()).decode(),
                }
            _send(port, answer)


def _send(port: BinaryIO, answer: dict[str, Any]) -> None:
    encoded = json.dumps(answer).encode()
    left = memoryview(len(encoded).to_bytes(4, "big") + encoded)
    while left:
        left = left[port.write(left) :]


def _port() -> str:
    for name in sorted(os.listdir("/sys/class/virtio-ports")):
        if Path(f"/sys/class/virtio-ports/{name}/name").read_text().strip() == "commands":
            return f"/dev/{name}"
    raise FileNotFoundError("no virtio port named commands")


def main() -> None:
    """Prepare, then reap what is orphaned until the server ends; a machine that nobody can talk to goes off."""
    try:
        prepare()
        server = os.fork()
        if server == 0:
            serve(_port())
        while os.wait()[0] != server:
            pass
    except BaseException:  # noqa: BLE001 - nobody but the console can hear it
        traceback.print_exc()
    sys.stdout.flush()
    Path("/proc/sysrq-trigger").write_text("o")
    signal.pause()


if __name__ == "__main__":
    main()
