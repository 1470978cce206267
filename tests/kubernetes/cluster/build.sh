#!/bin/bash
# build.sh   once per machine: the Debian packages, the cluster's programs from their Go modules, and the base images.
# Needs root, Go 1.26.4 or newer with a module proxy, and Debian 12. About ten minutes on two cores, 2.5 GB of memory at the link.
set -e
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
say() { echo "[$(date +%T)] build.sh: $*"; }
VERSION=$(sed -n 's/^\tk8s.io\/kubernetes \(v.*\)/\1/p' "$S/programs/go.mod")
GO=1.26.4       # what the addons' dependencies want
have=$(go env GOVERSION 2>/dev/null) || { echo "build.sh: go is not installed. Install Go $GO or newer: https://go.dev/dl" >&2; exit 1; }
printf '%s\n' $GO "${have#go}" | sort -V -C || { echo "build.sh: $have is too old. Install Go $GO or newer: https://go.dev/dl" >&2; exit 1; }
say "Debian packages"
PACKAGES="containerd runc containernetworking-plugins nftables iproute2 conntrack debootstrap busybox-static openssl curl gcc libc6-dev procps mount python3-minimal"
install() { DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $PACKAGES; }
install >/dev/null 2>&1 || { apt-get update -q >/dev/null; install >/dev/null; }
mkdir -p "$B" "$LOGS"
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
[ -x "$B/helm" ] || { say "helm"; "$S/helm.sh" >/dev/null; }  # first: the chart's tests wait for it
if [ ! -x "$B/kube-allinone" ]; then
  say "Kubernetes $VERSION, one binary (the long one: 5 to 7 minutes)"
  (cd "$S/programs" && go build -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$VERSION -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(echo "$VERSION" | cut -d. -f2)" -o "$B/kube-allinone" ./cmd/kube)
fi
for c in kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do ln -sf kube-allinone "$B/$c"; done
[ -x "$B/etcd" ] || { say "etcd, from the same go.mod"; (cd "$S/programs" && go build -ldflags "-s -w" -o "$B/etcd" ./cmd/etcd); }
[ -x "$B/coredns" ] || { say "coredns"; GOBIN=$B go install -ldflags "-s -w" github.com/coredns/coredns@v1.13.1; }
[ -x "$B/kubeconform" ] || { say "kubeconform"; GOBIN=$B go install -ldflags "-s -w" github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0; }
say "images (debootstrap the first time, about a minute)"
"$S/images.sh"
say "done: next up.sh [NODES]"
