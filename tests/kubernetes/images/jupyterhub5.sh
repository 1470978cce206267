#!/bin/sh
# On top of the Hub's image: JupyterHub 5.5 instead of 6, everything else as locked. Run by build.py after install.sh.
set -eu
here=$(dirname "$0")
requirements=$here/../../../requirements
[ -x "$LLMOS_WORK/tools/bin/uv" ] || { python3 -m venv "$LLMOS_WORK/tools"
    "$LLMOS_WORK/tools/bin/python" -m pip install --quiet --require-hashes --only-binary :all: -r "$requirements/build.txt"; }
UV_CACHE_DIR=$LLMOS_WORK/cache UV_LINK_MODE=copy UV_NO_PROGRESS=1 "$LLMOS_WORK/tools/bin/uv" pip install --quiet --no-deps \
    --require-hashes --compile-bytecode --python /opt/llmos/bin/python -r "$here/jupyterhub5.txt"
