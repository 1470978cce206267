"""The owner of a port of this machine: an open port may be another program's."""

from __future__ import annotations

from llmos import proc
from llmos_spawners.memory import processes_of

__all__ = ["listens"]


def listens(leader: int, port: int) -> bool:
    """Return whether a process or one of its descendants listens on a TCP port.

    Parameters
    ----------
    leader
        Id of the process.
    port
        The port, on any address of this machine.
    """
    sockets = proc.listening_sockets(port)
    return any(proc.has_open(pid, sockets) for pid in {leader, *processes_of(leader)})
