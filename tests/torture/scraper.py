"""Scrapes an agent's metrics all the time and holds every answer to `seen = uploaded + pending + failed`."""

from __future__ import annotations

import http.client
import re
import threading

from tests.harness.stores.server import HOST

_EVERY_S = 0.1
_COUNT = re.compile(r"^dumpagent_dumps_(seen|uploaded|failed|pending)(?:_total)? (\S+)$", re.MULTILINE)


class Scraper(threading.Thread):
    """Runs until `stop`; an agent that is dead just now, or dies while it answers, is no error."""

    def __init__(self, port: int) -> None:
        super().__init__(name=f"scraper-{port}", daemon=True)
        self.scrapes = 0
        self.broken: list[str] = []
        self._port = port
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            connection = http.client.HTTPConnection(HOST, self._port, timeout=10)
            try:
                connection.request("GET", "/metrics")
                page = connection.getresponse().read().decode()
            except (OSError, http.client.HTTPException):
                continue
            finally:
                connection.close()
            self._judge(page)

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _judge(self, page: str) -> None:
        counts = {name: float(value) for name, value in _COUNT.findall(page)}
        self.scrapes += 1
        if len(counts) != 4:
            self.broken.append(f"a scrape without the table of dumps: {page[:300]!r}")
        elif counts["seen"] != counts["uploaded"] + counts["pending"] + counts["failed"]:
            self.broken.append(f"a scrape that does not add up: {counts}")
