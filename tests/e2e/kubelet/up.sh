#!/bin/bash
# up.sh [--keep] [NODE] - starts a node of Kubernetes in private mount, network, process and host-name namespaces.
# NODE: node1 (the default) has the API server too; node2 joins it, and has volumes, images and processes of its own.
# --keep: as after a reboot of the node: the API's objects and the node's files are those of the last run.
set -euo pipefail
. "$(dirname "$0")/env.sh"
keep=no
[ "${1:-}" != --keep ] || { keep=yes; shift; }
NODE=${1:-node1}
case $NODE in node1 | node2) ;; *) echo "node1 or node2, not $NODE" >&2; exit 2 ;; esac
[ -f "$CLUSTER_DIR/built" ] || { echo "first: $HERE/build.sh" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "needs root" >&2; exit 1; }
up "$NODE" && { echo "already up: $NODE in $CLUSTER_DIR"; exit 0; }

enter=()
if [ "$NODE" = node1 ]; then
    ! up node2 || { echo "node2 is still up without node1: $HERE/down.sh" >&2; exit 1; }
    [ $keep = yes ] || rm -rf "$RUN"
else
    up node1 || { echo "first: $HERE/up.sh node1" >&2; exit 1; }
    [ $keep = yes ] || rm -rf "${RUN:?}/$NODE"
    # its processes and its end of the cable are inside node1, so that they go with it; its mounts are its own
    enter=(nsenter -t "$(cat "$RUN/node1/node.pid")" -n -p --)
fi
mkdir -p "$RUN/$NODE/log" "$RUN/tmp"
rm -f "$RUN/$NODE"/{ready,failed,node.pid}
NODE=$NODE setsid "${enter[@]}" unshare -m -n -p -f -u --mount-proc --kill-child --propagation private \
    bash "$HERE/node.sh" > "$RUN/$NODE/log/node.log" 2>&1 < /dev/null &
outer=$!

fail() {
    echo "$1; the end of $RUN/$NODE/log/node.log:" >&2
    tail -20 "$RUN/$NODE/log/node.log" >&2
    "$HERE/down.sh" "$NODE"
    exit 1
}

# Give the namespaces' first process, as the machine numbers it: the leaf of setsid, nsenter and unshare.
first_process() {
    local pid=$outer
    while pid=$(pgrep -P "$pid" | head -1) && [ -n "$pid" ]; do
        [ "$(cat "/proc/$pid/comm")" != bash ] || { echo "$pid"; return; }
    done
    return 1
}

for _ in $(seq 50); do first_process > "$RUN/$NODE/node.pid" && break; sleep 0.1; done
if [ "$NODE" = node2 ]; then   # the cable: one end in node1's bridge, the other in node2
    "$HERE/n" ip link del to-node2 2>/dev/null || true
    nsenter -t "$(cat "$RUN/node1/node.pid")" -n -- ip link add to-node2 type veth peer name eth0 netns "$(cat "$RUN/node2/node.pid")"
    "$HERE/n" sh -c 'ip link set to-node2 master cni0 up && ip route replace 10.99.2.0/24 via 10.99.0.2'
fi
for _ in $(seq 480); do
    [ -f "$RUN/$NODE/ready" ] && { echo "up: $NODE in $CLUSTER_DIR"; exit 0; }
    [ -f "$RUN/$NODE/failed" ] && fail failed
    kill -0 $outer 2>/dev/null || fail died
    sleep 0.5
done
fail "not ready after 240 s"
