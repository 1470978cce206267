#!/bin/sh
# install.sh [STEP…] [OPTION…]    installs LLMOS from this directory, without internet.
#
# Steps, by default all of them in this order:
#   check     every file is what SHA256SUMS says
#   images    into this machine's k3s, RKE2, containerd or Docker, or with --registry into a registry
#   chart     helm upgrade --install
#   models    into the cluster's mirror of models
# On each further machine of a cluster without a registry: ./install.sh check images
#
# Options:
#   -n, --namespace NAME   of the release (llmos)
#   --release NAME         of the release (llmos)
#   -f, --values FILE      values of yours, after those of this bundle; more than one is possible
#   --set NAME=VALUE       a single value
#   --registry HOST/PATH   push the images there, and let the cluster take them from there. Name and password come
#                          from ~/.docker/config.json or REGISTRY_USER and REGISTRY_PASSWORD
#   --plain-http           the registry speaks HTTP
#   --runtime NAME         k3s, rke2, containerd or docker, where it isn't found by itself
#
# kubectl and helm have to be there; programs in extra/ count. KUBECONFIG says which cluster (k3s' and RKE2's own
# where it is unset), CONTAINERD_ADDRESS where containerd listens.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
PATH="$PATH:$here/extra:/usr/local/bin:/var/lib/rancher/rke2/bin"
namespace=llmos release=llmos registry= runtime= plain= steps=
helm_options= # every word in quotes of the shell's own, for eval

say() { echo "install.sh: $*"; }
fail() { echo "install.sh: $*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is not here. $2"; }
quoted() { printf " '%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

while [ $# -gt 0 ]; do
    case $1 in
    check | images | chart | models) steps="$steps $1" ;;
    -h | --help) sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
    --plain-http) plain=--plain-http ;;
    -n | --namespace | --release | -f | --values | --set | --registry | --runtime)
        [ $# -gt 1 ] || { echo "install.sh: $1 needs a word after it" >&2; exit 2; }
        case $1 in
        -n | --namespace) namespace=$2 ;;
        --release) release=$2 ;;
        -f | --values)
            [ -r "$2" ] || fail "there is no file $2"
            helm_options="$helm_options --values$(quoted "$2")" ;;
        --set) helm_options="$helm_options --set$(quoted "$2")" ;;
        --registry) registry=${2%/} ;;
        --runtime) runtime=$2 ;;
        esac
        shift ;;
    *) echo "install.sh: there is no \"$1\"; ./install.sh --help shows what there is" >&2; exit 2 ;;
    esac
    shift
done
[ -n "$steps" ] || steps="check images chart models"

if [ -z "${KUBECONFIG:-}" ] && [ ! -r "${HOME:-/root}/.kube/config" ]; then
    for file in /etc/rancher/k3s/k3s.yaml /etc/rancher/rke2/rke2.yaml; do
        if [ -r "$file" ]; then export KUBECONFIG="$file"; break; fi
    done
fi

check() {
    say "checking $(wc -l <"$here/SHA256SUMS") files"
    (cd "$here" && sha256sum --check --quiet SHA256SUMS) || fail "this copy is damaged or changed: copy the bundle again"
}

find_runtime() {
    if [ -n "${CONTAINERD_ADDRESS:-}" ]; then echo containerd
    elif command -v k3s >/dev/null 2>&1; then echo k3s
    elif [ -S /run/k3s/containerd/containerd.sock ]; then echo rke2
    elif [ -S /run/containerd/containerd.sock ] && command -v ctr >/dev/null 2>&1; then echo containerd
    elif command -v docker >/dev/null 2>&1; then echo docker
    else fail "found neither k3s, RKE2, containerd nor Docker here. Name one with --runtime, or a registry with --registry"
    fi
}

images() {
    if [ ! -d "$here/images" ]; then say "no images in this bundle"; return; fi
    if [ -n "$registry" ]; then
        need python3 "It pushes the images."
        # shellcheck disable=SC2086 - a word or none
        python3 "$here/images/push.py" $plain "$here/manifest.json" "$registry"
        return
    fi
    case $(uname -m) in
    x86_64 | amd64) architecture=amd64 ;;
    aarch64 | arm64) architecture=arm64 ;;
    *) fail "there are no images for $(uname -m)" ;;
    esac
    archive=$here/images/linux-$architecture.tar
    [ -r "$archive" ] || fail "this bundle has no images for $architecture, only $(cd "$here/images" && echo *.tar)"
    [ -n "$runtime" ] || runtime=$(find_runtime)
    say "images into $runtime"
    case $runtime in
    k3s) k3s ctr images import "$archive" ;;
    rke2) ctr --address /run/k3s/containerd/containerd.sock --namespace k8s.io images import "$archive" ;;
    containerd) ctr --namespace k8s.io images import "$archive" ;;
    docker) docker load --input "$archive" ;;
    *) fail "there is no runtime \"$runtime\": k3s, rke2, containerd, docker" ;;
    esac
}

chart() {
    if [ ! -d "$here/chart" ]; then say "no chart in this bundle"; return; fi
    need helm "Put the program into $here/extra, or on PATH."
    [ -z "$registry" ] || helm_options="$helm_options --set$(quoted "images.registry=$registry")"
    say "the chart into namespace $namespace"
    eval "helm upgrade --install --reset-then-reuse-values --create-namespace --wait --timeout 15m \
        --namespace$(quoted "$namespace") --values$(quoted "$here/values.yaml") $helm_options \
        -- $(quoted "$release") $(quoted "$(echo "$here"/chart/*.tgz)")"
}

# sh in the mirror's pod, with what comes on standard input
in_mirror() { kubectl --namespace "$namespace" exec -i "$mirror" -- sh -c "$@"; }

models() {
    if [ ! -d "$here/models/uris" ]; then say "no models in this bundle"; return; fi
    need kubectl "It copies the models."
    mirror=$(kubectl --namespace "$namespace" get deployment --output name \
        --selector "app.kubernetes.io/instance=$release,app.kubernetes.io/component=mirror")
    [ -n "$mirror" ] || fail "release $release in namespace $namespace has no mirror of models: mirror.enabled is false"
    kubectl --namespace "$namespace" rollout status "$mirror" --timeout 10m
    in_mirror 'mkdir -p /models/blobs /models/uris' </dev/null
    for file in "$here"/models/blobs/*; do
        name=${file##*/}
        if in_mirror '[ -e "/models/blobs/$0" ]' "$name" </dev/null; then continue; fi
        say "model file $name, $(wc -c <"$file") bytes"
        # whole and checked before it has its name
        in_mirror 'set -e; cd /models/blobs; cat >".$0.part"; echo "$0  .$0.part" | sha256sum -c --quiet; mv ".$0.part" "$0"' \
            "$name" <"$file" || fail "copying broke off. Begin again where it was with: ./install.sh models"
    done
    for file in "$here"/models/uris/*.json; do
        in_mirror 'cat >"/models/uris/.$0" && mv "/models/uris/.$0" "/models/uris/$0"' "${file##*/}" <"$file"
    done
    say "models: $(cd "$here/models/uris" && sed -n 's/.*"uri": "\([^"]*\)".*/\1/p' ./*.json | tr '\n' ' ')"
}

for step in $steps; do "$step"; done
say "done"
