"""Processes and memory of this machine as the kernel shows them (Linux, proc(5), cgroups(7)).

Processes end while they are read, and belong to other accounts: what can't be read is empty, zero or None, never an
exception.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

__all__ = [
    "MachineMemory",
    "activity",
    "argv",
    "boot_id",
    "control_groups",
    "environment_value",
    "families",
    "fields",
    "has_open",
    "listening_sockets",
    "machine_memory",
    "members",
    "meminfo",
    "oom_kills",
    "pids",
    "proportional",
    "read",
    "resident",
    "session",
    "start_time",
    "stat",
    "status",
    "uptime",
]

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_LISTEN: Final = "0A"  # include/net/tcp_states.h
_GENERATIONS: Final = 64  # ancestors that are followed; a table read while processes change could have a circle
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


def read(path: Path | str) -> str:
    """Return a file's text; empty if it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def pids() -> list[int]:
    """Return the ids of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - hundreds of them


def stat(pid: int, *, limit: int = -1) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` after the command's name, from field 3 (state) on.

    Parameters
    ----------
    limit
        Number of fields to separate, if only the first are needed; -1: all.
    """
    return read(f"/proc/{pid}/stat").rpartition(")")[2].split(None, limit)


def start_time(pid: int) -> int:
    """Return the start time of a process in clock ticks since boot; 0 if it has ended or is a zombie.

    Pids are reused; pid and start time together identify a process.
    """
    found = stat(pid)
    return int(found[19]) if found and found[0] not in "ZX" else 0


def session(pid: int) -> int:
    """Return the session of a process; 0 if it is gone."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def argv(pid: int) -> list[str]:
    """Return the command of a process."""
    text = read(f"/proc/{pid}/cmdline").strip("\0")
    return text.split("\0") if text else []


def environment_value(pid: int, name: str) -> str | None:
    """Return a variable of the environment with which a process was started; None if it has none."""
    wanted = f"{name}=".encode()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(wanted):
                return entry[len(wanted) :].decode(errors="replace")
    return None


def families() -> dict[int, tuple[int, int]]:
    """Return parent and session of every process."""
    found = {}
    for pid in pids():
        if values := stat(pid, limit=4):
            found[pid] = (int(values[1]), int(values[3]))
    return found


def members(leaders: Iterable[int], table: Mapping[int, tuple[int, int]]) -> dict[int, list[int]]:
    """Return the processes of each leader: itself, its session, and all its descendants, in whatever session.

    Parameters
    ----------
    table
        Parent and session of every process, from `families`.
    """
    found: dict[int, list[int]] = {leader: [] for leader in leaders}
    for pid, (_, led_by) in table.items():
        owner, steps = led_by if led_by in found else pid, 0
        while owner not in found and owner in table and steps < _GENERATIONS:
            owner, steps = table[owner][0], steps + 1
        if owner in found:
            found[owner].append(pid)
    return found


def activity(pid: int) -> tuple[float, float, bool]:
    """Return the activity of a process since its start.

    Returns
    -------
    tuple[float, float, bool]
        CPU time in seconds, seconds in which its threads were runnable but waited for a CPU (``schedstat``), and whether
        one of them runs or waits for a disk at this moment.
    """
    if not (found := stat(pid)):
        return 0.0, 0.0, False
    waited, busy = 0.0, False
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            numbers = read(task / "schedstat").split()
            waited += int(numbers[1]) / 1e9 if len(numbers) > 1 else 0.0
            state = read(task / "stat").rpartition(")")[2].split(None, 1)[:1]
            busy = busy or state in (["R"], ["D"])
    return (int(found[11]) + int(found[12])) / _TICKS, waited, busy


def fields(path: Path | str) -> dict[str, str]:
    """Return a file's lines ``name value`` or ``name: value``."""
    pairs = (line.replace(":", " ", 1).split(None, 1) for line in read(path).splitlines())
    return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}


def meminfo(root: Path = Path("/")) -> dict[str, int]:
    """Return the entries of ``/proc/meminfo`` in bytes.

    Parameters
    ----------
    root
        The directory with ``proc``; another one in tests.
    """
    return {name: int(value.split()[0]) * 1024 for name, value in fields(root / "proc/meminfo").items()}


def control_groups(root: Path = Path("/")) -> Iterator[Path]:
    """Yield the directories of this process's control groups for CPU and memory, each from its own to the topmost.

    Both versions are considered. In a container the path that the kernel reports may be the host's, which doesn't exist
    there; the topmost directory does.

    Parameters
    ----------
    root
        The directory with ``proc`` and ``sys``; another one in tests.
    """
    for line in read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and not {"cpu", "memory"} & set(controllers.split(",")):
            continue
        base = root / "sys/fs/cgroup"
        for mount in [base / controllers] if controllers else [base, base / "unified"]:
            group = mount / path.strip("/")
            yield from (group, *group.parents[: len(group.parts) - len(mount.parts)])


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
    info = meminfo(root)
    total = info["MemTotal"]
    available = info.get("MemAvailable", total)
    for group, (limit_name, usage_name, inactive_name) in product(control_groups(root), _LIMITS):
        limit, usage = _number(group / limit_name), _number(group / usage_name) or 0
        if limit is None or limit >= total:  # version 1 writes "no limit" as a number close to 2**63
            continue
        inactive = int(fields(group / "memory.stat").get(inactive_name, "0"))
        total = limit
        available = min(available, max(0, limit - max(0, usage - inactive)))
    return MachineMemory(total, available)


def status(pid: int) -> dict[str, str]:
    """Return the entries of ``/proc/PID/status``."""
    return fields(f"/proc/{pid}/status")


def resident(pid: int) -> int:
    """Return the resident bytes of a process; memory shared with others is counted in full."""
    numbers = read(f"/proc/{pid}/statm").split()
    return int(numbers[1]) * _PAGE if numbers else 0


def proportional(pid: int) -> int | None:
    """Return the bytes of a process, shared pages divided among those that share them (PSS); slower than `resident`."""
    value = fields(f"/proc/{pid}/smaps_rollup").get("Pss")
    return int(value.split()[0]) * 1024 if value else None


def oom_kills() -> int:
    """Return how many processes the kernel has killed since boot because memory ran out."""
    return int(fields("/proc/vmstat").get("oom_kill", "0"))


def uptime() -> float:
    """Return the seconds since boot."""
    return float(read("/proc/uptime").split()[0])


def boot_id() -> str:
    """Return the identifier of this boot; empty if there is none."""
    return read("/proc/sys/kernel/random/boot_id").strip()


def listening_sockets(port: int) -> set[str]:
    """Return the sockets that listen on a TCP port, on any address of this machine, as `has_open` takes them."""
    found = set()
    for table in ("tcp", "tcp6"):
        for line in read(f"/proc/net/{table}").splitlines()[1:]:
            values = line.split()
            if values[3] == _LISTEN and int(values[1].rpartition(":")[2], 16) == port:
                found.add(f"socket:[{values[9]}]")
    return found


def has_open(pid: int, files: set[str]) -> bool:
    """Return whether a process has one of these files or sockets open; False for a process of another account."""
    with contextlib.suppress(OSError):
        folder = f"/proc/{pid}/fd"
        for name in os.listdir(folder):  # noqa: PTH208 - thousands of them
            with contextlib.suppress(OSError):
                if os.readlink(f"{folder}/{name}") in files:  # noqa: PTH115
                    return True
    return False
