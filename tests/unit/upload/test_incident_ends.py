"""What went wrong and is well again is told so, by each trouble of upload mode."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from dumpagent.dumps.model import DumpFacts, DumpFile
from dumpagent.errors import Refused
from dumpagent.probes.heartbeat import Health, Heartbeat, Pulse
from dumpagent.settings import Keep
from dumpagent.store.protocol import Body
from dumpagent.upload.keeping.deletion import unlink_at
from dumpagent.upload.volume.claim import CannotClaim, claim
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload import test_loop, test_loop_claims
from tests.unit.upload.conftest import SMALL_LIMITS, Told, Volume, some_bytes
from tests.unit.upload.keeping.test_deletion import Scene


class _Refusing(MemoryStore):
    refuses = True

    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        if self.refuses:
            raise Refused("writing: the store answered 400 InvalidRequest", hint="do this")
        super().put(key, body, metadata)


def test_a_dump_that_was_refused_and_is_stored_now(volume: Volume, told: Told) -> None:
    store, clock = _Refusing(limits=SMALL_LIMITS), test_loop.Clock()
    volume.dump("a.hprof", b"x")
    loop = test_loop.loop_on(volume, store, told, clock=clock)
    for store.refuses in (True, True, True, False):
        loop.look()
        loop.upload_next(timeout_s=0)
        clock.now += 3600
    assert told.names().count("upload_failed") == 3, "an hour apart, so each is told"
    assert told.names()[-2:] == ["upload_recovered", "dump_uploaded"]
    (recovered,) = told.of("upload_recovered")
    assert (recovered["times"], recovered["seconds"]) == (3, 3 * 3600)


def test_a_volume_that_lets_us_rename_again(volume: Volume, store: MemoryStore, told: Told) -> None:
    refuses = True

    def claiming(dump: DumpFile, facts: DumpFacts | None) -> DumpFile:
        if refuses:
            raise CannotClaim("cannot be renamed: Permission denied", hint="do this")
        return claim(dump, facts)

    loop = test_loop_claims.loop_on(volume, store, told, claiming)
    volume.dump("a.hprof", Maker().dump())
    loop.run_once()
    refuses = False
    volume.dump("b.hprof", Maker().dump(segments=2))
    loop.run_once()
    assert [name for name in told.names() if name.startswith("claim_")] == ["claim_failed", "claim_recovered"]


def test_a_dump_that_can_be_deleted_again(volume: Volume, store: MemoryStore, told: Told) -> None:
    refuses = True

    def unlink(name: str, directory: int) -> None:
        if refuses:
            os.rename(name, "a.hprof", src_dir_fd=directory, dst_dir_fd=directory)
            raise PermissionError(errno.EPERM, "Operation not permitted", name)
        unlink_at(name, directory)

    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED, unlink=unlink)
    scene.upload("a.hprof", some_bytes(10), at=1)
    for _ in range(3):
        scene.reclaim()
    assert told.names() == ["delete_failed"]
    refuses = False
    scene.reclaim()
    assert told.names() == ["delete_failed", "delete_recovered", "dump_deleted"]


def test_a_runtime_directory_that_can_be_written_again(tmp_path: Path, told: Told) -> None:
    directory = tmp_path / "run"
    pulse = Pulse(Heartbeat(str(directory), "upload"), told, good_for_s=60)
    pulse.begin()
    shutil.rmtree(directory)
    for _ in range(3):
        pulse.beat(Health.READY, "all is well")
    assert told.names() == ["heartbeat_failed"]
    os.mkdir(directory)
    pulse.beat(Health.READY, "all is well")
    pulse.beat(Health.READY, "all is well")
    assert told.names() == ["heartbeat_failed", "heartbeat_recovered"]
