"""The owner of a port of this machine (Linux, proc(5)): an open port may be another program's."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Final

from llmos_spawners.memory import processes_of

__all__ = ["listens"]

_LISTEN: Final = "0A"  # include/net/tcp_states.h
_SOCKET: Final = re.compile(r"socket:\[(\d+)\]")


def listens(leader: int, port: int) -> bool:
    """Return whether a process or one of its descendants listens on a TCP port.

    Parameters
    ----------
    leader
        Id of the process.
    port
        The port, on any address of this machine.
    """
    wanted = _listeners(port)
    return any(_holds(pid, wanted) for pid in {leader, *processes_of(leader)})


def _listeners(port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):  # a kernel without IPv6
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _holds(pid: int, inodes: set[str]) -> bool:
    """Return whether a process has one of these sockets open."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended meanwhile
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if (found := _SOCKET.fullmatch(str(descriptor.readlink()))) and found[1] in inodes:
                return True
    return False
