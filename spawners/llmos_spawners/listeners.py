"""Whose a port of this machine is (Linux, proc(5)): an open port alone doesn't say that it is the server's."""

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
    """Whether a process, or one that it has started, listens on a TCP port.

    Parameters
    ----------
    leader
        Its process id.
    port
        Of any of this machine's addresses.
    """
    wanted = _listeners(port)
    return any(_holds(pid, wanted) for pid in {leader, *processes_of(leader)})


def _listeners(port: int) -> set[str]:
    """The inodes of the sockets that listen on a port."""
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):  # a kernel without IPv6
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(fields[9])
    return found


def _holds(pid: int, inodes: set[str]) -> bool:
    """Whether one of a process' files is one of these sockets."""
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended meanwhile
        return False
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            if (found := _SOCKET.fullmatch(str(descriptor.readlink()))) and found[1] in inodes:
                return True
    return False
