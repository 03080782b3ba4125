"""The store under test: S3Store on every running server, and the one in memory, which must behave like them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from dumpagent.part_sizes import Limits
from dumpagent.settings import S3
from dumpagent.store.protocol import Store
from dumpagent.store.s3.store import S3Store
from tests.harness.fixtures import STORES
from tests.harness.stores.memory import MemoryStore
from tests.harness.stores.server import Quirks, StoreServer

Connect = Callable[..., S3Store]
MEMORY = Quirks(keeps_whole_checksum=True)


@dataclass(frozen=True)
class UnderTest:
    """A store with an empty bucket, and in which ways it differs. `again` opens the same bucket anew."""

    store: Store
    quirks: Quirks
    again: Callable[[], Store]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Opens a bucket of a server the way the agent does: settings, and the SDK's variables in the environment."""

    def open_bucket(
        server: StoreServer,
        bucket: str = "",
        *,
        storage_class: str = "STANDARD_IA",
        attempts: int = 3,
        **variables: str | None,
    ) -> S3Store:
        bucket = bucket or server.new_bucket()
        values = {"AWS_CA_BUNDLE": None, **server.environment(bucket), **variables}
        for name, value in values.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        settings = S3(
            bucket=bucket,
            endpoint_url=str(values["S3_ENDPOINT_URL"]),
            storage_class=storage_class,
        )
        return S3Store(settings, attempts=attempts)

    return open_bucket


@pytest.fixture(params=["memory", *STORES])
def under_test(request: pytest.FixtureRequest, connect: Connect) -> Iterator[UnderTest]:
    """Every store in turn, each with an empty bucket of its own."""
    if request.param == "memory":
        memory = MemoryStore(limits=Limits())
        yield UnderTest(memory, MEMORY, lambda: memory)
        return
    server: StoreServer = request.getfixturevalue(request.param)
    bucket = server.new_bucket()
    store = connect(server, bucket)
    yield UnderTest(store, server.quirks, lambda: connect(server, bucket))
    # Parts and objects of megabytes would otherwise stay in a store of a few gigabytes to the end of the run.
    with contextlib.suppress(Exception):
        for upload in store.open_uploads(""):
            store.abort(upload.key, upload.upload_id)
        for stored in store.objects(""):
            store.delete(stored.key)
