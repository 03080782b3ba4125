"""An uploader's TLS makes its records in blocks, and is TLS all the same."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from botocore import httpsession

from dumpagent.dumps.source import FileSpan
from dumpagent.settings import S3
from dumpagent.store.protocol import TLS_BLOCK_BYTES, Body
from dumpagent.store.s3.store import S3Store
from dumpagent.store.s3.tls import BlockwiseTLS
from tests.harness.stores.server import StoreServer
from tests.stores.conftest import Connect
from tests.stores.test_faults import stored


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each call took."""
    sizes = list[int]()
    send = BlockwiseTLS.send

    def counted(self: BlockwiseTLS, data: bytes, flags: int = 0) -> int:
        sizes.append(send(self, data, flags))
        return sizes[-1]

    monkeypatch.setattr(BlockwiseTLS, "send", counted)
    return sizes


@pytest.mark.parametrize("name", ["swift_tls", "ceph_tls"])
@pytest.mark.parametrize("at_once_bytes", [TLS_BLOCK_BYTES, 2 * TLS_BLOCK_BYTES + 5])
def test_what_is_read_from_a_dump_goes_out_in_blocks(
    name: str,
    at_once_bytes: int,
    request: pytest.FixtureRequest,
    connect: Connect,
    sends: list[int],
    tmp_path: Path,
) -> None:
    server: StoreServer = request.getfixturevalue(name)
    content = os.urandom(5 * TLS_BLOCK_BYTES + 17)
    (tmp_path / "dump").write_bytes(content)
    bucket, crc32 = server.new_bucket(), zlib.crc32(content)
    with (tmp_path / "dump").open("rb") as file:
        span = FileSpan(file.fileno(), 0, len(content), crc32, read_bytes=at_once_bytes)
        connect(server, bucket).put("k", Body(span, crc32), {})
    assert stored(server, bucket) == {"k": content}
    assert max(sends) == TLS_BLOCK_BYTES
    assert sends.count(TLS_BLOCK_BYTES) >= 4


def test_only_clients_that_write_speak_so(swift_tls: StoreServer, connect: Connect, sends: list[int]) -> None:
    bucket = swift_tls.new_bucket()
    connect(swift_tls, bucket).put("k", Body(b"dump", zlib.crc32(b"dump")), {})
    sends.clear()
    reader = S3Store(S3(bucket=bucket, endpoint_url=swift_tls.endpoint_url), reads_only=True)
    assert b"".join(reader.read("k")) == b"dump"
    assert sends == []


def test_the_sdk_is_left_as_it_was(swift_tls: StoreServer, connect: Connect) -> None:
    before = vars(httpsession)["SSLContext"]
    connect(swift_tls).check()
    assert vars(httpsession)["SSLContext"] is before is not None
