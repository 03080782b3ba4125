"""Asks the store once at a daemon's start, in a child of its own: the SDK would stay in the daemon's memory."""

from __future__ import annotations

import json
import os
import signal

from dumpagent.errors import DumpagentError, Refused
from dumpagent.store.protocol import LookRefused, Store

_MOST_BYTES = 4096  # fits a pipe's buffer, so that the child never waits for us


class Unanswered(Exception):
    """The child was killed before it could say anything: the first dump will tell."""


class Greeting:
    """The question under way. `fd` becomes readable with the answer; `hear` gives it and ends the child."""

    def __init__(self, store: Store) -> None:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if self._child == 0:
            try:
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_DFL)
                os.write(write_fd, _ask(store)[:_MOST_BYTES])
            finally:
                os._exit(0)
        os.close(write_fd)
        self.fd: int | None = read_fd

    def hear(self) -> DumpagentError | None:
        """Give why the store cannot be used, None if it can. Call it once, when `fd` is readable.

        Raises Unanswered if the child died.
        """
        assert self.fd is not None  # noqa: S101 - a programming error
        answer = os.read(self.fd, _MOST_BYTES)
        self.close()
        try:
            error = json.loads(answer)
        except ValueError:
            raise Unanswered from None
        return Refused(error["error"], hint=error["hint"]) if error else None

    def close(self) -> None:
        """End the child, whether it has answered or not."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)


def _ask(store: Store) -> bytes:
    try:
        store.check()
    except LookRefused:
        return b"{}"  # write-only credentials: the first dump will tell
    except DumpagentError as error:
        return json.dumps({"error": str(error)[:2000], "hint": error.hint[:1000]}).encode()
    return b"{}"
