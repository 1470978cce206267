#!/bin/bash
# helm.sh   builds Helm unless it exists, and prints its path. Needs Go 1.24 or newer with a module proxy; no root. Two minutes on two cores.
set -e
. "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/env.sh"
mkdir -p "$B"
exec 9> "$B/helm.lock"; flock 9   # one at a time: the others wait for the one that builds
if [ ! -x "$B/helm" ]; then
  # elsewhere first, so that an interrupted build leaves no half of a program
  CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" GOBIN=$B/new go install -ldflags "-s -w" helm.sh/helm/v3/cmd/helm@v3.19.0 >&2
  mv "$B/new/helm" "$B/helm"; rmdir "$B/new"
fi
echo "$B/helm"
