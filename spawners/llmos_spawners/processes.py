"""The processes of a server: their memory and ports."""

from __future__ import annotations

import time
from typing import Final

from llmos import proc

__all__ = ["listens", "processes_of", "used_by"]

_FRESH: Final = 0.5  # seconds for which a list of all processes is reused for every server

_table: tuple[float, dict[int, tuple[int, int]]] = (0.0, {})


def processes_of(leader: int) -> list[int]:
    """Return the ids of a server, its descendants and the members of its session; kernels have sessions of their own."""
    global _table  # noqa: PLW0603 - one pass over all processes for all servers
    if time.monotonic() - _table[0] >= _FRESH:
        _table = (time.monotonic(), proc.families())
    return proc.members([leader], _table[1])[leader]


def used_by(pids: list[int], limit: int) -> int:
    """Return the bytes that processes use; memory shared among them is counted once if it would exceed `limit`."""
    resident = sum(proc.resident(pid) for pid in pids)
    return resident if resident <= limit else sum(proc.proportional(pid) or 0 for pid in pids)


def listens(leader: int, port: int) -> bool:
    """Return whether a process or one of its descendants listens on a TCP port: an open one may be another program's.

    Parameters
    ----------
    leader
        Id of the process.
    port
        The port, on any address of this machine.
    """
    sockets = proc.listening_sockets(port)
    return any(proc.has_open(pid, sockets) for pid in {leader, *processes_of(leader)})
