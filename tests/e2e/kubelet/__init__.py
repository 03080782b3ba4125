"""Scripts that run a real Kubernetes on this machine; README.md beside them says how."""

from __future__ import annotations

import os
from pathlib import Path

from tests.harness.cache import cache_root

SCRIPTS = Path(__file__).parent


def process(node: str) -> int:
    """Give the number of a running node's first process, as this machine counts them."""
    folder = Path(os.environ.get("CLUSTER_DIR") or cache_root() / "kubelet")
    return int((folder / "run" / node / "node.pid").read_text())
