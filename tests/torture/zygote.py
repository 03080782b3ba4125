"""Runs the upload daemon again and again, each time in a fresh child, and ends it as a test says.

The zygote has everything imported and no thread, so a life costs milliseconds instead of a second and a thousand
of them fit into minutes. Start it before the process has threads.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

from tests.torture.ptrace import kill_at_system_call, let_parent_trace

KILLED_AT_A_SYSTEM_CALL = -1000
_JUMP_AFTER_S = 0.5
_STILL_AFTER_S = 0.7


@dataclass(frozen=True)
class Life:
    """One run of the agent. `kill_at`: SIGKILL at that system call, counted over all threads, twice each.

    Otherwise, and where it does not come to that, `end_signal` comes after `lasts_s`, or when `end_now` says so; 0
    waits for the end by itself (`--once`). `clock_jump_s`: a moment after the start the time of day is wrong by that, from then on.
    `stands_still_s`: so long it is stopped, a moment after the start. `descriptors`: as many it may have open.
    """

    words: list[str]
    variables: dict[str, str]
    log: str
    lasts_s: float = 0.0
    end_signal: int = signal.SIGKILL
    kill_at: int = 0
    clock_jump_s: float = 0.0
    stands_still_s: float = 0.0
    descriptors: int = 0
    sweep_quiet_s: float = 0.0
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

    def end_now(self) -> None:
        """Let the life that was begun end before its time, unless that is to happen at a system call."""
        os.kill(self._pid, signal.SIGUSR1)

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
        self._socket.shutdown(socket.SHUT_RDWR)  # a later zygote has a copy of it, so that close() is no end
        self._socket.close()
        os.waitpid(self._pid, 0)


def _serve(orders: socket.socket, part_bytes: int) -> None:
    import boto3  # noqa: F401 - imported once, for all lives

    import dumpagent.cli.commands.upload
    import dumpagent.observe.metrics.mount
    import dumpagent.observe.metrics.upload  # noqa: F401
    from dumpagent.upload.daemon import StoreProbing
    from dumpagent.upload.transfer.sweep import Sweep
    from dumpagent.upload.transfer.uploader import Uploader

    # A process of its own that asks the store whether it is there, at every start, takes longer than most lives.
    StoreProbing.begin = lambda _self: None  # type: ignore[method-assign, assignment]
    # Parts of the least size that stores take, so that small dumps are multipart uploads.
    assert Uploader.__init__.__kwdefaults__
    Uploader.__init__.__kwdefaults__["part_bytes"] = part_bytes
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    for line in orders.makefile("rb"):
        life = Life(**json.loads(line))
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
            orders.close()
            if life.sweep_quiet_s:
                assert Sweep.__init__.__kwdefaults__
                Sweep.__init__.__kwdefaults__["quiet_s"] = life.sweep_quiet_s
            _live(life)
        orders.sendall(b"%d\n" % _wait(child, life))


def _wait(child: int, life: Life) -> int:
    signal.sigtimedwait([signal.SIGUSR1], 0)  # one that came too late for the life before
    if life.kill_at:
        code, reached = kill_at_system_call(child, life.kill_at, within_s=life.lasts_s)
        return KILLED_AT_A_SYSTEM_CALL if reached else code
    if life.stands_still_s:
        time.sleep(_STILL_AFTER_S)
        os.kill(child, signal.SIGSTOP)
        time.sleep(life.stands_still_s)
        os.kill(child, signal.SIGCONT)
    began = time.monotonic()
    signalled = False
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        lived_s = time.monotonic() - began
        told = signal.sigtimedwait([signal.SIGUSR1], 0.005) is not None
        if life.lasts_s and not signalled and (told or lived_s >= life.lasts_s):
            os.kill(child, life.end_signal)
            signalled = True
        if lived_s > life.longest_s:
            os.kill(child, signal.SIGKILL)


def _live(life: Life) -> None:
    log = os.open(life.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(life.variables)
    if life.descriptors:
        resource.setrlimit(resource.RLIMIT_NOFILE, (life.descriptors, life.descriptors))
    if life.clock_jump_s:
        _let_clock_jump(life.clock_jump_s, after_s=_JUMP_AFTER_S)
    if life.kill_at:
        let_parent_trace()
    from dumpagent.cli import cli

    try:
        cli.main(args=["upload", *life.words], prog_name="dumpagent")
    except SystemExit as end:
        sys.stderr.flush()
        os._exit(end.code if isinstance(end.code, int) else 1)
    os._exit(99)


def _let_clock_jump(seconds: float, *, after_s: float) -> None:
    """Let everything of ours that asks for the time of day be wrong by `seconds` (the SDK keeps the right time)."""
    from dumpagent.upload.keeping.recheck import Recheck
    from dumpagent.upload.ledger import Ledger
    from dumpagent.upload.transfer.uploader import Uploader
    from dumpagent.upload.volume.judge import CompletenessJudge

    jumps_at = time.monotonic() + after_s

    def now() -> float:
        return time.time() + (seconds if time.monotonic() >= jumps_at else 0)

    for wrong in (Uploader, Ledger, CompletenessJudge, Recheck):
        defaults = wrong.__init__.__kwdefaults__
        assert defaults
        defaults["now"] = now
