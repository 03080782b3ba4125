"""moto's S3 in a process of its own: everything in memory, no digest verified. For logic, not for proof."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.harness.children import end, start
from tests.harness.stores.server import HOST, Quirks, StoreServer, free_ports, wait_for_port

QUIRKS = Quirks(
    verifies_md5=False,
    verifies_crc32=False,
    keeps_whole_checksum=True,
    refuses_late_parts=False,
    tells_when_uploads_began=False,
)


class Moto:
    """A moto server that ends with its `with` block; its data ends with it too."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (self.port,) = free_ports(1)
        self.server = StoreServer(
            "moto", f"http://{HOST}:{self.port}", "dumpagent", "dumpagent-secret", QUIRKS
        )

    def __enter__(self) -> Self:
        log = self._folder / "moto.log"
        with open(log, "wb") as out:
            self._child = start(
                [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        try:
            wait_for_port(self.port, [self._child], log)
        except BaseException:
            end(self._child, grace_s=0)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        end(self._child, grace_s=0)
