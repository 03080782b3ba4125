"""Seen = uploaded + pending + failed, at any moment; and one bad dump does not hold up the others."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from dumpagent.dumps.model import DumpFile, Identity, State, Verdict
from dumpagent.upload.backlog import Backlog, Fairness
from dumpagent.upload.entry import Entry

DUE = Verdict(State.COMPLETE, "", due=True)


def dump(inode: int, *, mtime: int = 1, size: int = 10, name: str | None = None) -> DumpFile:
    return DumpFile("/d", name or f"{inode}.hprof", Identity(inode, size, mtime * 10**9), device=1)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def made_ready(backlog: Backlog, *dumps: DumpFile) -> None:
    backlog.update(dumps, stored=lambda _identity: False, everything=True)
    for entry in backlog.waiting():
        backlog.ready(entry, entry.dump, DUE)


def test_the_longest_finished_dump_is_first_and_one_that_failed_is_last() -> None:
    clock = Clock()
    backlog = Backlog(monotonic=clock, jitter=lambda: 1.0)
    made_ready(backlog, dump(1, mtime=5), dump(2, mtime=3), dump(3, mtime=9))
    first = backlog.take(timeout_s=0)
    assert first is not None
    assert first.dump.identity.inode == 2
    backlog.retry(first)
    clock.now += 100
    order = []
    while (entry := backlog.take(timeout_s=0)) is not None:
        order.append(entry.dump.identity.inode)
        backlog.has_stored(entry)
    assert order == [1, 3, 2]


def test_retries_wait_longer_each_time_up_to_a_minute() -> None:
    clock = Clock()
    backlog = Backlog(monotonic=clock, jitter=lambda: 1.0)
    made_ready(backlog, dump(1))
    delays = []
    for _ in range(9):
        entry = backlog.take(timeout_s=0)
        assert entry is not None
        delays.append(backlog.retry(entry))
        assert backlog.take(timeout_s=0) is None
        clock.now += delays[-1]
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_dump_that_grew_before_its_upload_is_judged_again() -> None:
    backlog = Backlog(monotonic=Clock())
    made_ready(backlog, dump(1))
    backlog.update([dump(1, size=20)], stored=lambda _identity: False, everything=True)
    assert [entry.dump.size_bytes for entry in backlog.waiting()] == [20]
    assert backlog.counts().seen == 1


def test_a_renamed_dump_is_the_same_dump() -> None:
    backlog = Backlog(monotonic=Clock())
    made_ready(backlog, dump(1))
    changes = backlog.update([dump(1, name="claimed.hprof")], stored=lambda _identity: False, everything=True)
    assert changes.new == changes.lost == []
    entry = backlog.take(timeout_s=0)
    assert entry is not None
    assert entry.dump.relpath == "claimed.hprof"


def test_another_dump_in_the_place_of_a_stored_one_is_new() -> None:
    backlog = Backlog(monotonic=Clock())
    backlog.update([dump(1)], stored=lambda _identity: True, everything=True)
    changes = backlog.update([dump(1, mtime=2)], stored=lambda _identity: False, everything=True)
    assert len(changes.new) == 1
    assert backlog.counts().seen == 2
    assert backlog.counts().pending == 1


def test_what_a_partial_scan_did_not_find_is_not_gone() -> None:
    backlog = Backlog(monotonic=Clock())
    made_ready(backlog, dump(1))
    assert backlog.update([], stored=lambda _identity: False, everything=False).lost == []
    assert [
        lost.relpath for lost in backlog.update([], stored=lambda _identity: False, everything=True).lost
    ] == ["1.hprof"]
    assert backlog.counts().failed == 1


def test_the_age_of_the_oldest_pending_dump_is_known() -> None:
    clock = Clock()
    backlog = Backlog(monotonic=clock)
    assert backlog.counts().oldest_pending_s == 0
    made_ready(backlog, dump(1))
    clock.now += 30
    made_ready(backlog, dump(1), dump(2))
    clock.now += 10
    assert backlog.counts().oldest_pending_s == 40


class Life(RuleBasedStateMachine):
    """Dumps come, grow, are renamed, replaced and vanish, uploads end in every way; the counts always add up."""

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.backlog = Backlog(monotonic=self.clock)
        self.volume: dict[int, DumpFile] = {}
        self.known: set[Identity] = set()
        self.sending: list[Entry] = []

    @rule(inode=st.integers(1, 5), size=st.integers(0, 3), mtime=st.integers(0, 3))
    def written(self, inode: int, size: int, mtime: int) -> None:
        self.volume[inode] = dump(inode, size=size, mtime=mtime)

    @rule(inode=st.integers(1, 5))
    def deleted(self, inode: int) -> None:
        self.volume.pop(inode, None)

    @rule(everything=st.booleans())
    def scanned(self, everything: bool) -> None:
        self.backlog.update(self.volume.values(), stored=self.known.__contains__, everything=everything)

    @rule()
    def judged(self) -> None:
        for entry in self.backlog.waiting():
            self.backlog.ready(entry, entry.dump, DUE)

    @rule()
    def taken(self) -> None:
        entry = self.backlog.take(timeout_s=0)
        if entry:
            self.sending.append(entry)

    @rule(how=st.sampled_from(["stored", "retry", "judge again"]))
    def ended(self, how: str) -> None:
        if self.sending:
            entry = self.sending.pop()
            if how == "stored":
                self.known.add(entry.dump.identity)
                self.backlog.has_stored(entry)
            elif how == "retry":
                self.backlog.retry(entry)
            else:
                self.backlog.judge_again(entry)

    @rule(seconds=st.floats(0, 100))
    def waited(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def adds_up(self) -> None:
        counts = self.backlog.counts()
        assert counts.seen == counts.uploaded + counts.pending + counts.failed
        assert min(counts.seen, counts.uploaded, counts.pending, counts.failed) >= 0


TestLife = Life.TestCase


def owned(inode: int, uid: int, *, mtime: int = 1, name: str | None = None) -> DumpFile:
    return DumpFile("/d", name or f"{inode}.hprof", Identity(inode, 10, mtime * 10**9), device=1, uid=uid)


def order_of(backlog: Backlog) -> list[int]:
    order = []
    while (entry := backlog.take(timeout_s=0)) is not None:
        order.append(entry.dump.identity.inode)
        backlog.has_stored(entry)
    return order


def test_a_stream_of_dumps_dated_1970_does_not_hold_up_another_users_dump() -> None:
    """Its owner chooses a file's time: the order between owners does not go by it."""
    backlog = Backlog(monotonic=Clock())
    made_ready(backlog, *[owned(n, 12345, mtime=n) for n in range(100)], owned(1000, 10001, mtime=10**9))
    assert order_of(backlog).index(1000) <= 1


def test_applications_that_share_a_user_are_told_apart_by_their_directories() -> None:
    backlog = Backlog(monotonic=Clock())
    crowd = [owned(n, 1000, name=f"a_x-0/{n}.hprof") for n in range(50)]
    made_ready(backlog, *crowd, owned(1000, 1000, mtime=99, name="b_y-0/java_pid1.hprof"))
    assert order_of(backlog).index(1000) <= 1


def test_one_users_million_files_leave_room_for_the_others_and_are_counted() -> None:
    backlog = Backlog(monotonic=Clock())
    crowd = [owned(n, 12345) for n in range(3000)]
    changes = backlog.update([*crowd, owned(10**6, 10001)], stored=lambda _identity: False, everything=True)
    assert changes.left_out == {12345: 2000}
    assert any(dump.uid == 10001 for dump in changes.new)
    counts = backlog.counts()
    assert (counts.seen, counts.pending) == (1001, 1001)


def test_what_was_left_out_is_taken_when_there_is_room_again() -> None:
    backlog = Backlog(monotonic=Clock())
    crowd = [owned(n, 12345) for n in range(1200)]
    made_ready(backlog, *crowd)
    assert len(order_of(backlog)) == 1000
    assert len(backlog.update(crowd, stored=lambda _identity: False, everything=True).new) == 200


def test_files_that_take_long_to_judge_give_way_to_another_users() -> None:
    """700 gzip bombs kept the main loop from everything else."""
    backlog = Backlog(monotonic=Clock())
    backlog.update(
        [*[owned(n, 12345) for n in range(700)], owned(1000, 10001)],
        stored=lambda _identity: False,
        everything=True,
    )
    judged = []
    for _ in range(4):
        (entry,) = backlog.to_judge(1)
        judged.append(entry.dump.uid)
        backlog.judged(entry, 0.0)  # not done yet
    assert judged.count(10001) == 2
    (entry, *_) = backlog.to_judge(1)
    backlog.judged(entry, 30.0)
    assert backlog.next_judging_s() == 0


def test_a_file_of_holes_goes_last_and_gives_way_while_it_is_sent() -> None:
    """`truncate -s 4T x.hprof` costs its owner nothing, and cost everybody else hours."""
    clock = Clock()
    backlog = Backlog(monotonic=clock)
    holes = replace(owned(1, uid=1, mtime=1), identity=Identity(1, 4 << 40, 1), hole_bytes=4 << 40)
    made_ready(backlog, holes)
    taken = backlog.take(timeout_s=0)
    assert taken
    assert not backlog.turn.is_cut(), "nobody waits"
    clock.now += 1
    made_ready(backlog, holes, owned(2, uid=2, mtime=9))
    assert backlog.turn.is_cut()
    backlog.judge_again(taken)
    made_ready(backlog, holes, owned(2, uid=2, mtime=9))
    assert order_of(backlog) == [2, 1]


def of_size(dump: DumpFile, size_bytes: int) -> DumpFile:
    return replace(dump, identity=replace(dump.identity, size_bytes=size_bytes))


def test_an_allocated_file_of_terabytes_gives_way_to_another_users_dump_after_seconds() -> None:
    """`fallocate -l 200G x.hprof` costs as little as a file of holes, and shows none."""
    clock = Clock()
    backlog = Backlog(monotonic=clock)
    huge, small = of_size(owned(1, uid=1), 200 << 30), of_size(owned(2, uid=2, mtime=9), 100 << 20)
    made_ready(backlog, huge)
    taken = backlog.take(timeout_s=0)
    assert taken
    made_ready(backlog, huge, small)
    clock.now += 1
    assert not backlog.turn.is_over()
    clock.now += 3
    assert backlog.turn.is_over()
    assert not backlog.turn.is_cut(), "what is under way ends"
    backlog.put_back(taken)
    assert order_of(backlog) == [2, 1]


def test_large_dumps_of_two_users_do_not_change_places_all_the_time() -> None:
    clock = Clock()
    backlog = Backlog(monotonic=clock)
    dumps = [of_size(owned(inode, uid=inode), 10 << 30) for inode in (1, 2)]
    made_ready(backlog, *dumps)
    assert backlog.take(timeout_s=0)
    clock.now += 50
    assert not backlog.turn.is_over()
    clock.now += 15
    assert backlog.turn.is_over()


def test_a_users_second_dump_in_the_same_directory_waits_for_the_first() -> None:
    clock = Clock()
    backlog = Backlog(monotonic=clock)
    made_ready(backlog, of_size(owned(1, uid=1), 200 << 30), owned(2, uid=1))
    assert backlog.take(timeout_s=0)
    clock.now += 100
    assert not backlog.turn.is_over()


def test_a_dump_that_gets_the_inode_of_another_users_lost_one_does_not_inherit_its_failures() -> None:
    """Who lets uploads fail and deletes the file would choose for how long the next owner of the inode waits."""
    clock = Clock()
    backlog = Backlog(monotonic=clock, jitter=lambda: 1.0)
    for _ in range(8):
        made_ready(backlog, owned(7, uid=1))
        entry = backlog.take(timeout_s=0)
        assert entry
        backlog.retry(entry)
        clock.now += 60
    entry = backlog.take(timeout_s=0)
    assert entry
    backlog.retry(entry)
    changes = backlog.update([owned(7, uid=2)], stored=lambda _identity: False, everything=True)
    assert [dump.uid for dump in changes.lost] == [1]
    assert [dump.uid for dump in changes.new] == [2]
    for waiting in backlog.waiting():
        backlog.ready(waiting, waiting.dump, DUE)
    assert order_of(backlog) == [7]
    counts = backlog.counts()
    assert (counts.seen, counts.uploaded, counts.failed, counts.pending) == (2, 1, 1, 0)


def test_a_million_directories_of_one_user_cost_no_memory() -> None:
    turns = Fairness()
    for number in range(30_000):
        turns.serve(Entry(owned(number, uid=1, name=f"d{number}/x.hprof")))
    tracemalloc.start()
    for number in range(30_000):
        turns.serve(Entry(owned(number, uid=1, name=f"e{number}/x.hprof")))
    grown_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown_bytes < 4 << 20
