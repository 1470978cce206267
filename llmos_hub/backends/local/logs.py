"""Logs of workloads: those of all their replicas, also from processes other than the backend's."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from llmos.errors import NotFound
from llmos_hub.backends.local.records import read_replica
from llmos_hub.processes.logs import LogFollower
from llmos_hub.workload import WorkloadRef

__all__ = ["read_logs"]

_POLL: Final = 0.1
"""Seconds between checks for new lines; polling works on every file system."""
_REPLICA: Final = re.compile(r"^(.+)-(\d+)-(\d+)$")


def _replicas(workload: Path, replica: str | None) -> list[Path]:
    """Return the directories of existing replicas, in order of role, index and age."""
    found: list[tuple[str, int, int, Path]] = []
    with contextlib.suppress(OSError):
        for entry in workload.iterdir():
            name = _REPLICA.match(entry.name)
            if name and replica in {None, entry.name}:
                found.append((name[1], int(name[2]), int(name[3]), entry))
    return [entry for *_, entry in sorted(found)]


def _over(workload: Path, replica: str | None) -> bool:
    """Return whether nothing more will be written, since all replicas are gone or finished jobs."""
    if not (workload / "workload.json").exists():
        return True
    replicas = _replicas(workload, replica)
    records = (read_replica(path) for path in replicas)
    return all(record is not None and record[0].phase for record in records) and bool(replicas or replica)


def _poll(workload: Path, replica: str | None, files: dict[Path, LogFollower]) -> tuple[list[str], bool, bool]:
    """Return new lines, whether there were none, and whether nothing more will be written."""
    over = _over(workload, replica)
    for path in _replicas(workload, replica):
        if path not in files:
            files[path] = LogFollower(path / "log")
    lines: list[str] = []
    quiet = True
    for file in files.values():
        new = file.read()
        if new is not None:
            quiet = False
            lines += new
    return lines, quiet, over


async def read_logs(
    directory: Path, ref: WorkloadRef, *, replica: str | None = None, tail: int | None = 200, follow: bool = False
) -> AsyncIterator[str]:
    """Yield lines of the logs in a local backend's `directory`; see `Backend.logs`.

    Parameters
    ----------
    replica
        The id of a replica; None: all.
    tail
        Number of last lines of each; None: all (up to two files of `Options.log_bytes`).
    follow
        True to continue with new lines until the replicas are gone or finished.
    """
    workload = directory / ref.id
    if not await asyncio.to_thread((workload / "workload.json").exists):
        raise NotFound(f"There is no log of {ref.name}: it was never started here, or it was deleted.")
    found = await asyncio.to_thread(_replicas, workload, replica)
    if replica is not None and not found:
        there = ", ".join(path.name for path in _replicas(workload, None)) or "none"
        raise NotFound(f'{ref.name} has no replica "{replica}". There are: {there}.')
    files = {path: LogFollower(path / "log") for path in found}
    try:
        for file in files.values():
            await asyncio.to_thread(file.begin, tail)
            while file.pending:
                for line in await asyncio.to_thread(file.read) or ():
                    yield line
            if not follow:
                for line in file.end():
                    yield line
        while follow:
            lines, quiet, over = await asyncio.to_thread(_poll, workload, replica, files)
            for line in lines:
                yield line
            if quiet and over:
                break
            if quiet:
                await asyncio.sleep(_POLL)
        for file in files.values() if follow else ():
            for line in file.end():
                yield line
    finally:
        for file in files.values():
            file.end()
