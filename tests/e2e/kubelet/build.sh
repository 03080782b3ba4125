#!/bin/bash
# build.sh - fetches and builds all that up.sh needs into CLUSTER_DIR, from Debian 12 packages alone: nothing is installed on the
# machine. Four minutes on two cores; a second call returns at once.
set -euo pipefail
. "$(dirname "$0")/env.sh"
VERSION=2   # raise to make existing directories build again
KUBERNETES=1.20.2

already_built() { [ "$(cat "$CLUSTER_DIR/built" 2>/dev/null)" = $VERSION ]; }
already_built && { echo "already built: $CLUSTER_DIR"; exit 0; }
mkdir -p "$CLUSTER_DIR"
[ -e "$CLUSTER_DIR/lock" ] || [ -z "$(ls -A "$CLUSTER_DIR")" ] || { echo "$CLUSTER_DIR is not empty, and not from here" >&2; exit 1; }
exec 9>"$CLUSTER_DIR/lock"
flock 9   # of two calls at once the second waits
already_built && { echo "already built: $CLUSTER_DIR"; exit 0; }
rm -rf "${CLUSTER_DIR:?}"/{built,bin,deb,images,build,rootfs.tar}
mkdir -p "$CLUSTER_DIR"/{bin,deb,images,build/{lists/partial,cache/archives/partial,sources.d,dl}}
cd "$CLUSTER_DIR/build"
BUILD=$PWD

# --- packages: the machine's own apt sources, in a private copy that asks for source packages too ---
cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
    sed -n 's/^deb[[:space:]]\(.*\)/deb \1\ndeb-src \1/p' > sources.list || true
for f in /etc/apt/sources.list.d/*.sources; do
    [ ! -f "$f" ] || sed 's/^Types:.*/Types: deb deb-src/' "$f" > "sources.d/$(basename "$f")"
done
cat > apt.conf <<A
Dir::Etc::sourcelist "$BUILD/sources.list"; Dir::Etc::sourceparts "$BUILD/sources.d";
Dir::State::lists "$BUILD/lists"; Dir::Cache "$BUILD/cache"; APT::Sandbox::User "root";
A
export APT_CONFIG=$BUILD/apt.conf
apt-get -qq update || true   # a third-party archive without sources must not stop us
apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Component: main' |
    grep -m1 ' bookworm$' > "$CLUSTER_DIR/mirror" || { echo "no Debian 12 (bookworm) archive in /etc/apt" >&2; exit 1; }
cd dl
apt-get -qq download etcd-server containerd runc containernetworking-plugins busybox-static debootstrap \
    iptables conntrack libip4tc2 libip6tc2 libxtables12 libnftnl11 libmnl0 libnfnetlink0 libnetfilter-conntrack3 libseccomp2
for package in *.deb; do dpkg -x "$package" "$DEB"; done
# Debian's alternatives would make these links at installation; containerd's portmap, kubelet and kube-proxy need them
for program in {iptables,ip6tables}{,-save,-restore}; do
    ln -sfn ../deb/usr/sbin/xtables-nft-multi "$CLUSTER_DIR/bin/$program"
done
apt-get -qq source --download-only kubernetes
apt-get -qq download golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev
for package in golang-*.deb; do dpkg -x "$package" ../pkg; done
cd ..

# --- two images made here: the pause container, and a busybox for tests ---
mkdir -p bb/{bin,tmp,etc}
chmod 1777 bb/tmp
echo 'root:x:0:0:root:/:/bin/sh' > bb/etc/passwd
for applet in $("$DEB/bin/busybox" --list); do ln -s busybox "bb/bin/$applet"; done
cp --remove-destination "$DEB/bin/busybox" bb/bin/
python3 "$HERE/mkimage.py" bb localhost/pause:1 "$CLUSTER_DIR/images/pause.tar" --entrypoint /bin/sleep --entrypoint 2147483647
python3 "$HERE/mkimage.py" bb localhost/busybox:1 "$CLUSTER_DIR/images/busybox.tar"

# --- Go: Debian spreads its tree over two packages with symlinks; put it together ---
go=$BUILD/go
cp -a pkg/usr/lib/go-1.19 "$go"
rm -rf "$go"/{api,misc,src,test} "$go/pkg/include"
cp -a pkg/usr/share/go-1.19/{src,misc} "$go"
cp -a pkg/usr/share/go-1.19/pkg/include "$go/pkg/"
kubernetes=$BUILD/gopath/src/k8s.io/kubernetes
mkdir -p "$kubernetes"
tar xzf dl/kubernetes_*.orig.tar.gz -C "$kubernetes" --strip-components=1
# the vendored reflect2 1.0.1 crashes in programs made by Go 1.18 or later
reflect2=$kubernetes/vendor/github.com/modern-go/reflect2
rm "$reflect2"/*.go
cp pkg/usr/share/gocode/src/github.com/modern-go/reflect2/*.go "$reflect2"
rm -f "$reflect2"/*_test.go
export GOROOT=$go PATH=$go/bin:$PATH GOPATH=$BUILD/gopath GOCACHE=$BUILD/gocache GO111MODULE=off GOPROXY=off GOFLAGS="" CGO_ENABLED=0
cd "$kubernetes"
# the OpenAPI definitions are not in the source package: generate them as upstream's Makefile does
go build -o "$BUILD/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
types=$(grep -rl --include=*.go -e '+k8s:openapi-gen=true' staging/src/k8s.io/{api,apimachinery,apiserver,apiextensions-apiserver,kube-aggregator,cloud-provider,component-base,controller-manager,kube-controller-manager,kube-proxy,kube-scheduler,kubelet,metrics}/ pkg cmd |
    grep -vE '_test.go|/testing/|zz_gen|_examples' | xargs -n1 dirname | sort -u |
    sed 's#^staging/src/#k8s.io/kubernetes/vendor/#; s#^\(pkg\|cmd\)/#k8s.io/kubernetes/\1/#' | paste -sd,)
"$BUILD/openapi-gen" --go-header-file hack/boilerplate/boilerplate.generatego.txt -i "$types" \
    -p k8s.io/kubernetes/pkg/generated/openapi -O zz_generated.openapi -r "$BUILD/violations" --output-base "$GOPATH/src"
flags="-w -s"
for package in k8s.io/kubernetes/vendor/k8s.io/component-base/version k8s.io/kubernetes/vendor/k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitMajor=1 -X $package.gitMinor=20 -X $package.gitVersion=v$KUBERNETES -X $package.gitCommit=debian"
    flags+=" -X $package.gitTreeState=clean -X $package.buildDate=1970-01-01T00:00:00Z"
done
go build -trimpath -tags 'providerless netgo osusergo' -ldflags "$flags" -o "$CLUSTER_DIR/bin/" \
    ./cmd/kube-{apiserver,controller-manager,scheduler,proxy} ./cmd/kubelet ./cmd/kubectl

cd "$CLUSTER_DIR"
chmod -R u+w build
rm -rf build
echo $VERSION > built
echo "built: $CLUSTER_DIR ($(du -sh . | cut -f1))"
