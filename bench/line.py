"""A line to the sink that is far away or narrow: passes bytes on after half a round trip, and only so many a second.

The kernels of many machines have no netem, so it is done in a process of its own, whose CPU counts for nobody. A new
connection's first bytes wait one round trip more, as TCP's handshake would make them. Each direction is as narrow as
the other, and shared by all connections. At most `window` bytes of a connection are on their way at once, as with
TCP's largest window; slow start and losses are not imitated.

    python -m bench.line --to PORT --rtt-ms 100 --mbit 100        prints its own port when it listens
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import selectors
import socket
import time
from collections import deque
from dataclasses import dataclass, field

_CHUNK_BYTES = 64 << 10
_WINDOW_BYTES = 4 << 20  # Source: tcp(7), tcp_wmem: the default maximum


@dataclass(eq=False)
class Lane:
    """One direction of one connection: what was read from `source` and is on its way to `target`."""

    source: socket.socket
    target: socket.socket
    upwards: bool
    opens_at: float
    on_the_way: int = 0
    arrived: deque[memoryview] = field(default_factory=deque)
    ended: bool = False


class Line:
    """Relays between clients and the port `to` of 127.0.0.1. `mbit` 0: as fast as it goes."""

    def __init__(self, to: int, *, rtt_s: float, mbit: float) -> None:
        self._to, self._rtt_s = to, rtt_s
        self._bytes_per_s = mbit * 1e6 / 8
        # By direction: when it has passed on what it was given.
        self._free_at = {True: 0.0, False: 0.0}
        self._poll = selectors.EpollSelector()
        self._due: list[tuple[float, int, Lane, memoryview | None]] = []
        self._numbers = itertools.count()
        self._lanes: dict[
            socket.socket, tuple[Lane, Lane]
        ] = {}  # by socket: what is read from it, what goes to it
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._listener.setblocking(False)
        self._poll.register(self._listener, selectors.EVENT_READ)

    def run(self) -> None:
        while True:
            wait_s = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for ready, mask in self._poll.select(wait_s):
                sock = ready.fileobj
                assert isinstance(sock, socket.socket)
                if sock is self._listener:
                    self._accept()
                    continue
                if mask & selectors.EVENT_READ and sock in self._lanes:
                    self._read(self._lanes[sock][0])
                if mask & selectors.EVENT_WRITE and sock in self._lanes:
                    self._write(self._lanes[sock][1])
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, _, lane, data = heapq.heappop(self._due)
                if lane.source not in self._lanes:
                    continue
                if data is None:
                    lane.ended = True
                else:
                    lane.arrived.append(data)
                self._write(lane)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(("127.0.0.1", self._to))
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opens_at = time.monotonic() + self._rtt_s
        up = Lane(client, server, True, opens_at)
        down = Lane(server, client, False, opens_at)
        self._lanes[client], self._lanes[server] = (up, down), (down, up)
        for sock in (client, server):
            self._poll.register(sock, selectors.EVENT_READ)

    def _read(self, lane: Lane) -> None:
        try:
            data = lane.source.recv(_CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now = time.monotonic()
        passed_at = max(now, lane.opens_at)
        if self._bytes_per_s and data:
            passed_at = max(passed_at, self._free_at[lane.upwards]) + len(data) / self._bytes_per_s
            self._free_at[lane.upwards] = passed_at
        due = passed_at + self._rtt_s / 2
        lane.on_the_way += len(data)
        heapq.heappush(self._due, (due, next(self._numbers), lane, memoryview(data) if data else None))
        if not data:
            lane.on_the_way += _WINDOW_BYTES  # nothing more is read from it
        self._watch(lane.source)

    def _write(self, lane: Lane) -> None:
        while lane.arrived:
            data = lane.arrived[0]
            try:
                sent = lane.target.send(data)
            except BlockingIOError:
                break
            except OSError:
                self._close(lane)
                return
            lane.on_the_way -= sent
            if sent == len(data):
                lane.arrived.popleft()
            else:
                lane.arrived[0] = data[sent:]
        if lane.ended and not lane.arrived:
            self._close(lane)
            return
        self._watch(lane.source)
        self._watch(lane.target)

    def _watch(self, sock: socket.socket) -> None:
        reads, writes = self._lanes[sock]
        mask = (selectors.EVENT_READ if reads.on_the_way < _WINDOW_BYTES else 0) | (
            selectors.EVENT_WRITE if writes.arrived else 0
        )
        known = self._poll.get_map().get(sock)
        if known is None:
            if mask:
                self._poll.register(sock, mask)
        elif not mask:
            self._poll.unregister(sock)
        elif known.events != mask:
            self._poll.modify(sock, mask)

    def _close(self, lane: Lane) -> None:
        for sock in (lane.source, lane.target):
            if self._lanes.pop(sock, None):
                if sock in self._poll.get_map():
                    self._poll.unregister(sock)
                sock.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--rtt-ms", type=float, default=0)
    parser.add_argument("--mbit", type=float, default=0)
    given = parser.parse_args()
    line = Line(given.to, rtt_s=given.rtt_ms / 1000, mbit=given.mbit)
    print(line.port, flush=True)
    try:
        line.run()
    except KeyboardInterrupt:
        pass
