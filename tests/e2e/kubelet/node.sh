#!/bin/bash
# node.sh - run by up.sh as process 1 of the private namespaces: sets the node NODE up, starts everything, stays.
set -eu
. "$(dirname "$0")/env.sh"
NODE=${NODE:-node1} MINE=$RUN/${NODE:-node1}
trap 'echo "node.sh failed at line $LINENO"; touch "$MINE/failed"' ERR
API=10.99.0.1 SERVICES=10.96.0.0/16 ALL_PODS=10.99.0.0/16
if [ "$NODE" = node1 ]; then IP=$API PODS=10.99.0.0/24 BRIDGE=$API; else IP=10.99.0.2 PODS=10.99.2.0/24 BRIDGE=10.99.2.1; fi
export HOME=$RUN/tmp TMPDIR=$RUN/tmp KUBECONFIG=$RUN/admin.kubeconfig
start() { # name program...
    local name=$1; shift
    env LD_LIBRARY_PATH="$LIBS" "$@" > "$MINE/log/$name.log" 2>&1 &
}
. "$HERE/control.sh"

# --- the node's own places: /mnt, /var/lib and /var/log are folders of $MINE, /run is a fresh tmpfs as after a boot ---
mount --make-rshared /          # a real node's mounts are shared; ours are shared with nobody outside
for d in /mnt /var/lib /var/log; do
    mkdir -p "$MINE/node$d"
    mount --bind "$MINE/node$d" $d
    mount --make-private $d
    mount --make-shared $d
done
mount -t tmpfs -o mode=755 tmpfs /run
# kubelet writes these sysctls, which are the whole machine's: give it private stand-ins with the values it wants
mkdir -p "$MINE/sysctl"
for s in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
    kernel/keys/root_maxbytes=25000000; do
    f=$MINE/sysctl/$(basename ${s%=*})
    echo ${s#*=} > "$f"
    mount --bind "$f" /proc/sys/${s%=*}
done

# --- network: a bridge for the pods; node2 has a cable into node1's bridge beside it ---
hostname "$NODE"
printf '127.0.0.1 localhost\n%s node1\n10.99.0.2 node2\n' $API > "$MINE/hosts"
mount --bind "$MINE/hosts" /etc/hosts
: > "$MINE/resolv.conf"
ip link set lo up
ip link add cni0 type bridge
ip addr add $BRIDGE/24 dev cni0
ip link set cni0 up
ip link add up0 type veth peer name up1   # a bridge without ports has no carrier
ip link set up0 master cni0 up
ip link set up1 up
if [ "$NODE" = node1 ]; then
    ip route add default via $API dev cni0   # kubelet and kube-proxy look for a default route; it leads nowhere
else
    for _ in $(seq 100); do ip link show eth0 >/dev/null 2>&1 && break; sleep 0.1; done   # up.sh plugs it in
    ip addr add $IP/24 dev eth0
    ip link set eth0 up
    ip route add default via $API
fi
echo 1 > /proc/sys/net/ipv4/ip_forward

[ "$NODE" != node1 ] || start_control_plane
if [ ! -f "$RUN/$NODE.kubeconfig" ]; then
    cert "$NODE" "/O=system:nodes/CN=system:node:$NODE" "IP:$IP,DNS:$NODE"
    kubeconfig "$NODE"
fi

# --- containerd, kubelet, kube-proxy ---
mkdir -p "$MINE/cni"
cat > "$MINE/cni/10-bridge.conflist" <<Y
{"cniVersion":"0.4.0","name":"bridge","plugins":[
 {"type":"bridge","bridge":"cni0","isDefaultGateway":true,"hairpinMode":true,"ipam":{"type":"host-local","dataDir":"/run/ipam",
  "ranges":[[{"subnet":"$PODS","rangeStart":"${PODS%.*}.10","gateway":"$BRIDGE"}]]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
Y
cat > "$MINE/containerd.toml" <<Y
version = 2
root = "$MINE/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs","io.containerd.snapshotter.v1.zfs","io.containerd.snapshotter.v1.devmapper","io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "/run/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "$MINE/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true
  restrict_oom_score_adj = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$DEB/usr/lib/cni"
    conf_dir = "$MINE/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$DEB/usr/sbin/runc"
        SystemdCgroup = false
Y
start containerd containerd -c "$MINE/containerd.toml"
ctr() { LD_LIBRARY_PATH=$LIBS command ctr -a /run/containerd.sock "$@"; }
for _ in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.2; done
for image in "$CLUSTER_DIR"/images/*.tar; do ctr -n k8s.io images import "$image"; done
# a cgroup of our own in every v1 tree (or in the one v2 tree), so that down.sh can find what pods leave behind
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    mkdir -p "/sys/fs/cgroup/$CGROUP-$NODE"
else
    for tree in /sys/fs/cgroup/*; do
        [ ! -f "$tree/cgroup.procs" ] || [ -f "$tree/cgroup.controllers" ] || mkdir -p "$tree/$CGROUP-$NODE"
        for f in cpuset.cpus cpuset.mems; do   # a new v1 cpuset is empty
            [ ! -f "$tree/$f" ] || cat "$tree/$f" > "$tree/$CGROUP-$NODE/$f"
        done
    done
fi
cat > "$MINE/kubelet.yaml" <<Y
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
authentication: {anonymous: {enabled: false}, x509: {clientCAFile: $P/ca.crt}, webhook: {enabled: true}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
cgroupRoot: /$CGROUP-$NODE
cgroupsPerQOS: true
enforceNodeAllocatable: []
failSwapOn: false
tlsCertFile: $P/$NODE.crt
tlsPrivateKeyFile: $P/$NODE.key
resolvConf: $MINE/resolv.conf
volumePluginDir: $MINE/volplugins
healthzBindAddress: 127.0.0.1
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
maxPods: 50
syncFrequency: 10s
Y
start kubelet kubelet --config "$MINE/kubelet.yaml" --kubeconfig "$RUN/$NODE.kubeconfig" --container-runtime remote \
    --container-runtime-endpoint unix:///run/containerd.sock --hostname-override "$NODE" --node-ip "$IP"
# conntrack settings are the whole machine's: 0 leaves them alone. masquerade-all: replies between pods on one bridge
# would not pass through iptables without br_netfilter, so let them come back to the node.
start proxy kube-proxy --kubeconfig "$RUN/proxy.kubeconfig" --proxy-mode iptables --masquerade-all --cluster-cidr $ALL_PODS \
    --hostname-override "$NODE" --conntrack-max-per-core 0 --conntrack-tcp-timeout-established 0 \
    --conntrack-tcp-timeout-close-wait 0 --bind-address $IP

# asked through the API server: after --keep the node object still says Ready from the last run
for _ in $(seq 240); do kubectl get --raw "/api/v1/nodes/$NODE/proxy/healthz" >/dev/null 2>&1 && break; sleep 0.5; done
kubectl label node "$NODE" node-role.kubernetes.io/worker= --overwrite   # kubelet may not set this label itself
kubectl wait --for=condition=Ready "node/$NODE" --timeout=120s
for _ in $(seq 60); do [ -z "$(kubectl get node "$NODE" -o 'jsonpath={.spec.taints}')" ] && break; sleep 0.5; done
for _ in $(seq 60); do kubectl -n default get serviceaccount default >/dev/null 2>&1 && break; sleep 0.5; done
echo "$(date +%T) $NODE ready"
touch "$MINE/ready"
trap - ERR
set +e
while :; do wait; sleep 1; done   # process 1 also reaps what containers leave
