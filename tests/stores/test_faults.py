"""What a network and a store do on a bad day: nothing wrong is taken for right, and what can be tried again is."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.dumps.keys import is_own_key, trial_key
from dumpagent.dumps.source import FileSpan
from dumpagent.errors import Refused, Unreachable
from dumpagent.store.protocol import Body, Corrupted, Occupied
from dumpagent.store.s3 import session
from dumpagent.store.s3.store import S3Store
from tests.harness.faults import Fault, FaultProxy, always, at_random, once, times
from tests.harness.stores.server import StoreServer
from tests.harness.sweeping import sweep_leftovers
from tests.stores.conftest import Connect

DATA = os.urandom(200_001)
DUMP = Body(DATA, zlib.crc32(DATA))
PASSING = [
    Fault.DELAY,
    Fault.RESET_BEFORE,
    Fault.RESET_AFTER,
    Fault.CUT_BODY,
    Fault.TRUNCATE_ANSWER,
    Fault.ERROR_500,
    Fault.ERROR_500_AFTER,
    Fault.SLOW_DOWN,
]


@pytest.fixture(params=["swift", "ceph"])
def server(request: pytest.FixtureRequest) -> StoreServer:
    server: StoreServer = request.getfixturevalue(request.param)
    return server


def without_own(found: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out the objects of the agent's own: a reservation, what it tries the store out with."""
    return {key: content for key, content in found.items() if not is_own_key(key)}


def stored(server: StoreServer, bucket: str) -> dict[str, bytes]:
    """Give what the bucket really holds, asked without the proxy."""
    client = server.client()
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return without_own({key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys})


def in_parts(store: S3Store, key: str) -> None:
    upload_id = store.begin(key, {})
    part = store.send_part(key, upload_id, 1, DUMP)
    store.complete(key, upload_id, [part], crc32=DUMP.crc32)


@pytest.fixture(params=["in memory", "in a file"])
def dump(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Body]:
    """The same bytes, given at once or read from a file while they are sent."""
    if request.param == "in memory":
        yield DUMP
        return
    path = tmp_path / "dump"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        yield Body(FileSpan(file.fileno(), 0, len(DATA), DUMP.crc32, read_bytes=65_536), DUMP.crc32)


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name.lower())
def test_a_part_survives_one_fault(server: StoreServer, connect: Connect, dump: Body, fault: Fault) -> None:
    """What the attempt that failed has read of the body is sent again with the rest."""
    bucket = server.new_bucket()
    with FaultProxy(server, delay_s=0.05) as proxy:
        store = connect(proxy.server, bucket)
        upload_id = store.begin("k", {})
        proxy.plan = once(fault, "UploadPart")
        part = store.send_part("k", upload_id, 1, dump)
        store.complete("k", upload_id, [part], crc32=DUMP.crc32)
        assert [done for request, done in proxy.log if done is not Fault.NONE] == [fault]
    assert stored(server, bucket) == {"k": DATA}


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: fault.name.lower())
def test_an_object_survives_one_fault(server: StoreServer, connect: Connect, fault: Fault) -> None:
    """Where only the answer was lost, the store says that the key is occupied: by this very dump."""
    bucket = server.new_bucket()
    with FaultProxy(server, delay_s=0.05) as proxy:
        store = connect(proxy.server, bucket)
        store.put("first", Body(b"", 0), {})  # the store's ways are known now
        proxy.plan = once(fault, "PutObject")
        try:
            store.put("k", DUMP, {})
        except Occupied:
            assert fault in (Fault.RESET_AFTER, Fault.ERROR_500_AFTER, Fault.TRUNCATE_ANSWER, Fault.CUT_BODY)
    assert stored(server, bucket) == {"first": b"", "k": DATA}


def test_a_damaged_part_is_refused_by_the_store_and_sent_again(
    server: StoreServer, connect: Connect, dump: Body
) -> None:
    bucket = server.new_bucket()
    with FaultProxy(server) as proxy:
        store = connect(proxy.server, bucket)
        upload_id = store.begin("k", {})
        proxy.plan = once(Fault.DAMAGE_BODY, "UploadPart")
        part = store.send_part("k", upload_id, 1, dump)
        store.complete("k", upload_id, [part], crc32=DUMP.crc32)
    assert stored(server, bucket) == {"k": DATA}


def test_a_line_that_damages_everything_stores_nothing(server: StoreServer, connect: Connect) -> None:
    bucket = server.new_bucket()
    with FaultProxy(server) as proxy:
        store = connect(proxy.server, bucket)
        upload_id = store.begin("m", {})
        proxy.plan = always(Fault.DAMAGE_BODY, "UploadPart", "PutObject")
        with pytest.raises(Corrupted) as error:
            store.put("k", DUMP, {})
        assert "damaged" in error.value.hint
        with pytest.raises(Corrupted):
            store.send_part("m", upload_id, 1, DUMP)
        assert store.parts("m", upload_id) == []
    assert without_own(stored(server, bucket)) == {}


def test_an_error_inside_a_200_is_no_success(server: StoreServer, connect: Connect) -> None:
    """S3 answers CompleteMultipartUpload before it knows. Source: API Reference, CompleteMultipartUpload."""
    bucket = server.new_bucket()
    with FaultProxy(server, always(Fault.ERROR_IN_200, "CompleteMultipartUpload")) as proxy:
        store = connect(proxy.server, bucket, attempts=2)
        upload_id = store.begin("k", {})
        part = store.send_part("k", upload_id, 1, DUMP)
        with pytest.raises(Unreachable, match="InternalError"):
            store.complete("k", upload_id, [part], crc32=DUMP.crc32)
        assert without_own(stored(server, bucket)) == {}
        proxy.plan = once(Fault.ERROR_IN_200, "CompleteMultipartUpload")
        store.complete("k", upload_id, [part], crc32=DUMP.crc32)
    assert stored(server, bucket) == {"k": DATA}


def test_a_read_that_is_cut_short_is_an_error_and_not_a_short_dump(
    server: StoreServer, connect: Connect
) -> None:
    bucket = server.new_bucket()
    with FaultProxy(server) as proxy:
        store = connect(proxy.server, bucket)
        store.put("k", DUMP, {})
        proxy.plan = always(Fault.TRUNCATE_ANSWER, "GetObject")
        with pytest.raises(Unreachable, match="reading k"):
            b"".join(store.read("k"))


def test_a_store_that_never_answers_is_given_up(
    server: StoreServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "READ_TIMEOUT_S", 1)
    with FaultProxy(server, always(Fault.HANG)) as proxy:
        store = connect(proxy.server, server.new_bucket(), attempts=1)
        with pytest.raises(Unreachable) as error:
            store.check()
        assert "timed out" in str(error.value).lower() or "timeout" in str(error.value).lower()
        assert error.value.hint


def test_a_store_that_stays_overloaded_is_told_as_unreachable_with_a_hint(
    server: StoreServer, connect: Connect
) -> None:
    with FaultProxy(server, always(Fault.SLOW_DOWN)) as proxy:
        store = connect(proxy.server, server.new_bucket(), attempts=2)
        with pytest.raises(Unreachable, match="503 SlowDown") as error:
            store.put("k", DUMP, {})
        assert error.value.hint
        assert len(proxy.log) == 2


def test_a_trial_that_was_cut_off_is_known_by_its_key_and_swept(
    server: StoreServer, connect: Connect
) -> None:
    """The agent tries the store out on an upload that it aborts; a kill or an outage may come between."""
    bucket = server.new_bucket()
    with FaultProxy(server, always(Fault.RESET_BEFORE, "AbortMultipartUpload")) as proxy:
        store = connect(proxy.server, bucket, attempts=1)
        with pytest.raises(Unreachable):
            store.begin("k", {})
        assert [upload.key for upload in store.open_uploads("")] == [trial_key("")]
        proxy.plan = always(Fault.NONE)
        assert sweep_leftovers(store, node="worker-1") == 1
        assert store.open_uploads("") == []


def test_expired_credentials_that_nobody_has_replaced_are_told_at_once(
    server: StoreServer, connect: Connect
) -> None:
    with FaultProxy(server) as proxy:
        store = connect(proxy.server, server.new_bucket())
        store.check()
        proxy.plan = times(99, Fault.EXPIRED_TOKEN)
        before = len(proxy.log)
        with pytest.raises(Refused, match="ExpiredToken"):
            store.put("k", DUMP, {})
        assert len(proxy.log) == before + 1


@pytest.mark.parametrize("seed", range(3))
def test_many_uploads_through_bad_weather_end_whole_or_told(
    server: StoreServer, connect: Connect, seed: int
) -> None:
    """Every third request breaks. What the store was said to hold it holds, and nothing that is wrong."""
    bucket = server.new_bucket()
    claimed: set[str] = set()
    with FaultProxy(server, at_random(seed, 0.3, {*PASSING, Fault.DAMAGE_BODY}), delay_s=0.05) as proxy:
        store = connect(proxy.server, bucket, attempts=4)
        for key in (f"k{n}" for n in range(6)):
            try:
                in_parts(store, key)
                claimed.add(key)
            except (Refused, Unreachable):
                pass  # told; the agent looks, and tries again
    holds = stored(server, bucket)
    assert claimed <= holds.keys()
    assert set(holds.values()) <= {DATA}
