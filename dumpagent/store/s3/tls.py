"""TLS whose records go to the kernel many at a time: what is sent in large pieces costs less CPU.

A TLS socket of the standard library makes a system call for each record of 16 KiB. Here the records of a whole
block are made in memory first. Measured: docs/performance.md, "What helped".
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urllib3.util.ssltransport import SSLTransport

from dumpagent.store.protocol import TLS_BLOCK_BYTES

_LOCK = threading.RLock()


class PatientSocket(socket.socket):
    """A socket whose timeout counts from the last bytes that went out: a slow line is not a dead one.

    The standard library's `sendall` has one deadline for all that it is given.
    """

    def sendall(self, data: Any, flags: int = 0, /) -> None:
        """Send all of it, and ask the kernel nothing for no bytes: an answer could be waiting behind a reset."""
        with memoryview(data) as view, view.cast("B") as octets:
            at = 0
            while at < len(octets):
                at += self.send(octets[at:], flags)


class BlockwiseTLS(SSLTransport):
    """Takes the place of an ssl.SSLSocket; urllib3's own transport for TLS inside TLS does the work."""

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send the first `TLS_BLOCK_BYTES` of it and give how many they were: more would lie in memory three times."""
        return super().send(data[:TLS_BLOCK_BYTES], flags)  # type: ignore[arg-type]  # it takes any buffer


class _Context(ssl.SSLContext):
    def wrap_socket(self, sock: Any, *_: Any, server_hostname: str | bytes | None = None, **__: Any) -> Any:
        timeout_s = sock.gettimeout()
        patient = PatientSocket(sock.family, sock.type, sock.proto, fileno=sock.detach())
        patient.settimeout(timeout_s)
        try:
            return BlockwiseTLS(patient, self, server_hostname)  # type: ignore[arg-type]
        except BaseException:
            patient.close()
            raise


@contextmanager
def blockwise() -> Iterator[None]:
    """Let the SDK's clients that are made meanwhile speak TLS so, except through a proxy. It has no setting for that.

    Where a later SDK makes its contexts elsewhere, they stay what they are.
    """
    from botocore import httpsession

    names = vars(httpsession)
    with _LOCK:
        before = names.get("SSLContext")
        names["SSLContext"] = _Context
        try:
            yield
        finally:
            names["SSLContext"] = before
