"""Finds what an earlier controller left: replicas that run, that died meanwhile, and processes nobody knows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
from pathlib import Path

from llmos_hub.backends.local.deployment import Deployment
from llmos_hub.backends.local.process import Running
from llmos_hub.backends.local.records import KnownTemplate, Place, ReplicaRecord, boot_id, read_replica
from llmos_hub.backends.local.replica import Replica
from llmos_hub.processes import ProcessHandle

__all__ = ["Found", "adopt", "clear_sockets", "kill_strangers"]

log = logging.getLogger(__name__)

Found = dict[str, list[ProcessHandle]]
"""Processes by their ``LLMOS_REPLICA``; what is taken over is taken out."""


def _recorded(record: ReplicaRecord, boot: str) -> ProcessHandle | None:
    """The process that the record names, if it runs."""
    if record.pid is None or record.boot != boot:
        return None
    handle = ProcessHandle(record.pid, record.start_time)
    return handle if handle.alive else None


def _leader(handles: list[ProcessHandle]) -> ProcessHandle | None:
    """The one that leads their session: it is the one that was started."""
    for handle in handles:
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(handle.pid) == handle.pid:
                return handle
    return None


def _read(deployment: Deployment) -> list[tuple[Path, ReplicaRecord, KnownTemplate]]:
    """The replicas there are records of; directories without one are removed, since nothing runs from them."""
    found = []
    for entry in sorted(deployment.directory.iterdir()):
        if not entry.is_dir():
            continue
        record = read_replica(entry)
        if record is None:
            shutil.rmtree(entry, ignore_errors=True)
        else:
            found.append((entry, *record))
    return found


async def adopt(deployment: Deployment, runtime_dir: Path, found: Found) -> None:
    """Take charge of a workload's replicas.

    A replica is known by pid and start time. Where the earlier controller was killed between starting it and
    writing that down, the record has only the intention, and the process is found by its environment.
    """
    boot = boot_id()
    for entry, record, known in await asyncio.to_thread(_read, deployment):
        place = Place.of(deployment.directory, runtime_dir, entry.name)
        marker = f"{deployment.marker}{record.id}/{record.attempt}"
        handle = _recorded(record, boot)
        marked = found.pop(marker, [])
        if handle is None and record.pid is None:
            handle = _leader(marked)
        if handle is None:
            _kill(marked)
            if record.pid is not None and not record.phase:
                log.info("%s of %s ended while no controller was there", record.id, deployment.name)
        process = None
        if handle is not None:
            note = place.exit if known.template.completes else None
            process = Running(handle, marker=marker, note_exit=note)
            log.info("%s of %s still runs (pid %d)", record.id, deployment.name, handle.pid)
        deployment.adopt(Replica(record, known, place, deployment, process))


def _kill(handles: list[ProcessHandle]) -> None:
    for handle in handles:
        handle.send(signal.SIGKILL)


async def kill_strangers(found: Found) -> None:
    """Kill the processes that carry our marker and that no record knows."""
    for marker, handles in found.items():
        log.warning("Killing a process that no record knows: %s, pid %d", marker, handles[0].pid)
        _kill(handles)
    await asyncio.gather(*(handle.wait(5.0) for handles in found.values() for handle in handles))


def clear_sockets(runtime_dir: Path, used: set[Path]) -> None:
    """Remove sockets that no replica has."""
    for path in runtime_dir.glob("*.sock"):
        if path not in used:
            path.unlink(missing_ok=True)
