"""Nothing that anybody may still need is deleted from a bucket, whatever happens in the middle of it."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpagent.errors import Refused, Unreachable
from dumpagent.fetch.catalogue import list_dumps
from dumpagent.fetch.stored import Wanted
from dumpagent.prune.carry_out import carry_out
from dumpagent.prune.plan import Plan, make_plan
from dumpagent.prune.policy import Prunable, Rules, Why, decide
from tests.harness.stores.memory import MemoryStore
from tests.unit.fetch.conftest import NOON, Bucket, iso
from tests.unit.fetch.test_catalogue import put

DAY = 86400.0


@given(
    dumps=st.lists(st.tuples(st.integers(0, 3), st.integers(-5, 400), st.integers(1, 5)), max_size=40),
    rules=st.builds(Rules, st.integers(1, 4), st.integers(0, 3), st.sampled_from([0.0, 30.0, 365.0])),
)
def test_the_first_the_last_the_largest_the_only_and_the_young_stay(
    dumps: list[tuple[int, int, int]], rules: Rules
) -> None:
    candidates = [
        Prunable(number, workload, NOON - age * DAY, size)
        for number, (workload, age, size) in enumerate(dumps)
    ]
    decisions = decide(candidates, rules, now=NOON)
    assert sorted(decision.candidate.dump for decision in decisions) == list(range(len(dumps)))
    groups = defaultdict(list)
    for decision in decisions:
        groups[decision.candidate.workload].append(decision)
    for group in groups.values():
        left = [decision.candidate for decision in group if not decision.goes]
        everything = [decision.candidate for decision in group]
        assert min(c.when for c in left) == min(c.when for c in everything)
        assert max(c.when for c in left) == max(c.when for c in everything)
        assert len(left) >= min(len(everything), rules.keep_last)
        if rules.keep_largest:
            assert max(c.size_bytes for c in left) == max(c.size_bytes for c in everything)
        assert all(NOON - d.candidate.when >= rules.keep_days * DAY for d in group if d.goes)


class FailingStore(MemoryStore):
    """Fails at random, and refuses to delete what is locked."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance, self.failing, self.locked = chance, False, set[str]()

    def erase(self, key: str) -> None:
        if key in self.locked:
            raise Refused(f"deleting {key}: 403 AccessDenied: the object is locked")
        if self.failing and self.chance.random() < 0.2:
            raise Unreachable("no answer")
        self.delete(key)
        if self.failing and self.chance.random() < 0.1:
            raise Unreachable("the answer was lost")


def keys(bucket: Bucket) -> set[str]:
    return {stored.key for stored in bucket.store.objects("")}


def history(seed: int) -> Bucket:
    """Make a bucket of a few workloads with dumps of two years, some with reports, one that nobody indexed."""
    chance = random.Random(seed)
    bucket = Bucket(FailingStore(chance))
    for workload in range(chance.randint(1, 4)):
        for number in range(chance.randint(1, 12)):
            key = f"team_app{workload}-{number}/java_pid1.hprof"
            when = NOON - chance.randint(0, 700) * DAY
            put(
                bucket,
                key,
                namespace="team",
                workload=f"app{workload}",
                pod=f"app{workload}-{number}",
                dump_time=iso(when),
                original_size=str(chance.randint(1, 9)),
            )
            if chance.random() < 0.5:
                bucket.put_bare(f"{key}.report.json", b"{}")
    bucket.put("old/agent.hprof")
    return bucket


def plan_of(bucket: Bucket) -> Plan:
    return make_plan(bucket.store, Rules(), prefix="", now=NOON)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(0, 1000, 50))
def test_a_thousand_histories_lose_what_the_dry_run_said_and_nothing_else(seed: int) -> None:
    for each in range(seed, seed + 50):
        bucket = history(each)
        store = bucket.store
        assert isinstance(store, FailingStore)
        before, plan = keys(bucket), plan_of(bucket)
        kept = {decision.candidate.dump.key for decision in plan.kept}
        doomed = {key for d in plan.doomed for key in (d.dump.key, d.entry_key, *(b.key for b in d.beside))}
        store.failing = True
        for _ in range(200):  # each try is cut off where the store fails
            try:
                carry_out(store, store, plan_of(bucket), stopped=lambda: False)
                break
            except Unreachable:
                assert kept <= keys(bucket)
        assert before - keys(bucket) == doomed
        assert kept | {"old/agent.hprof"} <= keys(bucket)
        assert not plan_of(bucket).doomed


def test_a_locked_dump_stays_with_all_that_belongs_to_it() -> None:
    bucket = history(7)
    store = bucket.store
    assert isinstance(store, FailingStore)
    plan = plan_of(bucket)
    assert plan.doomed
    store.locked = {doomed.dump.key for doomed in plan.doomed}
    before, told = keys(bucket), []
    pruned = carry_out(
        store, store, plan, stopped=lambda: False, refused=lambda _doomed, why: told.append(why)
    )
    assert (pruned.deleted, pruned.kept) == (0, len(plan.doomed))
    assert keys(bucket) == before
    assert all("locked" in why for why in told)


def test_an_object_that_was_replaced_since_the_plan_stays() -> None:
    bucket = history(7)
    plan = plan_of(bucket)
    key = plan.doomed[0].dump.key
    bucket.put_bare(key, b"another")
    assert isinstance(bucket.store, FailingStore)
    carry_out(bucket.store, bucket.store, plan, stopped=lambda: False)
    assert key in keys(bucket)


def test_an_only_dump_stays_for_ever() -> None:
    (decision,) = decide([Prunable("x", "app", 0.0, 1)], Rules(1, 0, 0.0), now=NOON)
    assert decision.why is Why.FIRST


def test_the_files_beside_a_dump_go_with_it_and_those_of_others_stay() -> None:
    bucket = Bucket()
    for age in (100, 90, 80):
        put(bucket, f"shop/heap-{age}.hprof", dump_time=iso(NOON - age * DAY))
    folders = {
        dump.path: dump.companion_folder for dump in list_dumps(bucket.store, Wanted(), now=NOON) or []
    }
    for folder in folders.values():
        bucket.put_bare(f"{folder}gc.log", b"pause")
    plan = make_plan(bucket.store, Rules(1, 0, 30), prefix="", now=NOON)
    assert plan.unknown == 0
    carry_out(bucket.store, _Eraser(bucket.store), plan, stopped=lambda: False)
    left = {stored.key for stored in bucket.store.objects("") if not stored.key.startswith(".dumpagent/")}
    kept = ["shop/heap-100.hprof", "shop/heap-80.hprof"]
    assert left == {*kept, *(f"{folders[path]}gc.log" for path in kept)}


class _Eraser:
    def __init__(self, store: MemoryStore) -> None:
        self.erase = store.delete
