#!/bin/bash
# addons.sh [--build] [csi] [kuberay] [netpol] [metrics] [rayimage] [lws]   build what is missing, import the images into the running nodes, apply, wait until ready.
# Run it after up.sh, and again after adding nodes; with --build also before: it builds and ends. Programs and controller images are kept under $TESTCLUSTER_DIR/addons.
set -e
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../env.sh"
D=$S/addons A=$K/addons
RAY=2.60.0
mkdir -p "$A" "$K/images" "$LOGS"
exec 9> "$A/lock"; flock 9   # one at a time: two would build the same files
export CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false"
say() { echo "[$(date +%T)] addons.sh: $*"; }
# prog OUT MODULE-FOLDER PACKAGE   a package of ours is always built again (quick), one of a dependency only once
prog() {
  [ -x "$A/$1" ] && [[ $3 != ./* ]] && return
  local t=$SECONDS
  (cd "$D/$2" && go build -ldflags "-s -w" -o "$A/$1.new" "$3")
  if cmp -s "$A/$1.new" "$A/$1"; then rm "$A/$1.new"; else mv "$A/$1.new" "$A/$1"; fi
  [ $((SECONDS - t)) -lt 3 ] || say "built $1 in $((SECONDS - t)) s"
}
# modfile MODULE-FOLDER MODULE PATH   a file or folder of a dependency, in the module cache
modfile() { (cd "$D/$1" && go mod download "$2" && echo "$(go list -m -f '{{.Dir}}' "$2")/$3"); }
# image NAME FILE [ARG ...]   make registry.local/NAME:1 as FILE unless it is newer than each program named in --file
image() {
  local name=$1 out=$2 a old=; shift 2
  for a in "$@"; do [[ $a == "$A"/*:* ]] && [ "${a%%:*}" -nt "$out" ] && old=1; done
  if [ ! -f "$out" ] || [ -n "$old" ]; then "$S/make_image.py" "registry.local/$name:1" "$out" "$@"; fi
}
# import FILE [NODE ...]   into the nodes named, by default all that run
import() {
  local f=$1 n m; shift
  [ $# -gt 0 ] || set -- "$STATE"/node*
  for n in "$@"; do
    n=${n##*/}; m=$STATE/$n/imported.$(basename "$f" .tar)
    if [ -f "$STATE/$n/box.ready" ] && ! [ "$m" -nt "$f" ]; then ctr -a "$STATE/$n/run/containerd.sock" -n k8s.io images import "$f" >/dev/null; touch "$m"; fi
  done
}
# apply FILE   with its @DATA@, and @BUILT@ so that pods are replaced when the nodes' image has changed
apply() { sed "s|@DATA@|$STATE/csi|g; s|@BUILT@|$(stat -c %Y "$K/images/node-addons.tar" 2>/dev/null)|" "$D/manifests/$1" | kubectl apply -f - >/dev/null; }
# crds FOLDER   the files GROUP_PLURAL.yaml in it
crds() {
  local f
  for f in "$1"/*_*.yaml; do kubectl apply --server-side --force-conflicts -f "$f" >/dev/null; until kubectl wait --for=condition=Established -f "$f" --timeout=60s >/dev/null 2>&1; do sleep 0.2; done; done
}
ready() { kubectl -n "$1" rollout status "$2" --timeout=180s | tail -1; }
# rootfs NAME PACKAGES   a small Debian with more packages
rootfs() { [ -f "$K/work/$1/.done" ] || { say "debootstrap $1"; rm -rf "${K:?}/work/$1"; debootstrap --variant=minbase --include="$2" bookworm "$K/work/$1" >"$LOGS/debootstrap-$1.log" 2>&1; touch "$K/work/$1/.done"; }; }

# the one image that every node gets; among $K/images, so that nodes added later have it too
build_node_image() {
  prog csi-driver k37 ./cmd/csi
  prog netpol k37 ./cmd/netpol
  rootfs addons-rootfs xfsprogs,nftables
  image node-addons "$K/images/node-addons.tar" --rootfs "$K/work/addons-rootfs" --file "$A/csi-driver:/usr/local/bin/csi-driver" --file "$A/netpol:/usr/local/bin/netpol"
}

build_csi() {
  local c args=()
  for c in external-provisioner/v6:csi-provisioner external-attacher/v4:csi-attacher external-resizer/v2:csi-resizer external-snapshotter/v8:csi-snapshotter external-snapshotter/v8:snapshot-controller; do
    prog "${c#*:}" k37 "github.com/kubernetes-csi/${c%:*}/cmd/${c#*:}"; args+=(--file "$A/${c#*:}:/${c#*:}")
  done
  image csi-sidecars "$A/csi-sidecars.tar" "${args[@]}"
  build_node_image
}
csi() {
  import "$A/csi-sidecars.tar" node1
  import "$K/images/node-addons.tar"
  crds "$(modfile k37 github.com/kubernetes-csi/external-snapshotter/client/v8 config/crd)"
  apply csi.yaml
  ready csi daemonset/node; ready csi deployment/controller
}

build_kuberay() {
  prog kuberay-operator k34 github.com/ray-project/kuberay/ray-operator
  image kuberay-operator "$A/kuberay-operator.tar" --file "$A/kuberay-operator:/kuberay-operator"
}
kuberay() {
  local dir
  import "$A/kuberay-operator.tar" node1
  dir=$(modfile k34 github.com/ray-project/kuberay/ray-operator config)
  crds "$dir/crd/bases"
  kubectl apply -f "$dir/rbac/role.yaml" >/dev/null
  apply kuberay.yaml
  ready kuberay deployment/operator
}

build_netpol() { build_node_image; }
netpol() {
  import "$K/images/node-addons.tar"
  apply netpol.yaml
  ready kube-system daemonset/netpol
}

build_metrics() {
  prog metrics-server k37 sigs.k8s.io/metrics-server/cmd/metrics-server
  image metrics-server "$A/metrics-server.tar" --file "$A/metrics-server:/metrics-server"
}
metrics() {
  import "$A/metrics-server.tar" node1
  apply metrics.yaml
  ready kube-system deployment/metrics-server
  kubectl wait --for=condition=Available apiservice/v1beta1.metrics.k8s.io --timeout=60s >/dev/null
}

# registry.local/ray:1 for real RayClusters: Debian's python3 and, from PyPI, ray[default]
build_rayimage() {
  local r=$K/work/ray-rootfs
  rootfs ray-rootfs python3,wget
  if [ ! -x "$r/usr/local/bin/ray" ]; then
    say "pip install ray[default]==$RAY"
    python3 -m pip install -q --target "$r/usr/local/lib/python3.11/dist-packages" --python-version 3.11 --implementation cp --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
      --only-binary :all: "ray[default]==$RAY" >"$LOGS/pip-ray.log" 2>&1 || { tail "$LOGS/pip-ray.log"; return 1; }
    sed '1s|.*|#!/usr/bin/python3|' "$r/usr/local/lib/python3.11/dist-packages/bin/ray" >"$r/usr/local/bin/ray"; chmod +x "$r/usr/local/bin/ray"
  fi
  image ray "$A/ray.tar" --rootfs "$r" --cmd bash
}
rayimage() { import "$A/ray.tar"; }

# LeaderWorkerSet, as its own configuration has it, with one replica
build_lws() {
  prog lws-manager k34 sigs.k8s.io/lws/cmd
  image lws "$A/lws.tar" --file "$A/lws-manager:/manager" --user 65532
}
lws() {
  import "$A/lws.tar"
  kubectl kustomize "$(modfile k34 sigs.k8s.io/lws config/default)" |
    sed 's|image: .*|image: registry.local/lws:1|; s|replicas: 2|replicas: 1|; s|imagePullPolicy: Always|imagePullPolicy: IfNotPresent|' | kubectl apply --server-side --force-conflicts -f - >/dev/null
  ready lws-system deployment/lws-controller-manager
}

BUILD=; [ "$1" != --build ] || { BUILD=1; shift; }
[ $# -gt 0 ] || set -- csi kuberay netpol metrics
for w in "$@"; do
  case $w in
    csi | kuberay | rayimage | netpol | metrics | lws) t=$SECONDS; say "$w"; build_"$w"; [ -n "$BUILD" ] || "$w"; say "$w ready after $((SECONDS - t)) s" ;;
    *) echo "no addon $w" >&2; exit 2 ;;
  esac
done
