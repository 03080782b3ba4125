"""Walks through the object graph: depth first, which numbers what is reachable, and breadth first, for short paths."""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.native import Array, compiled, int64

UNSEEN = 0xFFFFFFFF
SOURCE = 0xFFFFFFFE


@compiled
def _depth_first(
    roots: Array, starts: Array, edges: Array, order: Array, number: Array, parent: Array, cursors: Array
) -> int:
    count = 0
    for at in range(len(roots)):
        root = int64(roots[at])
        if number[root] != 0:
            continue
        count += 1
        number[root] = count
        order[count] = root
        parent[count] = 0
        current, depth, cursor = count, 0, int64(starts[root])
        while True:
            if cursor == 0:
                if depth == 0:
                    break
                depth -= 1
                cursor = int64(cursors[depth])
                current = int64(parent[current])
                continue
            edge = int64(edges[cursor])
            target = edge & 0x7FFFFFFF
            cursor = 0 if edge & 0x80000000 else cursor + 1
            if number[target] == 0:
                count += 1
                number[target] = count
                order[count] = target
                parent[count] = current
                cursors[depth] = cursor
                depth += 1
                current, cursor = count, int64(starts[target])
    return count


class Numbering:
    """What is reachable from the roots, numbered from 1 in the order of a depth-first walk; 0 stands for the roots.

    `order` gives the object by its number, `number` the number by the object (0: not reachable), `parent` the number
    of the object from which the walk came.
    """

    def __init__(self, arrays: Arrays, roots: Array, starts: Array, edges: Array) -> None:
        count = len(starts)
        order, parent = arrays.zeros(count + 1, np.uint32), arrays.zeros(count + 1, np.uint32)
        self.number = arrays.zeros(count, np.uint32)
        cursors = arrays.zeros(count + 1, starts.dtype, dense=False)
        self.count = int(_depth_first(roots, starts, edges, order, self.number, parent, cursors))
        self.order, self.parent = order[: self.count + 1], parent[: self.count + 1]
        arrays.release(cursors)


@compiled
def _breadth_first(
    queue: Array,
    head: int,
    tail: int,
    starts: Array,
    edges: Array,
    came_from: Array,
    class_of: Array,
    aside: Array,
    aside_count: int,
) -> tuple[int, int]:
    """Visit all that can be reached from what stands in the queue, but nothing behind objects of an `aside` class."""
    while head < tail:
        here = int64(queue[head])
        head += 1
        if aside[class_of[here]]:
            queue[len(queue) - 1 - aside_count] = here
            aside_count += 1
            continue
        cursor = int64(starts[here])
        while cursor != 0:
            edge = int64(edges[cursor])
            target = edge & 0x7FFFFFFF
            cursor = 0 if edge & 0x80000000 else cursor + 1
            if came_from[target] == 0xFFFFFFFF:
                came_from[target] = here
                queue[tail] = target
                tail += 1
    return tail, aside_count


@compiled
def _expand(queue: Array, tail: int, owners: Array, firsts: Array, edges: Array, came_from: Array) -> int:
    for at in range(len(owners)):
        cursor = int64(firsts[at])
        while cursor != 0:
            edge = int64(edges[cursor])
            target = edge & 0x7FFFFFFF
            cursor = 0 if edge & 0x80000000 else cursor + 1
            if came_from[target] == 0xFFFFFFFF:
                came_from[target] = owners[at]
                queue[tail] = target
                tail += 1
    return tail


class ShortPaths:
    """From where each object is reached on the way that tells most.

    Ways from classes come first, then those from the fields of threads, then those from the locals of threads: an
    object that a static holds is often also a local of whoever works on it just now.
    """

    def __init__(
        self, arrays: Arrays, sources: Array, starts: Array, edges: Array, class_of: Array, *,
        thread_classes: Array, own_starts: dict[int, int],
    ) -> None:  # fmt: skip
        """`own_starts` says where the references of a thread began before its locals were added to them."""
        count = len(starts)
        self.came_from = arrays.zeros(count, np.uint32)
        self.came_from[:] = UNSEEN
        queue = arrays.zeros(2 * count + 1, np.uint32, dense=False)
        queue[: len(sources)] = sources
        self.came_from[sources] = SOURCE
        tail, threads = _breadth_first(
            queue, 0, len(sources), starts, edges, self.came_from, class_of, thread_classes, 0
        )
        nothing = np.zeros(len(thread_classes), bool)
        for own_fields in (True, False):
            owners = queue[len(queue) - threads :].copy() if threads else np.zeros(0, np.uint32)
            firsts = np.array(
                [
                    own_starts.get(int(owner), int(starts[owner])) if own_fields else int(starts[owner])
                    for owner in owners
                ],
                np.int64,
            )
            head = tail
            tail = _expand(queue, tail, owners, firsts, edges, self.came_from)
            tail, threads = _breadth_first(
                queue,
                head,
                tail,
                starts,
                edges,
                self.came_from,
                class_of,
                thread_classes if own_fields else nothing,
                threads,
            )
        arrays.release(queue)
