"""Runs the upload daemon again and again, each time in a fresh child, and ends it as a test says.

The zygote has everything imported and no thread, so a life costs milliseconds instead of a second and a thousand
of them fit into minutes. Start it before the process has threads.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Life:
    """One run of the agent. `kill_at`: SIGKILL from within, at that audit event (opens, renames, connects, ...).

    Otherwise `end_signal` comes after `lasts_s`; 0 waits for the end by itself (`--once`).
    """

    words: list[str]
    variables: dict[str, str]
    log: str
    lasts_s: float = 0.0
    end_signal: int = signal.SIGKILL
    kill_at: int = 0
    clock_off_s: float = 0.0
    longest_s: float = 300.0


@dataclass
class Zygote:
    """The parent of all lives; call `live`, or `begin` and later `ended`."""

    part_bytes: int
    _socket: socket.socket = field(init=False)
    _pid: int = field(init=False)

    def __post_init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            self._socket.close()
            try:
                _serve(theirs, self.part_bytes)
            finally:
                os._exit(0)
        theirs.close()

    def begin(self, life: Life) -> None:
        """Start a life and return at once."""
        self._socket.sendall(json.dumps(asdict(life)).encode() + b"\n")

    def ended(self) -> int:
        """Wait for the end of the life that was begun; give its exit code, or minus the signal that ended it."""
        answer = b""
        while not answer.endswith(b"\n"):
            more = self._socket.recv(4096)
            if not more:
                raise RuntimeError("the zygote died")
            answer += more
        return int(answer)

    def live(self, life: Life) -> int:
        """Begin a life and wait for its end."""
        self.begin(life)
        return self.ended()

    def close(self) -> None:
        """End the zygote."""
        self._socket.close()
        os.waitpid(self._pid, 0)


def _serve(orders: socket.socket, part_bytes: int) -> None:
    import boto3  # noqa: F401 - imported once, for all lives

    import dumpagent.cli.upload  # noqa: F401
    from dumpagent.upload.send import Sender

    # Parts of the least size that stores take, so that small dumps are multipart uploads.
    assert Sender.__init__.__kwdefaults__
    Sender.__init__.__kwdefaults__["part_bytes"] = part_bytes
    for line in orders.makefile("rb"):
        life = Life(**json.loads(line))
        child = os.fork()
        if child == 0:
            orders.close()
            _live(life)
        orders.sendall(b"%d\n" % _wait(child, life))


def _wait(child: int, life: Life) -> int:
    began = time.monotonic()
    signalled = False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        lived_s = time.monotonic() - began
        if life.lasts_s and not signalled and lived_s >= life.lasts_s:
            os.kill(child, life.end_signal)
            signalled = True
        if lived_s > life.longest_s:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def _live(life: Life) -> None:
    log = os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(life.variables)
    if life.clock_off_s:
        _set_clock_off(life.clock_off_s)
    if life.kill_at:
        left = [life.kill_at]

        def count(_event: str, _arguments: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    from dumpagent.cli import cli

    try:
        cli.main(args=["upload", *life.words], prog_name="dumpagent")
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(99)


def _set_clock_off(seconds: float) -> None:
    """Let everything of ours that asks for the time of day be wrong by `seconds` (the SDK keeps the right time)."""
    from dumpagent.upload.judge import CompletenessJudge
    from dumpagent.upload.ledger import Ledger
    from dumpagent.upload.send import Sender

    for wrong in (Sender, Ledger, CompletenessJudge):
        defaults = wrong.__init__.__kwdefaults__
        assert defaults
        defaults["now"] = lambda: time.time() + seconds
