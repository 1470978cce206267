"""``llmos status``: the processes with start time and memory, also after the supervisor has died."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos import __version__, proc
from llmos.durations import duration
from llmos_hub.names import ENV_INSTANCE, DataDir
from llmos_hub.processes.handle import processes_with_environment
from llmos_hub.supervisor.console import size, tilde
from llmos_hub.supervisor.disk import free_space
from llmos_hub.supervisor.notebook import notebook_state
from llmos_hub.supervisor.state import ProcessRecord, StateFiles

__all__ = ["collect", "memory_of", "render", "status"]


def memory_of(pid: int) -> int:
    """Return the bytes of a process, with shared pages divided among processes where that can be read."""
    return proc.proportional(pid) or proc.resident(pid)


def _memory_by_session(instance: str, leaders: set[int]) -> dict[int, int]:
    """Return bytes by session, of every process that carries the platform's mark or is in a session of `leaders`."""
    # both, as a program may overwrite its environment with its title (Valkey does), and a process may leave its session
    pids = {handle.pid for handle in processes_with_environment(ENV_INSTANCE, instance)} if instance else set()
    pids |= {pid for pid in proc.pids() if proc.session(pid) in leaders}
    sessions: dict[int, int] = {}
    for pid in pids:
        session = proc.session(pid)
        sessions[session] = sessions.get(session, 0) + memory_of(pid)
    return sessions


def collect(data_dir: DataDir) -> dict[str, Any]:
    """Return the data of ``llmos status --json``."""
    files = StateFiles(data_dir)
    said = files.status()
    supervisor = files.supervisor()
    known = said.get("processes") or {}
    records = _records(files, said)
    sessions = _memory_by_session(files.mark, {record.pid for record in records.values()})
    now = time.time()
    processes = []
    for name in dict.fromkeys([*known, *records]):
        told, record = {"log": str(data_dir.logs / f"{name}.log"), **known.get(name, {})}, records.get(name)
        memory = sessions.pop(record.pid, 0) if record else 0
        processes.append(_process(name, told, record, supervised=supervisor is not None, memory=memory, now=now))
    own = memory_of(supervisor.pid) if supervisor else 0
    try:
        room = free_space(data_dir.root)
    except OSError:
        room = None
    return {
        "running": supervisor is not None,
        "version": said.get("version", "") if supervisor else __version__,
        "installedVersion": __version__,
        "dataDir": str(data_dir.root),
        "disk": {"free": room.free, "inodes": room.inodes, "full": room.below(), "room": str(room)} if room else None,
        "url": said.get("url"),
        "gateway": said.get("gateway"),
        "supervisor": {
            "pid": supervisor.pid if supervisor else None,
            # not the process's own age: `make up` sets up first and becomes the supervisor
            "seconds": round(now - said["supervisor"].get("since", now)) if supervisor else None,
            "memory": own,
        },
        "processes": processes,
        "notebooks": notebook_state(),
        "others": {"sessions": len(sessions), "memory": sum(sessions.values())},
        "memory": own + sum(p["memory"] for p in processes) + sum(sessions.values()),
    }


def _records(files: StateFiles, said: Mapping[str, Any]) -> dict[str, ProcessRecord]:
    """Return the records of all processes that run; if a full disk has kept one from being written, from the status."""
    records = files.records()
    if said.get("instance") != files.mark:  # that of the original of a copy
        return records
    for name, told in said["processes"].items():
        if name not in records and told["pid"] is not None:
            record = ProcessRecord(told["pid"], told["start_time"], "", told["since"], files.mark)
            if record.handle.alive:
                records[name] = record
    return records


def _process(
    name: str, told: dict[str, Any], record: ProcessRecord | None, *, supervised: bool, memory: int, now: float
) -> dict[str, Any]:
    """Return the data of one process, from what the supervisor wrote last (`told`) and the record of a running one."""
    # without a supervisor only the record is known: the process runs or it doesn't
    state = told.get("state", "Running") if supervised else ("Running" if record else "Stopped")
    if state == "Ready" and not record:  # it has died since that was written
        state = "Stopped"
    return {
        "name": name,
        "state": state,
        "reason": told.get("reason", ""),
        "pid": record.pid if record else None,
        "seconds": round(now - record.since) if record else None,
        "memory": memory,
        "restarts": told.get("restarts", 0),
        "log": told["log"],
    }


def where_to_look(environment: Mapping[str, str]) -> str:
    """Return what to do where no platform runs: start one, or in a notebook server, whose platform runs, name its place."""
    if environment.get("JUPYTERHUB_SERVICE_PREFIX"):
        return "The platform of this notebook server has its data elsewhere: say where with --data-dir DIR"
    return "Start it: llmos up, or say where it is: --data-dir DIR"


def render(found: dict[str, Any]) -> str:
    """Return the status as text."""
    supervisor, processes = found["supervisor"], found["processes"]
    alive = [p for p in processes if p["pid"]]
    root = tilde(Path(found["dataDir"]))
    if not found["running"] and not alive:
        return f"LLMOS does not run in {root}. {where_to_look(os.environ)}\n"
    lines = []
    if found["running"]:
        lines.append(f"LLMOS {found['version']} at {found['url']}, models at {found['gateway']}")
        if found["version"] != found["installedVersion"]:
            lines.append(f"Installed is {found['installedVersion']}; it is used after llmos down and llmos up.")
        lines.append(f"up {duration(supervisor['seconds'])}, {size(found['memory'])} of memory, state in {root}")
    else:
        lines.append(
            f"The supervisor in {root} is dead; the processes that it started continue. Take them over: llmos up. Stop it: llmos down"
        )
    if found["disk"] and found["disk"]["full"]:
        lines.append(
            f"The disk of {root} is nearly full ({found['disk']['room']}): nothing more is saved until there is room on it."
        )
    rows = [("NAME", "STATE", "SINCE", "MEMORY", "RESTARTS", "LOG")]
    if found["running"]:
        rows.append(("supervisor", "Ready", duration(supervisor["seconds"]), size(supervisor["memory"]), "-", "-"))
    for process in processes:
        state = f"{process['state']} ({process['reason']})" if process["reason"] else process["state"]
        since = duration(process["seconds"]) if process["seconds"] is not None else "-"
        memory = size(process["memory"]) if process["pid"] else "-"
        rows.append((process["name"], state, since, memory, str(process["restarts"]), tilde(Path(process["log"]))))
    others = found["others"]
    if others["sessions"]:
        rows.append((f"servers, models: {others['sessions']}", "Running", "", size(others["memory"]), "", ""))
    if found["notebooks"]:
        lines.append(f"notebooks: {found['notebooks']}")
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines.append("")
    lines += [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip()
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def status(data_dir: DataDir, *, as_json: bool) -> int:
    """Print the status; return exit code 1 if no supervisor runs."""
    found = collect(data_dir)
    sys.stdout.write(json.dumps(found, indent=2) + "\n" if as_json else render(found))
    return 0 if found["running"] else 1
