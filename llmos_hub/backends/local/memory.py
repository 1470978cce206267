"""Memory of the machine and of processes, read from ``/proc`` and the control groups."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "MachineMemory",
    "MemoryReader",
    "MemoryUsage",
    "kernel_kills",
    "machine_memory",
    "memory_of",
    "proportional_set_size",
]


@dataclass(frozen=True, slots=True)
class MachineMemory:
    """Memory that this process and its children may use.

    Attributes
    ----------
    total
        Total bytes: the machine's, or the control group's limit if that is less.
    available
        Bytes that a new program could use without swapping.
    """

    total: int
    available: int


MemoryReader = Callable[[], MachineMemory]


@dataclass(frozen=True, slots=True)
class MemoryUsage:
    """Memory of a process, its session and all its descendants.

    Attributes
    ----------
    resident
        Resident bytes; memory shared by several of them is counted for each.
    held
        The part of it that the kernel can't just drop: without mapped files. A mapped model counts as available in
        ``/proc/meminfo``, although the replica needs it in memory.
    pids
        The process ids.
    """

    resident: int
    held: int
    pids: tuple[int, ...]


def _fields(path: Path) -> dict[str, str]:
    """Return a file's lines ``name value`` or ``name: value``; empty if it can't be read."""
    try:
        lines = path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.replace(":", " ", 1).split(None, 1) for line in lines)
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def _number(path: Path) -> int | None:
    """Return the number in a file; None if there is none (``max``) or it can't be read."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024


def _groups(root: Path) -> Iterator[tuple[Path, str, str, str]]:
    """Yield the control groups of this process, from its own to the topmost, as directories with their file names.

    In a container the path may be the host's, which doesn't exist there; then only the topmost directory does.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            bases = [root / "sys/fs/cgroup", root / "sys/fs/cgroup/unified"]
            names = ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            bases = [root / "sys/fs/cgroup/memory"]
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        for base in bases:
            directory = base / path.lstrip("/")
            for group in (directory, *directory.parents):
                yield (group, *names)
                if group == base:
                    break


def machine_memory(root: Path = Path("/")) -> MachineMemory:
    """Return the machine's memory, or the part that the control groups allow (cgroups v1 and v2).

    ``MemAvailable`` is the kernel's own estimate (proc(5)); for a group it is its limit minus its usage, where
    inactive file pages count as free.
    """
    info = _fields(root / "proc/meminfo")
    total, available = _kilobytes(info["MemTotal"]), _kilobytes(info["MemAvailable"])
    for group, limit_name, usage_name, inactive_name in _groups(root):
        limit, usage = _number(group / limit_name), _number(group / usage_name)
        if limit is None or usage is None or limit >= total:
            continue
        inactive = int(_fields(group / "memory.stat").get(inactive_name, "0"))
        total = limit
        available = min(available, max(0, limit - max(0, usage - inactive)))
    return MachineMemory(total, available)


def kernel_kills() -> int:
    """Return how many processes the kernel has killed since boot because memory ran out."""
    return int(_fields(Path("/proc/vmstat")).get("oom_kill", "0"))


def _processes() -> dict[int, tuple[int, int]]:
    """Return parent and session of every process."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                text = Path(entry.path, "stat").read_bytes()
                fields = text.rpartition(b")")[2].split(None, 4)
                found[int(entry.name)] = (int(fields[1]), int(fields[3]))
    return found


def memory_of(leaders: Iterable[int]) -> dict[int, MemoryUsage]:
    """Return the memory of each process with its session and descendants, in one pass over ``/proc`` for all."""
    wanted = set(leaders)
    if not wanted:
        return {}
    processes = _processes()
    members: dict[int, list[int]] = {leader: [] for leader in wanted if leader in processes}
    for pid, (_, session) in processes.items():
        owner, seen = session if session in members else pid, 0
        while owner not in members and owner in processes and seen < 64:
            owner, seen = processes[owner][0], seen + 1
        if owner in members:
            members[owner].append(pid)
    return {leader: _sum(pids) for leader, pids in members.items()}


def _sum(pids: list[int]) -> MemoryUsage:
    resident = held = 0
    for pid in pids:
        status = _fields(Path(f"/proc/{pid}/status"))
        if "VmRSS" in status:
            resident += _kilobytes(status["VmRSS"])
            held += _kilobytes(status.get("RssAnon", status["VmRSS"])) + _kilobytes(status.get("RssShmem", "0"))
    return MemoryUsage(resident, held, tuple(pids))


def proportional_set_size(usage: MemoryUsage) -> int:
    """Return the bytes of all the processes, counting shared memory once (PSS). This is slow, so use it rarely."""
    total = 0
    for pid in usage.pids:
        rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
        if "Pss" not in rollup:
            return usage.resident
        total += _kilobytes(rollup["Pss"])
    return total
