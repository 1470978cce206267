#!/usr/bin/env bash
# A Chromium for the browser tests: the one that is there, else Debian's, which needs root.
set -euo pipefail
for name in "${LLMOS_CHROMIUM:-}" chromium chromium-browser google-chrome; do
    if [ -n "$name" ] && command -v "$name" >/dev/null; then exit 0; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "The browser tests need Chromium. Install it (as root: apt-get install chromium) or set LLMOS_CHROMIUM to a Chrome." >&2
    exit 1
fi
echo "Installing Chromium from Debian's packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null
