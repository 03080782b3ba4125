"""A tenant has what is his taken for another's: inode, time and length of a file, names that a dump will have, companions."""

from __future__ import annotations

import time

import pytest

from tests.attacks.conftest import Hold
from tests.attacks.stage import PREFIX, Stage
from tests.attacks.tenants import heap_dump
from tests.mount.volumes import ext4

pytestmark = [pytest.mark.slow, pytest.mark.attack]
STORED_WITHIN_S = 30.0  # nobody is kept waiting here: what counts is that it is stored at all

# An ext4 gives the lowest free inode, after some seconds; others who make and delete files take those below it.
INODE_OF = "print(os.stat(f'{root}/{name}').st_ino)"
COPY_TO_THE_INODE = """
os.umask(0o077)
until = time.monotonic() + 60
while time.monotonic() < until:
    names = [f"{root}/part{number}" for number in range(50)]
    files = [open(name, "wb") for name in names]
    mine = [file for file in files if os.fstat(file.fileno()).st_ino == inode]
    if mine:
        os.rename(mine[0].name, f"{root}/shop.hprof")
    for file in files:
        if file not in mine:
            os.unlink(file.name)
    if mine:
        mine[0].write(bytes.fromhex(content))
        mine[0].flush()
        os.utime(mine[0].fileno(), (1_700_000_000, 1_700_000_000))
        mine[0].close()
        break
    time.sleep(1)
else:
    raise SystemExit("the inode was not used again")
"""


def _until_stored(stage: Stage, content: bytes, within_s: float = STORED_WITHIN_S) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if content in stage.stored().values():
            return True
        time.sleep(0.2)
    return False


def test_the_receipt_of_a_file_does_not_stand_for_anothers_with_its_inode_time_and_length(held: Hold) -> None:
    """A JVM's dump that its pod moves to the volume with `cp -p` has a time that others know: that of its end."""

    def attack(stage: Stage) -> str:
        with ext4(stage.node, "64M"):
            stage.node.host.run("mount(pv, mnt + '/dump', MS_BIND)", pv=stage.node.pv, mnt=stage.node.mnt)
            stage.node.host.run("os.chmod(pv, 0o1777)", pv=stage.node.pv)
            stage.start_uploader(CLAIM="false")
            mine, content = heap_dump(99), heap_dump(1)
            stage.attacker.run(
                "fd = os.open(f'{root}/a.hprof', os.O_WRONLY | os.O_CREAT, 0o600); os.write(fd, bytes.fromhex(content))\n"
                "os.utime(fd, (1_700_000_000, 1_700_000_000)); os.close(fd)",
                content=mine.hex(),
            )
            assert _until_stored(stage, mine)
            time.sleep(2)
            inode = stage.attacker.run(INODE_OF, name="a.hprof")
            # The receipt outlives the file: whoever mounts the volume again has its dumps back.
            stage.attacker.run("os.unlink(f'{root}/a.hprof')")
            stage.victim.run(COPY_TO_THE_INODE, content=content.hex(), inode=int(inode), timeout_s=90)
            return (
                ""
                if _until_stored(stage, content)
                else f"the victim's dump is taken for stored: {stage.volume()}"
            )

    held(attack, manager=False)


def test_a_directory_that_changes_its_owner_leaves_no_key_of_its_first_one_to_the_next(held: Hold) -> None:
    """The attacker has a dump stored under the path that the victim's will have, and clears the place for the victim."""

    def attack(stage: Stage) -> str:
        mine, content = heap_dump(99), heap_dump(1)
        stage.start_uploader(LOCAL_KEEP="until-uploaded")
        stage.attacker.run("os.mkdir(f'{root}/shop_web-1', 0o755)")
        stage.attacker.write_dump("shop_web-1/java_pid1.hprof", mine)
        assert _until_stored(stage, mine)
        stage.attacker.run("os.rename(f'{root}/shop_web-1', f'{root}/gone')")
        stage.victim.run("os.mkdir(f'{root}/shop_web-1', 0o700)")
        stage.victim.write_dump("shop_web-1/java_pid1.hprof", content)
        if not _until_stored(stage, content):
            return f"the victim's dump is not in the bucket: {list(stage.stored())}"
        kept = stage.stored().get(f"{PREFIX}/shop_web-1/java_pid1.hprof")
        return "" if kept == mine else "the dump that was there first was written over"

    held(attack, control=False)  # 0.1.0 held this: the two dumps have another CRC32
