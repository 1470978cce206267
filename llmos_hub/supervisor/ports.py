"""Free TCP ports, and the processes that listen on the others."""

from __future__ import annotations

import errno
import random
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from llmos import proc
from llmos.errors import Unavailable
from llmos_hub.processes.ports import listen_error

__all__ = ["Listener", "find_free_port", "is_free", "is_loopback", "owner_of", "taken_by"]

# Below Linux' range of ephemeral ports (32768 on), so that no outgoing connection takes one while its owner restarts.
_INTERNAL = range(20000, 32000)


@dataclass(frozen=True)
class Listener:
    """A process that listens on a port.

    Attributes
    ----------
    pid
        Process id.
    name
        Name of the program: ``python3``.
    command
        Its arguments, shortened.
    """

    pid: int
    name: str
    command: str

    def __str__(self) -> str:
        return f'{self.name} (pid {self.pid}, "{self.command}")' if self.command else f"{self.name} (pid {self.pid})"


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to `host`."""
    return host in ("localhost", "::1") or host.startswith("127.")


def is_free(host: str, port: int) -> bool:
    """Return whether a server could listen on this port now.

    Raises
    ------
    Unavailable
        `host` is not an address of this machine, or the port needs root.
    """
    error = listen_error(host, port)
    if error is None or error.errno == errno.EADDRINUSE:
        return error is None
    if error.errno == errno.EACCES:
        raise Unavailable(f"Port {port} is for root alone. Use one from 1024 on: --port 8000") from error
    raise Unavailable(f'"{host}" is no address of this machine. Use 127.0.0.1, or 0.0.0.0 for all.') from error


def find_free_port(avoid: Collection[int] = ()) -> int:
    """Return a free loopback port for a process of the platform.

    Raises
    ------
    Unavailable
        No free port was found.
    """
    chooser = random.SystemRandom()
    for _ in range(200):
        port = chooser.choice(_INTERNAL)
        if port not in avoid and is_free("127.0.0.1", port):
            return port
    raise Unavailable(f"No free port from {_INTERNAL.start} to {_INTERNAL.stop}. Stop what listens there.")


def owner_of(port: int) -> Listener | None:
    """Return the process that listens on a port; None if it can't be found, such as another account's."""
    sockets = proc.listening_sockets(port)
    return next((_describe(pid) for pid in proc.pids() if proc.has_open(pid, sockets)), None) if sockets else None


def taken_by(host: str, port: int, ours: Collection[int]) -> str:
    """Return the process that listens on a port, in words; empty if the port is free or one of the pids `ours` has it.

    Raises
    ------
    Unavailable
        As for `is_free`.
    """
    if is_free(host, port):
        return ""
    owner = owner_of(port)
    if owner is None:
        return "a process of someone else"
    return "" if owner.pid in ours else str(owner)


def _describe(pid: int) -> Listener:
    argv = proc.argv(pid)
    if not argv or not argv[0]:
        return Listener(pid, "a process", "")
    # `python3 -P -m http.server 8000` is known by "http.server", `node --max-old-space-size=256 proxy.js` by "proxy.js"
    rest = argv[1:]
    while len(rest) > 1 and rest[0].startswith("-"):
        rest = rest[1:]
    words = " ".join(Path(word).name if word.startswith("/") else word for word in rest)
    return Listener(pid, Path(argv[0]).name, words if len(words) <= 60 else words[:59] + "…")
