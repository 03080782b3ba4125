"""A user who makes dumps without end costs no other user a summary."""

from __future__ import annotations

from dumpagent.dumps.model import Identity
from dumpagent.summary.due import DueSummaries, DueSummary


def due(number: int, uid: int, folder: str = "shop") -> DueSummary:
    return DueSummary(
        identity=Identity(number, 10, 10), relpath=f"{folder}/{number}.hprof", uid=uid, key=f"{number}",
        crc32=0, verdict="complete", dump_time=None, jvm=None, cause=None, is_news=True,
    )  # fmt: skip


def served(waiting: DueSummaries, most: int) -> list[int]:
    """Give the numbers of the next dumps, each of which has its turn."""
    found = list[int]()
    while (one := waiting.next()) and len(found) < most:
        waiting.serve(one)
        found.append(one.identity.inode)
    return found


def test_users_take_turns_whoever_came_first() -> None:
    waiting = DueSummaries(100)
    for number in range(10):
        waiting.add(due(number, uid=1))
    waiting.add(due(50, uid=2))
    waiting.add(due(51, uid=2))
    assert served(waiting, 5) == [0, 50, 1, 51, 2]


def test_applications_that_share_a_user_number_take_turns_by_their_directories() -> None:
    waiting = DueSummaries(100)
    for number in range(10):
        waiting.add(due(number, uid=1, folder="flood"))
    waiting.add(due(50, uid=1, folder="shop"))
    assert served(waiting, 3) == [0, 50, 1]


def test_where_too_many_wait_the_latest_of_the_user_with_most_is_left_out() -> None:
    waiting = DueSummaries(10)
    assert [waiting.add(due(number, uid=1)) for number in range(10)] == [None] * 10
    late = waiting.add(due(50, uid=2))
    assert late is not None
    assert late.identity.inode == 9
    own = due(11, uid=1)
    assert waiting.add(own) is own
    assert len(waiting) == 10
    assert served(waiting, 2) == [0, 50]


def test_of_a_user_s_directories_the_one_with_most_gives_way() -> None:
    waiting = DueSummaries(4)
    waiting.add(due(1, uid=1, folder="shop"))
    for number in (2, 3, 4):
        waiting.add(due(number, uid=1, folder="flood"))
    left_out = waiting.add(due(5, uid=1, folder="shop"))
    assert left_out is not None
    assert left_out.identity.inode == 4


def test_what_is_held_open_comes_before_all_turns() -> None:
    waiting = DueSummaries(4)
    waiting.add(due(1, uid=1))
    waiting.add(due(2, uid=2))
    held = due(2, uid=2).identity
    assert waiting.next(held) == due(2, uid=2)
    waiting.remove(due(2, uid=2))
    assert waiting.next(held) == due(1, uid=1)
