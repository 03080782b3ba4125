"""A tenant that attacks its neighbours on the node with ordinary means: its own uid, hostPath /mnt, no capability."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.chain import Chain
from tests.e2e.cluster import wait_for

UID = 10666
_POD = "evil"
# Each line that it prints is one attempt: `took` where it succeeded, `refused` where the kernel said no.
_SCRIPT = """
cd /mnt/dump
attempt() { name=$1; shift; if "$@" 2>/dev/null; then echo "took $name"; else echo "refused $name"; fi; }
: > java_pid1.hprof; exec 9>>java_pid1.hprof   # a name that can be foreseen, held open
mkdir -m 0777 "$FORESEEN"                      # the directory of a pod whose name can be foreseen
mkdir -p team-b_evil/a
(while :; do                                   # a directory that becomes a link to the victim's, again and again
  ln -s "../$VICTIM" team-b_evil/link 2>/dev/null; mv team-b_evil/a team-b_evil/b 2>/dev/null
  mv team-b_evil/link team-b_evil/a 2>/dev/null; rm -f team-b_evil/a 2>/dev/null; mv team-b_evil/b team-b_evil/a 2>/dev/null
done) &
while :; do
  attempt state-made mkdir .dumpagent
  attempt state-written touch .dumpagent/receipts/forged.json
  attempt state-linked ln -sfn / .dumpagent/deleting
  attempt ready-removed rm .ready
  attempt victim-listed ls "$VICTIM"
  attempt victim-deleted rm "$VICTIM"/java_pid1.hprof
  attempt victim-emptied rm -r "$VICTIM"
  attempt victim-moved mv "$VICTIM" moved
  sleep 0.2
done
"""


@contextmanager
def attacking(chain: Chain, *, victim: str, foreseen: str, node: str) -> Iterator[None]:
    """Have a pod in `team-b` attack the directories `victim` and `foreseen` while the block runs."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _POD, "namespace": "team-b"},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsUser": UID, "runAsNonRoot": True},
            "containers": [
                {
                    "name": "evil",
                    "image": chain.cluster.node_image,
                    "command": ["sh", "-c", _SCRIPT],
                    "env": [{"name": "VICTIM", "value": victim}, {"name": "FORESEEN", "value": foreseen}],
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "volumeMounts": [
                        {"name": "mnt", "mountPath": "/mnt", "mountPropagation": "HostToContainer"}
                    ],
                }
            ],
            "volumes": [{"name": "mnt", "hostPath": {"path": "/mnt"}}],
        },
    }
    chain.cluster.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    try:
        wait_for("attempted: every attack", lambda: "victim-moved" in said(chain), timeout_s=120)
        yield
    finally:
        chain.cluster.kubectl("delete", "pod", "-n", "team-b", _POD)


def said(chain: Chain) -> str:
    """Give what the hostile pod has printed."""
    return chain.cluster.kubectl("logs", "-n", "team-b", _POD)
