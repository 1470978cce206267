"""Adoption of what an earlier controller left: running and ended replicas, and unknown processes."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
from pathlib import Path

from llmos import proc
from llmos_hub.backends.local.deployment import Deployment
from llmos_hub.backends.local.process import ENV_REPLICA
from llmos_hub.backends.local.records import KnownTemplate, ReplicaPaths, ReplicaRecord, boot_id, read_replica
from llmos_hub.backends.local.replica import Replica, remove_socket
from llmos_hub.processes.handle import ProcessHandle, end_all
from llmos_hub.processes.running import Running

__all__ = ["Found", "adopt", "clear_sockets", "kill_strangers"]

log = logging.getLogger(__name__)

Found = dict[str, list[ProcessHandle]]
"""Processes by their ``LLMOS_REPLICA``; those that are adopted are removed from it."""


def _recorded(record: ReplicaRecord, boot: str) -> ProcessHandle | None:
    """Return the process in the record if it is running."""
    if record.pid is None or record.boot != boot:
        return None
    handle = ProcessHandle(record.pid, record.start_time)
    return handle if handle.alive else None


def _leader(handles: list[ProcessHandle]) -> ProcessHandle | None:
    """Return the process that leads the session: that is the one that was started."""
    return next((handle for handle in handles if proc.session(handle.pid) == handle.pid), None)


def _read(deployment: Deployment) -> list[tuple[Path, ReplicaRecord, KnownTemplate]]:
    """Return the recorded replicas; remove directories without a record, since no process was started from them."""
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
    """Adopt a workload's replicas.

    A replica is identified by pid and start time. If the earlier controller was killed after it started the process
    and before it recorded that, the process is found by its environment.
    """
    boot = boot_id()
    for entry, record, known in await asyncio.to_thread(_read, deployment):
        paths = ReplicaPaths.of(deployment.directory, runtime_dir, entry.name, user=known.template.user)
        marker = f"{deployment.marker}{record.id}/{record.attempt}"
        handle = _recorded(record, boot)
        marked = found.pop(marker, [])
        if handle is None and record.pid is None:
            handle = _leader(marked)
        if handle is None:
            for stray in marked:
                stray.send(signal.SIGKILL)
            if record.pid is not None and not record.phase:
                log.info("%s of %s ended while no controller was there", record.id, deployment.name)
        process = None
        if handle is not None:
            note = paths.exit if known.template.completes else None
            process = Running(handle, mark=(ENV_REPLICA, marker), note_exit=note)
            log.info("%s of %s still runs (pid %d)", record.id, deployment.name, handle.pid)
        deployment.adopt(Replica(record, known, paths, deployment, process))


async def kill_strangers(found: Found) -> None:
    """Kill the processes that have the backend's marker but are in no record."""
    for marker, handles in found.items():
        log.warning("Killing a process that no record knows: %s, pid %d", marker, handles[0].pid)
    strangers = [handle for handles in found.values() for handle in handles]
    await asyncio.to_thread(end_all, strangers, signal.SIGKILL, 5.0)


def clear_sockets(runtime_dir: Path, used: set[Path]) -> None:
    """Remove sockets that no replica uses."""
    for path in (*runtime_dir.glob("*.sock"), *runtime_dir.glob("*/sock")):
        if path not in used:
            remove_socket(path)
