"""Asks the store once at a daemon's start, in a child of its own: the SDK would stay in the daemon's memory."""

from __future__ import annotations

import json
import os

from dumpagent.errors import DumpagentError
from dumpagent.observe import events as ev
from dumpagent.observe.events import Tell
from dumpagent.store.protocol import LookRefused, Store

_MOST_BYTES = 4096  # fits a pipe's buffer, so that the child never waits for us


class Greeting:
    """The question under way. `fd` becomes readable with the answer; `hear` tells it and ends the child."""

    def __init__(self, store: Store) -> None:
        self._store = store
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        self._child = os.fork()
        if self._child == 0:
            try:
                os.write(write_fd, _ask(store)[:_MOST_BYTES])
            finally:
                os._exit(0)
        os.close(write_fd)
        self.fd: int | None = read_fd

    def hear(self, tell: Tell) -> None:
        """Tell what the store answered. Call it once, when `fd` is readable."""
        if self.fd is None:
            return
        answer = os.read(self.fd, _MOST_BYTES)
        os.close(self.fd)
        self.fd = None
        os.waitpid(self._child, 0)
        try:
            error = json.loads(answer)
        except ValueError:
            return  # the child was killed: the first dump will tell
        if error:
            tell(ev.STORE_FAILED, store=self._store.name, **error)
        else:
            tell(ev.STORE_ANSWERED, store=self._store.name)


def _ask(store: Store) -> bytes:
    try:
        store.check()
    except LookRefused:
        return b"{}"  # write-only credentials: the first dump will tell
    except DumpagentError as error:
        return json.dumps({"error": str(error)[:2000], "hint": error.hint[:1000]}).encode()
    return b"{}"
