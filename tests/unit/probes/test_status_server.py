"""Who asks for metrics, asks slowly, or asks nonsense, never makes a daemon wait or grow."""

from __future__ import annotations

import os
import socket
import threading
import urllib.request
from collections.abc import Iterator
from urllib.error import HTTPError

import pytest

from dumpagent.errors import BadSettings
from dumpagent.probes.status_server import Page, StatusServer, listen

HOST = "127.0.0.1"
LONG = b"x" * 3_000_000  # more than a socket buffer takes at once


def _broken() -> Page:
    raise OSError("the collector is broken")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Running:
    """A server that a thread turns."""

    def __init__(self) -> None:
        self.clock = Clock()
        pages = {
            "/metrics": lambda: Page(b"up 1\n"), "/long": lambda: Page(LONG), "/broken": _broken,
            "/readyz": lambda: Page(b"no mount\n", 503),
        }  # fmt: skip
        self.server = StatusServer(listen(0, HOST), pages, monotonic=self.clock)
        self.port = self.server.port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.server.serve, args=(self._stop.is_set,))
        self._thread.start()

    def get(self, path: str) -> bytes:
        body: bytes = urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=20).read()
        return body

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), timeout=20)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()  # it looks once a second


@pytest.fixture
def running() -> Iterator[Running]:
    serving = Running()
    yield serving
    serving.close()


def test_a_page_is_served_however_long_it_is(running: Running) -> None:
    assert running.get("/metrics") == b"up 1\n"
    assert running.get("/metrics?name[]=up") == b"up 1\n"
    assert running.get("/long") == LONG


def test_what_is_not_well_answers_503_with_the_reason(running: Running) -> None:
    with pytest.raises(HTTPError) as caught:
        running.get("/readyz")
    assert (caught.value.code, caught.value.read()) == (503, b"no mount\n")


@pytest.mark.parametrize(("path", "status"), [("/", 404), ("/nothing", 404), ("/broken", 500)])
def test_other_paths_and_broken_pages_answer_with_an_error_and_serving_goes_on(
    running: Running, path: str, status: int
) -> None:
    with pytest.raises(HTTPError) as caught:
        running.get(path)
    assert caught.value.code == status
    assert running.get("/metrics") == b"up 1\n"


@pytest.mark.parametrize(
    "request_bytes",
    [b"POST /metrics HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"\x16\x03\x01" + bytes(9000), b"GET " + b"x" * 10_000,
     b"GET /metrics HTTP/1.1\r\n\r\nand more" * 50],
)  # fmt: skip
def test_nonsense_gets_an_answer_and_its_connection_is_closed(running: Running, request_bytes: bytes) -> None:
    with running.connect() as asker:
        asker.sendall(request_bytes)
        answer = b""
        while piece := asker.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 ")
    assert running.get("/metrics") == b"up 1\n"


def test_scrapers_that_never_ask_or_never_read_do_not_hold_up_the_others(running: Running) -> None:
    silent = [running.connect() for _ in range(5)]
    deaf = [running.connect() for _ in range(5)]
    for asker in deaf:
        asker.sendall(b"GET /long HTTP/1.1\r\n\r\n")
    assert running.get("/metrics") == b"up 1\n"
    for asker in silent + deaf:
        asker.close()


def test_the_oldest_connections_go_when_there_are_too_many(running: Running) -> None:
    """A leak in somebody's scraper costs the daemon no descriptors."""
    before = len(os.listdir("/proc/self/fd"))
    hanging = [running.connect() for _ in range(100)]
    assert running.get("/metrics") == b"up 1\n"
    assert hanging[0].recv(1) == b"", "the first was dropped"
    assert len(os.listdir("/proc/self/fd")) - before <= 100 + 16 + 2
    for asker in hanging:
        asker.close()


def test_a_connection_that_takes_too_long_is_closed(running: Running) -> None:
    with running.connect() as asker:
        running.get("/metrics")
        running.clock.now += 11
        running.get("/metrics")
        assert asker.recv(1) == b""


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    with listen(0, HOST) as other, pytest.raises(BadSettings, match=r"METRICS_PORT is \d+.*in use") as caught:
        listen(other.getsockname()[1], HOST)
    assert "METRICS_PORT to a free one" in caught.value.hint
