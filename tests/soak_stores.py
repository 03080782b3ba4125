"""`python -m tests.soak_stores`: pairs of quirks of stores, through the real `dumpagent upload --once`.

The fake of tests/harness/stores has both quirks of a pair at once. A dump of 40 MiB goes up twice, the second time without the state,
and must be in the store once, byte for byte. `--sample N` takes N of all pairs by chance, `--seed` which; the count stands in
docs/testing.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import random
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.harness.stores.fake import Ways
from tests.stores.test_quirks import LARGE, QUIRKS, stored_once
from tests.stores.test_wire import WAYS

_DEFAULTS = Ways()
_ALL = {**QUIRKS, **WAYS, **{f"no-{what}": Ways(refuses={what: 501}) for what in ("list-uploads", "list-parts", "condition", "head", "tags")}}  # fmt: skip


def both(one: Ways, other: Ways) -> Ways | None:
    """Give a store with the ways of both; None where they contradict each other."""
    changed: dict[str, object] = {}
    for ways in (one, other):
        for field in dataclasses.fields(Ways):
            value = getattr(ways, field.name)
            if value == getattr(_DEFAULTS, field.name):
                continue
            if field.name in changed and changed[field.name] != value:
                return None
            changed[field.name] = value
    return dataclasses.replace(_DEFAULTS, **changed)  # type: ignore[arg-type]


def pairs() -> list[tuple[str, str]]:
    """Give all pairs that can be."""
    return [
        (one, other)
        for one, other in itertools.combinations(sorted(_ALL), 2)
        if both(_ALL[one], _ALL[other]) is not None
    ]


def fault_of(pair: tuple[str, str]) -> str | None:
    """Play one pair; give what went wrong."""
    ways = both(_ALL[pair[0]], _ALL[pair[1]])
    assert ways is not None
    with tempfile.TemporaryDirectory(prefix="dumpagent-soak-") as folder:
        try:
            stored_once(Path(folder), ways, LARGE, S3_TAGS="team=shop")
        except AssertionError as error:
            return " ".join(str(error).split())[:600] or "not stored once, byte for byte"
        except Exception as error:  # noqa: BLE001 - one pair's fault must not end the others
            return f"{type(error).__name__}: {error}"[:600]
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=0, help="so many pairs; 0: all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    chosen = parser.parse_args()
    every = pairs()
    some = random.Random(chosen.seed).sample(every, chosen.sample) if chosen.sample else every
    began, bad = time.monotonic(), 0
    with ThreadPoolExecutor(chosen.jobs) as pool:
        for pair, fault in zip(some, pool.map(fault_of, some), strict=True):
            bad += fault is not None
            print(f"{' + '.join(pair)}: {fault or 'stored once'}", flush=True)
    print(f"{len(some)} of {len(every)} pairs, {bad} broken, {time.monotonic() - began:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
