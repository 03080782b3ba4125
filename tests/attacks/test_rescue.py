"""A tenant prepares the volume before the manager moves dumps there from the node's own directory."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.attacks.conftest import Hold
from tests.attacks.stage import Stage
from tests.attacks.tenants import VICTIM, heap_dump

pytestmark = [pytest.mark.slow, pytest.mark.attack]


def _take_the_mount_away(stage: Stage) -> None:
    stage.node.host.run("umount(mnt + '/dump', 2)", mnt=stage.node.mnt)


def _in_volume(stage: Stage, code: str) -> None:
    """Run code as the attacker's user in the volume itself, which it reached before the mount was lost."""
    stage.node.host.run(
        "pid = os.fork()\n"
        "if not pid:\n"
        "    done = 1\n"
        "    try:\n"
        "        os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)\n"
        + "".join(f"        {line}\n" for line in code.splitlines())
        + "        done = 0\n"
        "    finally:\n"
        "        os._exit(done)\n"
        "assert os.waitpid(pid, 0)[1] == 0",
        pv=stage.node.pv,
    )


def _rescued(stage: Stage, content: bytes, within_s: float = 10) -> list[Path]:
    """Give the files of the volume that hold the victim's dump, as soon as there is one."""
    until = time.monotonic() + within_s
    while True:
        found = [
            path
            for path in stage.node.in_volume("").rglob("*.hprof")
            if path.is_file() and not path.is_symlink() and path.read_bytes() == content
        ]
        if found or time.monotonic() > until:
            return found
        time.sleep(0.2)


def test_a_directory_of_the_attackers_does_not_get_a_victims_dump(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        content = heap_dump(1)
        _in_volume(stage, "os.mkdir(pv + '/shop')")
        _take_the_mount_away(stage)
        stage.victim.run("os.mkdir(f'{root}/shop', 0o755)")
        stage.victim.write_dump("shop/java_pid1.hprof", content)
        stage.start_manager(FILE_STABLE_TIME="1s")
        found = _rescued(stage, content)
        if not found:
            return "the dump is not rescued"
        parent = found[0].parent.stat()
        return (
            "" if parent.st_uid in (0, VICTIM) else f"its directory is of uid {parent.st_uid}, who deletes it"
        )

    held(attack, manager=False)


def test_names_that_are_taken_do_not_keep_a_dump_from_being_rescued(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        content = heap_dump(1)
        _in_volume(
            stage,
            "names = ['shop_checkout.hprof', 'shop_checkout.rescued-20260101T000000Z.hprof']\n"
            "names += [f'shop_checkout.rescued-20260101T000000Z-{n}.hprof' for n in range(2, 1001)]\n"
            "for name in names: os.close(os.open(f'{pv}/{name}', os.O_CREAT, 0o644))",
        )
        _take_the_mount_away(stage)
        stage.victim.write_dump("shop_checkout.hprof", content)
        stage.victim.run("os.utime(f'{root}/shop_checkout.hprof', (1767225600, 1767225600))")
        stage.start_manager(FILE_STABLE_TIME="1s")
        return "" if _rescued(stage, content) else "the dump is not rescued"

    held(attack, manager=False)


def test_a_file_in_the_place_of_a_directory_does_not_keep_its_dumps_from_being_rescued(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        content = heap_dump(1)
        _in_volume(stage, "os.close(os.open(pv + '/pay', os.O_CREAT, 0o644))")
        _take_the_mount_away(stage)
        stage.victim.run("os.mkdir(f'{root}/pay', 0o755)")
        stage.victim.write_dump("pay/java_pid1.hprof", content)
        stage.start_manager(FILE_STABLE_TIME="1s")
        return "" if _rescued(stage, content) else "the dump is not rescued"

    held(attack, manager=False)


def test_a_file_of_holes_does_not_fill_the_volume(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        _take_the_mount_away(stage)
        stage.attacker.run(
            "os.truncate(os.open(f'{root}/a.hprof', os.O_CREAT | os.O_WRONLY, 0o600), 10 << 30)"
        )
        stage.start_manager(FILE_STABLE_TIME="1s")
        least, until = 1 << 60, time.monotonic() + 10
        while time.monotonic() < until:
            room = stage.node.host.run("(os.statvfs(pv).f_bavail * os.statvfs(pv).f_bsize)", pv=stage.node.pv)
            least = min(least, int(room))
            time.sleep(0.1)
        return "" if least > 200 << 20 else f"the volume of 300 MiB had {least >> 20} MiB free"

    held(attack, manager=False)


def test_a_temporary_of_the_rescue_cannot_be_swapped(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        content = heap_dump(1, filler_bytes=60_000_000)
        _in_volume(stage, "os.makedirs(pv + '/.dumpagent/rescue')")
        _take_the_mount_away(stage)
        stage.victim.write_dump("shop_checkout.hprof", content)
        stage.node.host.run(
            "pid = os.fork()\n"
            "if not pid:\n"
            "    import time\n"
            "    os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)\n"
            "    until = time.time() + 12\n"
            "    while time.time() < until:\n"
            "        try:\n"
            "            for name in os.listdir(pv + '/.dumpagent/rescue'):\n"
            "                path = pv + '/.dumpagent/rescue/' + name\n"
            "                os.unlink(path); open(path, 'w').write('EVIL'); os._exit(0)\n"
            "        except OSError:\n"
            "            pass\n"
            "    os._exit(0)",
            pv=stage.node.pv,
        )
        stage.start_manager(FILE_STABLE_TIME="1s")
        time.sleep(6)
        found = stage.node.in_volume("shop_checkout.hprof")
        evil = found.is_file() and found.read_bytes() == b"EVIL"
        return "the volume has the attacker's file under the victim's name" if evil else ""

    held(attack, manager=False)


def test_a_dump_does_not_wait_for_the_thousands_of_another_user_that_are_rescued(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        content = heap_dump(1)
        _take_the_mount_away(stage)
        stage.attacker.run(
            "for number in range(40_000):\n"
            "    fd = os.open(f'{root}/a{number:06}.hprof', os.O_CREAT | os.O_WRONLY, 0o600)\n"
            "    os.write(fd, b'JAVA PROFILE 1.0.2'); os.close(fd)",
            timeout_s=120,
        )
        stage.victim.write_dump("shop_checkout.hprof", content)
        stage.start_manager(FILE_STABLE_TIME="1s")
        rescued = stage.node.in_volume("shop_checkout.hprof")
        until = time.monotonic() + 10
        while not rescued.exists() and time.monotonic() < until:
            time.sleep(0.2)
        return "" if rescued.exists() else "the victim's dump is not rescued after 10 s"

    held(attack, manager=False)
