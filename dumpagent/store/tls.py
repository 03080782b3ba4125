"""TLS whose records go to the kernel many at a time: what is sent in large pieces costs a fifth less CPU.

A TLS socket of the standard library makes a system call for each record of 16 KiB. Here the records of a whole
block are made in memory first. Measured: docs/performance.md, "What was tried".
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from urllib3.util.ssltransport import SSLTransport

BLOCK_BYTES = 512 << 10


class BlockwiseTLS(SSLTransport):
    """Takes the place of an ssl.SSLSocket; urllib3's own transport for TLS inside TLS does the work."""

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send the first `BLOCK_BYTES` of it and give how many they were: more would lie in memory three times."""
        return super().send(data[:BLOCK_BYTES], flags)  # type: ignore[arg-type]  # it takes any buffer


class _Context(ssl.SSLContext):
    def wrap_socket(self, sock: Any, *_: Any, server_hostname: str | bytes | None = None, **__: Any) -> Any:
        return BlockwiseTLS(sock, self, server_hostname)  # type: ignore[arg-type]


@contextmanager
def blockwise() -> Iterator[None]:
    """Let the SDK's clients that are made meanwhile speak TLS so. It has no setting for that.

    Where a later SDK makes its contexts elsewhere, they stay what they are.
    """
    from botocore import httpsession

    name = "SSLContext"
    before = getattr(httpsession, name, None)
    setattr(httpsession, name, _Context)
    try:
        yield
    finally:
        setattr(httpsession, name, before)
