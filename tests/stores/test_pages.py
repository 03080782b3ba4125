"""Servers answer with a thousand entries at a time: what is longer is listed whole all the same."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from dumpagent.part_sizes import Limits, part_size
from dumpagent.store.protocol import Body
from tests.harness.stores.server import StoreServer
from tests.stores.conftest import Connect

pytestmark = pytest.mark.timeout(600)  # a thousand small requests, on a machine that may be busy


@pytest.fixture(params=["swift", "ceph"])
def server(request: pytest.FixtureRequest) -> StoreServer:
    server: StoreServer = request.getfixturevalue(request.param)
    return server


def test_a_bucket_of_more_than_a_thousand_dumps_is_listed_whole(
    server: StoreServer, connect: Connect
) -> None:
    client, bucket = server.client(max_pool_connections=4), server.new_bucket()
    keys = [f"k/{n:04}" for n in range(1003)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: client.put_object(Bucket=bucket, Key=key, Body=b""), keys))
    assert [found.key for found in connect(server, bucket).objects("k/")] == keys


def test_the_parts_of_a_dump_of_more_than_a_thousand_are_listed_whole(
    ceph: StoreServer, connect: Connect
) -> None:
    """A dump of several TB has more. OpenStack Swift takes no more than a thousand parts."""
    client, bucket = ceph.client(max_pool_connections=4), ceph.new_bucket()
    upload_id = client.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]

    def send(number: int) -> None:
        client.upload_part(Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=number, Body=b"x")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(1, 1004)))
    store = connect(ceph, bucket)
    assert [part.number for part in store.parts("k", upload_id)] == list(range(1, 1004))
    store.abort("k", upload_id)


def test_the_last_part_that_the_agent_plans_is_taken(server: StoreServer, connect: Connect) -> None:
    """A dump of 100 GB on every store: the number of its last part is no obstacle."""
    size_bytes = 100 << 30
    number = -(-size_bytes // part_size(size_bytes, limits=Limits()))
    store = connect(server)
    upload_id = store.begin("k", {})
    store.send_part("k", upload_id, number, Body(b"x", zlib.crc32(b"x")))
    store.abort("k", upload_id)
