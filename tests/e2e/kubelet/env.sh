# shellcheck shell=bash disable=SC2034,SC2155
# Sourced by every script here: where things are, and a PATH with the Debian binaries that build.sh unpacked.
# CLUSTER_DIR is the only setting; two clusters with two directories can run side by side.
CLUSTER_DIR=$(realpath -m "${CLUSTER_DIR:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/dumpagent/kubelet}"); export CLUSTER_DIR
for d in /mnt /run /var/lib /var/log; do   # the node has its own; a cluster directory there would be hidden from it
    case $CLUSTER_DIR/ in $d/*) echo "CLUSTER_DIR must not be below $d" >&2; exit 1 ;; esac
done
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RUN=$CLUSTER_DIR/run
DEB=$CLUSTER_DIR/deb
CGROUP=dumpagent-$(printf %s "$CLUSTER_DIR" | cksum | cut -d' ' -f1)   # the one thing that the machine itself can see
export PATH=$CLUSTER_DIR/bin:$DEB/usr/sbin:$DEB/usr/bin:$PATH:/usr/sbin:/sbin
export XTABLES_LIBDIR=$DEB/usr/lib/$(uname -m)-linux-gnu/xtables
LIBS=$DEB/usr/lib/$(uname -m)-linux-gnu:$DEB/lib/$(uname -m)-linux-gnu

# Say whether a node is up. The number alone could be another process's by now.
up() { # node
    [ -s "$RUN/$1/node.pid" ] && grep -qz 'node\.sh$' "/proc/$(cat "$RUN/$1/node.pid")/cmdline" 2>/dev/null
}

# Run a command with the mounts, network, processes and host name of a node.
inside() { # node command...
    local node=$1; shift
    up "$node" || { echo "$node is not up: run $HERE/up.sh $node" >&2; exit 1; }
    exec nsenter --wd="$PWD" -t "$(cat "$RUN/$node/node.pid")" -m -n -p -u -- "$@"
}
