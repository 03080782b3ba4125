#!/bin/bash
# down.sh [NODE] - ends what up.sh started; without a name, every node. Logs and the nodes' files stay in CLUSTER_DIR/run until the
# next up.sh.
. "$(dirname "$0")/env.sh"
failed=0
for node in ${1:-node2 node1}; do
    if up "$node"; then
        pid=$(cat "$RUN/$node/node.pid")
        # process 1 of the private namespaces: every other process, mount and interface goes with it
        kill -9 "$pid"
        for _ in $(seq 100); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
    fi
    # cgroups outlive their processes (v1: one tree per controller; v2: one tree)
    for _ in $(seq 50); do
        left=0
        for cgroup in /sys/fs/cgroup/"$CGROUP-$node" /sys/fs/cgroup/*/"$CGROUP-$node"; do
            [ -d "$cgroup" ] || continue
            find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null
            [ ! -d "$cgroup" ] || left=1
        done
        [ $left = 1 ] || break
        sleep 0.1
    done
    rm -f "$RUN/$node"/{node.pid,ready,failed}
    [ $left = 0 ] || { echo "cgroup $CGROUP-$node could not be removed" >&2; failed=1; }
done
exit $failed
