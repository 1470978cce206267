"""Detection of the machine's resources, as far as this process may use them.

Containers are considered: CPU affinity, and CPU quota and memory limit of the control groups (v1 and v2), limit what
the hardware has. GPUs are read from the NVIDIA driver's files, without starting a process.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from llmos.proc import control_groups, machine_memory, read
from llmos_hub.engines.base import Machine

__all__ = ["detect"]


def detect(root: Path = Path("/")) -> Machine:
    """Return the machine's resources.

    Parameters
    ----------
    root
        The directory with ``proc`` and ``sys``; another one in tests.
    """
    quota = min((q for q in map(_cpu_quota, control_groups(root)) if q is not None), default=None)
    affinity = len(os.sched_getaffinity(0))
    cpus = affinity if quota is None else min(affinity, max(1, int(quota + 0.999)))
    return Machine(cpus=cpus, memory=machine_memory(root).total, gpus=tuple(_gpus(root)))


def _cpu_quota(group: Path) -> float | None:
    """Return the number of CPUs that a group may use on average; None without a quota."""
    if limit := read(group / "cpu.max").strip():
        quota, _, period = limit.partition(" ")
    else:
        quota, period = (read(group / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if not quota.isdigit() or not period.isdigit() or int(period) == 0:
        return None  # "max", -1 or nothing: no quota
    return int(quota) / int(period)


def _gpus(root: Path) -> Iterator[str]:
    """Yield the names of the GPUs that the NVIDIA driver lists."""
    folder = root / "proc/driver/nvidia/gpus"
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for entry in entries:
        found = re.search(r"^Model:\s*(.+)$", read(entry / "information"), re.MULTILINE)
        yield found[1].strip() if found else "NVIDIA GPU"
