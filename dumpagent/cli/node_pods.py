"""Whether this pod may ask the API server which pods run on its node, and how."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from dumpagent.memory_watch.pods import PodSpec, list_pods


def pods_of(node: str, root: str) -> Callable[[], dict[str, PodSpec]] | None:
    """Give what lists the pods of `node` with a dump volume at `root`; None outside a cluster or without a token."""
    from dumpagent.notify.api_server import ACCOUNT, ApiServer, address_of

    if not os.environ.get("KUBERNETES_SERVICE_HOST") or not os.path.exists(f"{ACCOUNT}/token"):
        return None
    return functools.partial(list_pods, ApiServer(address_of(os.environ)).ask, node, root)
