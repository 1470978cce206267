"""Memory of the machine and of processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from llmos import proc

__all__ = [
    "MachineMemory",
    "MemoryReader",
    "MemoryUsage",
    "machine_memory",
    "memory_of",
    "proportional_set_size",
]

_LIMITS: Final = (
    # files of a control group of version 2 and 1: its limit, its usage, and the part of its ``memory.stat`` that is free
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


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


def _number(path: Path) -> int | None:
    """Return the number in a file; None if there is none (``max``) or it can't be read."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def machine_memory(root: Path = Path("/")) -> MachineMemory:
    """Return the machine's memory, or the part that the control groups allow (cgroups v1 and v2).

    ``MemAvailable`` is the kernel's own estimate (proc(5)); for a group it is its limit minus its usage, where
    inactive file pages count as free.
    """
    info = proc.meminfo(root)
    total = info["MemTotal"]
    available = info.get("MemAvailable", total)
    for group, (limit_name, usage_name, inactive_name) in product(proc.control_groups(root), _LIMITS):
        limit, usage = _number(group / limit_name), _number(group / usage_name) or 0
        if limit is None or limit >= total:  # version 1 writes "no limit" as a number close to 2**63
            continue
        inactive = int(proc.fields(group / "memory.stat").get(inactive_name, "0"))
        total = limit
        available = min(available, max(0, limit - max(0, usage - inactive)))
    return MachineMemory(total, available)


def memory_of(leaders: Iterable[int]) -> dict[int, MemoryUsage]:
    """Return the memory of each process with its session and descendants, in one pass over all processes."""
    wanted = set(leaders)
    if not wanted:
        return {}
    table = proc.families()
    return {leader: _sum(pids) for leader, pids in proc.members(wanted & table.keys(), table).items()}


def _sum(pids: list[int]) -> MemoryUsage:
    resident = held = 0
    for pid in pids:
        status = proc.status(pid)
        if "VmRSS" in status:
            resident += _kilobytes(status["VmRSS"])
            held += _kilobytes(status.get("RssAnon", status["VmRSS"])) + _kilobytes(status.get("RssShmem", "0"))
    return MemoryUsage(resident, held, tuple(pids))


def _kilobytes(text: str) -> int:
    return int(text.split(maxsplit=1)[0]) * 1024


def proportional_set_size(usage: MemoryUsage) -> int:
    """Return the bytes of all the processes, counting shared memory once (PSS). This is slow, so use it rarely."""
    shares = [proc.proportional(pid) for pid in usage.pids]
    return usage.resident if None in shares else sum(share or 0 for share in shares)
