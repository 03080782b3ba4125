"""Asks a JVM by HotSpot's attach protocol, as the JVM's own user and with nothing more than that user may do.

The client makes the file `.attach_pid<N>` in the JVM's /tmp and sends SIGQUIT; the JVM then listens on the UNIX socket
`.java_pid<N>` there. A question is `1`, a word and three arguments, each ended by NUL; the answer is a line with a
number, 0 for success, then text. Source: JDK attachListener_posix.cpp, attachListener.cpp (version 1 of the protocol).

Runs in a forked child: whoever can be hung by the target is the child, and what it does is done under the target's uid.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import stat
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.kernel.children import die_with_parent
from dumpagent.trigger.processes import HeldProcess

PATH_ONLY = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
FOLDER_ONLY = PATH_ONLY | os.O_DIRECTORY
_MOST_ANSWER_BYTES = 1 << 20
_LONGEST_ARGUMENT_BYTES = 1024  # Source: JDK attachListener.hpp, arg_length_max
_ARGUMENTS = 3  # Source: JDK attachListener.hpp, arg_count_max
_POLL_S = 0.05
_CREDENTIALS = struct.Struct("3i")  # Source: unix(7), SO_PEERCRED, struct ucred
_PR_SET_DUMPABLE = 4  # Source: prctl(2)
_CAPABILITY_VERSION = 0x20080522  # Source: capget(2), _LINUX_CAPABILITY_VERSION_3

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a JVM answered; `text` is its own word, and not to be trusted."""

    code: int
    text: str


def become(uid: int, gid: int) -> None:
    """Take this user and group for good, without a capability. Only a forked child may. Raises OSError."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _drop_capabilities()
    _libc.prctl(
        ctypes.c_int(_PR_SET_DUMPABLE), ctypes.c_ulong(0)
    )  # or the target, the same user, may trace us
    die_with_parent()  # the kernel forgets it with each change of user


def _drop_capabilities() -> None:
    """Drop what uid 0 keeps. Source: capset(2)."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    none = (ctypes.c_uint32 * 6)()
    if _libc.capset(ctypes.byref(header), ctypes.byref(none)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "capset")


def open_root(process: HeldProcess) -> int:
    """Open the root directory of the process's own mount namespace; before `become`, it takes SYS_PTRACE."""
    try:
        return os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=process.folder)
    except PermissionError as error:
        raise Refused(
            "the JVM's file system cannot be entered",
            hint="this needs hostPID and the capability SYS_PTRACE, as manifests/trigger gives them",
        ) from error
    except OSError as error:
        raise Refused("the process has ended", hint="try again") from error


class Attachment:
    """A JVM that can be asked. `root` is open on the root of its mount namespace; `until` is monotonic seconds."""

    def __init__(self, process: HeldProcess, root: int, *, until: float) -> None:
        self._process, self._until = process, until
        self._number = process.jvm.inner_pid
        try:
            self._tmp = os.open("tmp", FOLDER_ONLY, dir_fd=root)
        except OSError as error:
            raise Refused(
                f"the /tmp of the JVM's container cannot be used: {error.strerror}",
                hint="the JVM makes its socket there: give the container a writable /tmp (an emptyDir), no link",
            ) from error

    def ask(self, word: str, *arguments: str, until: float) -> Answer:
        """Give the JVM's answer to one question. Raises Refused, or Unreachable when it does not answer in time."""
        question = _question(word, arguments)
        connection = self._connected()
        with connection:
            try:
                connection.settimeout(max(0.01, until - time.monotonic()))
                connection.sendall(question)
                said = b""
                while len(said) < _MOST_ANSWER_BYTES:
                    connection.settimeout(max(0.01, until - time.monotonic()))
                    piece = connection.recv(1 << 16)
                    if not piece:
                        break
                    said += piece
            except TimeoutError as error:
                raise Unreachable(
                    "the JVM has taken the question and not answered in time",
                    hint="it may still do what it was asked for; look at its log",
                ) from error
            except OSError as error:
                raise Unreachable(
                    f"the JVM ended the connection: {error.strerror}", hint="try again"
                ) from error
        return _answer(said)

    def _connected(self) -> socket.socket:
        """Connect; makes the JVM listen first where it does not yet."""
        connection = self._try_to_connect()
        if connection:
            return connection
        with self._asked_to_listen():
            while time.monotonic() < self._until:
                if connection := self._try_to_connect():
                    return connection
                time.sleep(_POLL_S)
        raise Unreachable(
            "the JVM does not open its attach socket",
            hint="it was started with -XX:+DisableAttachMechanism, its /tmp is not writable, or it hangs",
        )

    def _try_to_connect(self) -> socket.socket | None:
        """Connect to the JVM's socket; None while nobody listens there.

        By the descriptor of what was looked at, never by a name: a link is not followed, and whoever answers must be
        the very process that is held.
        """
        try:
            fd = os.open(f".java_pid{self._number}", PATH_ONLY, dir_fd=self._tmp)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Refused(f"the JVM's attach socket cannot be opened: {error.strerror}") from error
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                raise _planted(f".java_pid{self._number} is no socket")
            connection.settimeout(max(0.01, self._until - time.monotonic()))
            connection.connect(f"/proc/self/fd/{fd}")
            asked = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, _, _ = _CREDENTIALS.unpack(asked)
            if pid != self._process.jvm.pid:
                raise _planted(f".java_pid{self._number} belongs to another process ({pid})")
        except (ConnectionRefusedError, BlockingIOError, TimeoutError):
            connection.close()
            return None  # left by a JVM before this one, or its queue is full
        except OSError as error:
            connection.close()
            raise Refused(f"the JVM's attach socket cannot be used: {error.strerror}") from error
        except BaseException:
            connection.close()
            raise
        finally:
            os.close(fd)
        return connection

    @contextmanager
    def _asked_to_listen(self) -> Iterator[None]:
        """Make the file that tells a JVM that SIGQUIT means us, send it, and take the file away in the end."""
        name = f".attach_pid{self._number}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOCTTY
        made = True
        try:
            os.close(os.open(name, flags, 0o600, dir_fd=self._tmp))
        except FileExistsError:
            made = False  # another tool's, or a planted one: it is not touched
            if not stat.S_ISREG(os.stat(name, dir_fd=self._tmp, follow_symlinks=False).st_mode):
                raise _planted(f"{name} is no regular file") from None
        except OSError as error:
            raise Refused(
                f"the /tmp of the JVM's container cannot be written: {error.strerror}",
                hint="the JVM makes its socket there: give the container a writable /tmp (an emptyDir)",
            ) from error
        try:
            self._signal()
            yield
        finally:
            if made:
                try:
                    os.unlink(name, dir_fd=self._tmp)
                except FileNotFoundError:
                    pass

    def _signal(self) -> None:
        # As late as can be: the process may have become another program since it was examined.
        if not self._process.handles_quit():
            raise Refused(
                f"process {self._process.jvm.pid} does not catch SIGQUIT, and would be ended by it",
                hint="it runs with -Xrs and has no attach socket, or has become another program: nothing was sent",
            )
        try:
            signal.pidfd_send_signal(self._process.pidfd, signal.SIGQUIT)
        except ProcessLookupError as error:
            raise Refused("the process has ended", hint="try again") from error
        except PermissionError as error:
            raise Refused(
                "the JVM cannot be signalled",
                hint="SELinux or AppArmor refuses it: manifests/trigger runs as spc_t, without an AppArmor profile",
            ) from error


def _planted(what: str) -> DumpagentError:
    return Refused(
        f"the /tmp of the JVM's container is not as a JVM leaves it: {what}",
        hint="somebody in the container put it there; nothing was sent. Look at the container",
    )


def _question(word: str, arguments: Sequence[str]) -> bytes:
    words = [os.fsencode(each) for each in (word, *arguments)]
    if any(b"\0" in each or len(each) > _LONGEST_ARGUMENT_BYTES for each in words):
        raise Refused(f"a JVM takes no argument above {_LONGEST_ARGUMENT_BYTES} bytes: {arguments}")
    words += [b""] * (_ARGUMENTS - len(arguments))
    return b"".join(each + b"\0" for each in (b"1", *words))


def _answer(said: bytes) -> Answer:
    line, _, text = said.partition(b"\n")
    try:
        return Answer(int(line), text.decode(errors="replace").strip())
    except ValueError:
        raise Unreachable(
            f"what answers is no JVM: {line[:80].decode(errors='replace')!r}", hint="look at the container"
        ) from None
