"""Asks the store whether it can be used, in a process of its own: the SDK would stay in the daemon's memory.

A new process and not a fork: the daemon has threads, and what they hold locked would stay locked in a fork for ever.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from dumpagent import secrets
from dumpagent.errors import DumpagentError, Refused
from dumpagent.setting import declared
from dumpagent.settings import S3, Replica
from dumpagent.store.protocol import LookRefused, Store

_MOST_BYTES = 4096  # fits a pipe's buffer, so that the child never waits for us


class Unanswered(Exception):
    """The child was killed before it could say anything: the first dump will tell."""


class StoreProbe:
    """The question under way. `fd` becomes readable with the answer; `hear` gives it and ends the child."""

    def __init__(self, settings: S3 | Replica) -> None:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        # Flags beat variables, here as in the daemon.
        ours = {
            setting.env: str(getattr(settings, name))
            for name, (setting, _) in declared(type(settings)).items()
        }
        try:
            self._child = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "dumpagent.store.s3.probe", type(settings).__name__],
                {**os.environ, **ours, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                file_actions=[(os.POSIX_SPAWN_DUP2, write_fd, 1)],
                setsigdef=[signal.SIGTERM, signal.SIGINT],
            )
        except OSError:
            os.close(read_fd)
            raise
        finally:
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


def ask(store: Store) -> bytes:
    """Give the answer as it goes through the pipe: an empty object if the store can be used."""
    try:
        store.check()
    except LookRefused:
        return b"{}"  # write-only credentials: the first dump will tell
    except DumpagentError as error:
        return _answer(str(error), error.hint)
    return b"{}"


def _answer(error: str, hint: str) -> bytes:
    """Give the JSON of a refusal. The texts are cut, never the JSON: escapes make six bytes of some characters."""
    most = _MOST_BYTES
    while True:
        answer = json.dumps({"error": error[:most], "hint": hint[: most // 2]}).encode()
        if len(answer) <= _MOST_BYTES:
            return answer
        most //= 2


def _be_the_child() -> None:
    from dumpagent.store.s3.store import S3Store

    if sys.argv[1:] == [Replica.__name__]:
        replica = Replica(**_values(Replica))
        store = S3Store(replica.s3, access=replica.access, stop=threading.Event())
    else:
        store = S3Store(S3(**_values(S3)), stop=threading.Event())
    answer = ask(store)
    try:
        os.write(1, answer)
    except BrokenPipeError:
        pass  # the daemon ended meanwhile: nobody wants to know


def _values(settings_class: type) -> dict[str, Any]:
    return {
        name: setting.parse(os.environ[setting.env]) if os.environ.get(setting.env) else default
        for name, (setting, default) in declared(settings_class).items()
    }


if __name__ == "__main__":
    secrets.install()
    # The daemon's stderr is this child's too: what libraries warn of, the daemon tells of once itself.
    logging.captureWarnings(True)
    logging.getLogger().addHandler(logging.NullHandler())
    _be_the_child()
