"""A tenant makes the agent's names on the volume first: state, lock, write test, .ready."""

from __future__ import annotations

import time
import zlib

import pytest

from tests.attacks.conftest import Hold
from tests.attacks.stage import PREFIX, Stage
from tests.attacks.tenants import heap_dump, with_crc32

pytestmark = [pytest.mark.slow, pytest.mark.attack]
STORED_WITHIN_S = 10.0

SQUAT = """
for name in ("", "/receipts", "/uploads", "/deleting", "/outbox"):
    with contextlib.suppress(OSError):
        os.mkdir(f"{root}/.dumpagent{name}", 0o700)
"""
FORGE = """
found = os.stat(f"{root}/{victim}")
identity = {"inode": found.st_ino, "size_bytes": found.st_size, "mtime_ns": found.st_mtime_ns}
receipt = {
    "version": 1, "identity": identity, "path": victim, "store": store, "key": key, "crc32": crc32,
    "stored_bytes": found.st_size, "uploaded_at": 1.0, "verified": True, "gone_since": None, "rechecked": True,
}
for name in os.listdir(root):
    with contextlib.suppress(OSError):
        with open(f"{root}/{name}/receipts/forged.json", "w") as file:
            json.dump(receipt, file)
"""


def _not_stored(stage: Stage, *, why: str) -> str:
    return "" if stage.stored_after_s(STORED_WITHIN_S) is not None else why


@pytest.mark.parametrize("manager", [True, False], ids=["beside a manager", "without a manager"])
def test_a_forged_receipt_has_no_dump_deleted_that_was_never_stored(held: Hold, manager: bool) -> None:
    def attack(stage: Stage) -> str:
        content = heap_dump(1)
        stage.attacker.run(SQUAT)
        evil = heap_dump(99)
        assert len(evil) == len(content)
        stage.attacker.write_dump("evil.hprof", evil)
        first = stage.start_uploader(LOCAL_KEEP="until-uploaded")
        until = time.monotonic() + 30
        while f"{PREFIX}/evil.hprof" not in stage.stored() and time.monotonic() < until:
            time.sleep(0.2)
        time.sleep(1)
        first.end()
        stage.victim_writes(content)
        store = f"bucket {stage.bucket} at {stage.client.meta.endpoint_url}"
        stage.attacker.run(
            FORGE,
            victim="shop_checkout.hprof",
            store=store,
            key=f"{PREFIX}/evil.hprof",
            crc32=zlib.crc32(evil),
        )
        stage.start_uploader(LOCAL_KEEP="until-uploaded")
        stage.written_at = time.monotonic()
        return _not_stored(stage, why=f"the victim's dump is not in the bucket; the volume: {stage.volume()}")

    held(attack, manager=manager)


def test_a_lock_that_a_tenant_holds_stops_no_upload(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        lock = stage.attacker.start(
            SQUAT + "\nwith contextlib.suppress(OSError):\n"
            "    fd = os.open(f'{root}/.dumpagent/lock', os.O_RDWR | os.O_CREAT, 0o666)\n"
            "    fcntl.flock(fd, fcntl.LOCK_EX)\n"
            "print('held', flush=True)\ntime.sleep(60)"
        )
        stage.attacker.told(lock)
        stage.start_uploader()
        stage.victim_writes(heap_dump(1))
        return _not_stored(stage, why="nothing is uploaded while the tenant holds the lock")

    held(attack)


def test_a_link_in_the_place_of_the_state_moves_no_file_of_another(held: Hold) -> None:
    """Nor does one in any of the state's own folders."""

    def attack(stage: Stage) -> str:
        stage.victim.run(
            "os.mkdir(f'{root}/shop', 0o755)\n"
            "open(f'{root}/shop/config.yaml', 'w').write('secret'); os.chmod(f'{root}/shop/config.yaml', 0o600)\n"
        )
        # A segment file that its JVM writes: no one may touch it. One that nobody has open is a dump of its own.
        writing = stage.victim.start(
            "file = open(f'{root}/shop/live.hprof.p0', 'w'); print('writing', flush=True); time.sleep(120)"
        )
        assert stage.victim.told(writing) == "writing"
        stage.attacker.run(
            SQUAT.replace('"/deleting", ', "")
            + "\nwith contextlib.suppress(OSError):\n    os.symlink(f'{root}/shop', f'{root}/.dumpagent/deleting')"
        )
        stage.start_uploader()
        stage.victim_writes(heap_dump(1))
        late = _not_stored(stage, why="the victim's dump is not stored")
        moved = not (stage.victim_has("shop/config.yaml") and stage.victim_has("shop/live.hprof.p0"))
        return f"files of the victim were moved: {stage.volume()}" if moved else late

    held(attack, manager=False)


@pytest.mark.parametrize(
    "squat",
    [
        "os.mkfifo(f'{root}/.dumpagent/store.json', 0o666)",
        "open(f'{root}/.dumpagent/receipts/1-2-3.json', 'w').write('[' * 200_000)",
        "open(f'{root}/.dumpagent/uploads/1-2-3.json', 'w').write('[' * 200_000)",
    ],
    ids=["a FIFO as store.json", "a nested receipt", "a nested upload"],
)
def test_a_state_that_a_tenant_wrote_does_not_stop_the_agent(held: Hold, squat: str) -> None:
    def attack(stage: Stage) -> str:
        stage.attacker.run(f"{SQUAT}\nwith contextlib.suppress(OSError):\n    {squat}")
        try:
            stage.start_uploader()
        except AssertionError:
            return "the agent does not start"
        stage.victim_writes(heap_dump(1))
        return _not_stored(stage, why="the victim's dump is not stored") or stage.unsound()

    held(attack, manager=False)


def test_a_directory_with_a_name_that_the_manager_writes_keeps_no_node_unready(held: Hold) -> None:
    """The write test's name, and .ready itself."""

    def attack(stage: Stage) -> str:
        stage.attacker.run(
            "for name in ('.dumpagent-write-test.node-1', '.dumpagent', '.ready', '.ready.tmp'):\n"
            "    with contextlib.suppress(OSError):\n"
            "        os.mkdir(f'{root}/{name}')\n"
            "        os.mkdir(f'{root}/{name}/x')"
        )
        time.sleep(4)
        stage.start_uploader()
        stage.victim_writes(heap_dump(1))
        return _unready(stage) or _not_stored(stage, why="the victim's dump is not stored")

    held(attack)


def test_directories_made_before_the_manager_comes_keep_no_node_unready(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.node.host.run("umount(mnt + '/dump', 2)", mnt=stage.node.mnt)
        stage.node.host.run(
            "for name in ('.ready', '.dumpagent-write-test.node-1', '.dumpagent'):\n"
            "    os.makedirs(f'{pv}/{name}/x')\n    os.chown(f'{pv}/{name}', 12345, 12345)",
            pv=stage.node.pv,
        )
        stage.start_manager(wait=False)
        time.sleep(6)
        if unready := _unready(stage):
            return unready
        stage.start_uploader()
        stage.victim_writes(heap_dump(1))
        return _not_stored(stage, why="the victim's dump is not stored")

    held(attack, manager=False)


def _unready(stage: Stage) -> str:
    ready = stage.node.in_volume(".ready")
    is_ours = ready.is_file() and not ready.is_symlink() and ready.stat().st_uid == 0
    return "" if is_ours else "the node is not ready"


def test_a_dump_forged_to_the_same_length_and_crc32_does_not_stand_for_a_victims(held: Hold) -> None:
    """The names in a common directory can be foreseen, and four bytes give any content the CRC32 of another."""

    def attack(stage: Stage) -> str:
        content = heap_dump(1)
        forged = with_crc32(heap_dump(99), zlib.crc32(content), at=5000)
        assert (len(forged), zlib.crc32(forged)) == (len(content), zlib.crc32(content))
        stage.start_uploader()
        stage.attacker.write_dump("shop_checkout.hprof", forged)
        until = time.monotonic() + 15
        while forged not in stage.stored().values() and time.monotonic() < until:
            time.sleep(0.2)
        stage.attacker.run(
            "for name in os.listdir(root):\n    if name.startswith('shop_checkout'): os.unlink(f'{root}/{name}')"
        )
        stage.victim_writes(content)
        until = time.monotonic() + STORED_WITHIN_S
        while time.monotonic() < until:
            if content in stage.stored().values():
                return ""
            time.sleep(0.2)
        return f"the victim's dump is not in the bucket: {list(stage.stored())}"

    held(attack)
