"""Memory used by a server's processes, and memory of this machine (Linux, proc(5))."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import Final

__all__ = ["machine_memory", "processes_of", "used_by"]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_FRESH: Final = 0.5  # seconds for which a list of all processes is reused for every server

_table: tuple[float, dict[int, tuple[int, int]]] = (0.0, {})


def machine_memory() -> int:
    """Return the bytes of memory of this machine, or the limit of this control group if that is lower."""
    total = _PAGE * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return total


def _processes() -> dict[int, tuple[int, int]]:
    """Return parent and session of every process by its id."""
    global _table  # noqa: PLW0603 - one pass over /proc for all servers
    began, found = _table
    if time.monotonic() - began < _FRESH:
        return found
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split(None, 4)
                found[int(entry.name)] = (int(fields[1]), int(fields[3]))
    _table = (time.monotonic(), found)
    return found


def processes_of(leader: int) -> list[int]:
    """Return the ids of a server, its descendants and the members of its session; kernels have sessions of their own."""
    table = _processes()
    members = []
    for pid, (_, session) in table.items():
        ancestor, steps = pid, 0
        while ancestor not in (leader, 0, 1) and steps < 64:
            ancestor, steps = table.get(ancestor, (0, 0))[0], steps + 1
        if leader in (ancestor, session):
            members.append(pid)
    return members


def used_by(pids: list[int], limit: int) -> int:
    """Return the bytes that processes use; memory shared among them is counted once if it would exceed `limit`."""
    resident = sum(_resident(pid) for pid in pids)
    return resident if resident <= limit else sum(_share(pid) for pid in pids)


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def _share(pid: int) -> int:
    """Return the proportional set size of a process; slower to read than the resident set size."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)
