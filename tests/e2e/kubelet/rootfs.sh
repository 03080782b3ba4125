#!/bin/bash
# rootfs.sh DIR - makes DIR a Debian 12 root filesystem with python3. It is kept in CLUSTER_DIR, so only the first call takes a minute.
set -euo pipefail
. "$(dirname "$0")/env.sh"
[ -f "$CLUSTER_DIR/built" ] || { echo "first: $HERE/build.sh" >&2; exit 1; }
[ $# = 1 ] || { sed -n 2p "$0" >&2; exit 2; }
dir=$(realpath -m "$1")
[ ! -e "$dir" ] || [ -z "$(ls -A "$dir")" ] || { echo "$dir is not empty" >&2; exit 1; }
base=$CLUSTER_DIR/rootfs.tar
if [ ! -f "$base" ]; then
    made=$CLUSTER_DIR/rootfs.tmp
    rm -rf "$made"
    read -r mirror suite < "$CLUSTER_DIR/mirror"
    # private mounts: debootstrap mounts /proc in the new root and cannot always unmount it
    DEBOOTSTRAP_DIR=$DEB/usr/share/debootstrap unshare -m --propagation private bash "$DEB/usr/sbin/debootstrap" \
        --variant=minbase --include=python3 "$suite" "$made" "$mirror" > "$CLUSTER_DIR/rootfs.log" 2>&1 ||
        { tail -5 "$CLUSTER_DIR/rootfs.log" >&2; exit 1; }
    rm -rf "$made"/var/cache/apt/* "$made"/var/lib/apt/lists/* "$made"/var/log/* "$made"/usr/share/{doc,man,locale,info}/* "$made"/dev/*
    tar cf "$base.part" -C "$made" .
    mv "$base.part" "$base"
    rm -rf "$made"
fi
mkdir -p "$dir"
tar xpf "$base" -C "$dir"
