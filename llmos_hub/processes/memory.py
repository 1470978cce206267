"""Memory of processes; for that of the machine see `llmos.proc.machine_memory`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from llmos import proc

__all__ = ["MemoryReader", "MemoryUsage", "memory_of", "proportional_set_size"]

MemoryReader = Callable[[], proc.MachineMemory]


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
