"""The chart's commands for containers of the control plane's image that aren't API, gateway, controllers or Hub.

``python -m llmos_hub.supervisor.container``

- ``proxy OPTION...`` and ``valkey CONFIG`` execute the Hub's proxy and Valkey: the chart doesn't know their paths in the
  image, and the password must not appear in their arguments;
- ``ping-valkey`` is Valkey's probe;
- ``copy-code DIRECTORY`` copies the packages that a Hub in another image needs.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from llmos.errors import LLMOSError, UsageError

__all__ = ["main"]

_TIMEOUT = 3.0  # seconds for a local answer
_HUB_PACKAGES = ("llmos", "llmos_hub", "llmos_spawners")
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_PIPE = 60_000  # bytes; below the capacity of a pipe that has no reader yet (pipe(7): 65,536)


def main(argv: Sequence[str] | None = None) -> int:
    """Execute the program, or answer a probe; return the exit code."""
    word, *arguments = (list(sys.argv[1:] if argv is None else argv)) or [""]
    try:
        if word == "proxy":
            _proxy(arguments)
        if word == "valkey" and len(arguments) == 1:
            _valkey(Path(arguments[0]))
    except LLMOSError as error:
        sys.stderr.write(f"{error.message}\n")
        return 2 if isinstance(error, UsageError) else 1
    if word == "ping-valkey" and not arguments:
        return _ping()
    if word == "copy-code" and len(arguments) == 1:
        return _copy_code(Path(arguments[0]))
    sys.stderr.write("Usage: proxy OPTION... | valkey CONFIG | ping-valkey | copy-code DIRECTORY\n")
    return 2


def _proxy(options: list[str]) -> NoReturn:
    from llmos_hub.supervisor.binaries import find_node, find_proxy, proxy_command

    argv = [*proxy_command(find_node(), find_proxy()), *options]
    os.environ.setdefault("NODE_ENV", "production")
    os.execv(argv[0], argv)  # noqa: S606 - a list, no shell; the proxy must be the container's main process


def _valkey(config: Path) -> NoReturn:
    """Execute Valkey with its configuration on standard input, the password as its last line."""
    from llmos_hub.valkey.server import find_valkey

    escaped = os.environ.pop("VALKEY_PASSWORD").replace("\\", "\\\\").replace('"', '\\"')
    settings = f"{config.read_text(encoding='utf-8').rstrip()}\n{_memory(_CGROUP_LIMIT)}"
    text = f'{settings}requirepass "{escaped}"\n'.encode()
    if len(text) > _PIPE:
        raise UsageError(f"{config} is longer than {_PIPE} bytes.")
    reading, writing = os.pipe()
    os.write(writing, text)
    os.close(writing)
    os.dup2(reading, 0)
    argv = find_valkey().command()
    os.execv(argv[0], argv)  # noqa: S606 - as above


def _memory(limit: Path) -> str:
    """Return the setting that limits Valkey's data to two thirds of the container's memory; empty without a limit.

    The rest is for connections, and for pages copied while a child process rewrites the append-only file. With the
    setting, Valkey refuses writes with an error instead of being killed for memory.
    """
    try:
        return f"maxmemory {int(limit.read_text(encoding='ascii')) * 2 // 3}\n"
    except (OSError, ValueError):  # no control groups of version 2, or "max": there is no limit
        return ""


def _ping() -> int:
    """Return exit code 0 if Valkey answers on this pod's loopback address; it doesn't while it still loads its files."""
    password = os.environ["VALKEY_PASSWORD"].encode()
    request = b"*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n*1\r\n$4\r\nPING\r\n" % (len(password), password)
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", 6379), timeout=_TIMEOUT) as connection:
            connection.sendall(request)
            while answer.count(b"\r\n") < 2:
                if not (received := connection.recv(4096)):
                    break
                answer += received
    except OSError as error:
        sys.stderr.write(f"Valkey does not answer: {error}\n")
        return 1
    if answer == b"+OK\r\n+PONG\r\n":
        return 0
    sys.stderr.write(f"Valkey says: {answer.decode(errors='replace').strip()[:200]}\n")
    return 1


def _copy_code(target: Path) -> int:
    """Copy the packages of LLMOS that a Hub imports: pure Python, which works with the Hub's own interpreter."""
    for name in _HUB_PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            sys.stderr.write(f"There is no package {name} in this image.\n")
            return 1
        source = Path(spec.origin).parent
        shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
