"""A real Prometheus on 127.0.0.1 that runs the manifest's alerts, with every duration divided by 60."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.harness import children
from tests.harness.stores.server import HOST, free_ports, wait_for_port
from tests.monitoring.rules import write_rules

FASTER = 60


class Prometheus:
    """Scrapes `targets` (address -> labels) every second, as the PodMonitor would label them."""

    def __init__(self, folder: Path, targets: dict[str, dict[str, str]]) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        write_rules(folder / "rules.yaml", faster=FASTER)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{
                "job_name": "dumpagent",
                "static_configs": [{"targets": [address], "labels": labels} for address, labels in targets.items()],
            }],
        }  # fmt: skip
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))

    def __enter__(self) -> Prometheus:
        log = self._folder / "prometheus.log"
        with log.open("wb") as out:
            self._child = children.start(
                ["prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data",
                 f"--web.listen-address={HOST}:{self.port}"],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        wait_for_port(self.port, [self._child], log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        children.end(self._child)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Give the samples that `expression` has now."""
        url = f"http://{HOST}:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        answer = json.loads(urllib.request.urlopen(url, timeout=20).read())
        assert answer["status"] == "success", answer
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """Give the names of the alerts that fire now."""
        return {found["metric"]["alertname"] for found in self.query('ALERTS{alertstate="firing"}')}
