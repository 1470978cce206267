"""What is kept on disk of workloads and their replicas, so that the next controller can take over.

One directory per workload, ``workload.json`` in it, and one directory per replica with ``record.json``, its log
and its own working directory. A record is replaced as a whole (written aside, flushed, renamed), so that a reader
finds the old one or the new one. The values of `ProcessTemplate.secret_env` are never in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from llmos_hub.names import ENV_INSTANCE
from llmos_hub.workload import Probe, ProcessTemplate, Role, WorkloadRef

__all__ = ["KnownTemplate", "Place", "ReplicaRecord", "WorkloadRecord", "boot_id", "load_workloads", "read_replica"]

log = logging.getLogger(__name__)

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    """A template and what is known of it.

    Attributes
    ----------
    template
        Without its secrets, if it was read from disk.
    hash
        Of the whole template, secrets included.
    complete
        Whether its secrets are all there.
    """

    template: ProcessTemplate
    hash: str
    complete: bool = True

    @classmethod
    def of(cls, template: ProcessTemplate) -> KnownTemplate:
        """One that was just handed over."""
        return cls(template, template.hash)

    def to_json(self) -> dict[str, Any]:
        """Without secrets."""
        content = asdict(replace(self.template, env=dict(self.template.env), secret_env={}))
        del content["secret_env"]
        return {**content, "hash": self.hash, "secrets": bool(self.template.secret_env) or not self.complete}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> KnownTemplate:
        """As written by `to_json`."""
        fields = dict(content)
        digest, secrets = fields.pop("hash"), fields.pop("secrets")
        fields["argv"] = tuple(fields["argv"])
        for probe in ("readiness", "liveness"):
            fields[probe] = Probe(**fields[probe]) if fields[probe] else None
        return cls(ProcessTemplate(**fields), digest, complete=not secrets)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a replica's files are.

    Attributes
    ----------
    directory
        Of the replica alone.
    socket
        In another directory, since its path must be short.
    """

    directory: Path
    socket: Path

    @classmethod
    def of(cls, workload: Path, runtime_dir: Path, replica: str) -> Place:
        """The place of that replica of that workload."""
        digest = hashlib.sha256(f"{workload.name}/{replica}".encode()).hexdigest()[:16]
        return cls(workload / replica, runtime_dir / f"{digest}.sock")

    @property
    def record(self) -> Path:
        """Written before it is started and again after."""
        return self.directory / "record.json"

    @property
    def log(self) -> Path:
        """Where it writes what it says, all its starts one after the other."""
        return self.directory / "log"

    @property
    def own(self) -> Path:
        """``{dir}``, its working directory."""
        return self.directory / "dir"

    @property
    def exit(self) -> Path:
        """Where a job's exit code is noted, also when no controller is there to be told."""
        return self.directory / "exit"


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """A replica as the next controller must know it.

    Attributes
    ----------
    attempt
        Which start this is, from 1 on. Written, with `pid` None, before the process is made.
    pid, start_time, boot
        The process (see `ProcessHandle`), and the boot in which that is its name.
    log_start
        Where in the log this start begins.
    phase
        Set when a job is over.
    """

    id: str
    role: str
    index: int
    attempt: int = 0
    restarts: int = 0
    endpoint: str | None = None
    pid: int | None = None
    start_time: int = 0
    boot: str = ""
    started_at: datetime | None = None
    ready_at: datetime | None = None
    log_start: int = 0
    phase: Literal["", "Succeeded", "Failed"] = ""
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    last_log_lines: tuple[str, ...] = ()

    def write(self, place: Place, known: KnownTemplate) -> None:
        """Put it on disk, with the template it was made of."""
        _replace_file(place.record, {"schema": _SCHEMA, **asdict(self), "template": known.to_json()})


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """A workload as it is wanted.

    Attributes
    ----------
    roles
        Name, count and template of each.
    serial
        The number of the newest replica; numbers are not used again.
    """

    ref: WorkloadRef
    labels: Mapping[str, str]
    roles: tuple[tuple[str, int, KnownTemplate], ...]
    serial: int = 0

    def same(self, roles: tuple[Role, ...], labels: Mapping[str, str]) -> bool:
        """Whether that is what is wanted already."""
        asked = [(role.name, role.count, role.template.hash) for role in roles]
        return asked == [(name, count, known.hash) for name, count, known in self.roles] and labels == self.labels

    def write(self, directory: Path) -> None:
        """Put it on disk."""
        roles = [{"name": name, "count": count, "template": known.to_json()} for name, count, known in self.roles]
        content = {"ref": asdict(self.ref), "labels": dict(self.labels), "roles": roles, "serial": self.serial}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace_file(directory / "workload.json", {"schema": _SCHEMA, **content})


def _replace_file(path: Path, content: Mapping[str, Any]) -> None:
    aside = path.with_suffix(".new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8") as file:  # noqa: PTH123 - by descriptor, for its mode
        json.dump(content, file, default=lambda value: value.isoformat())
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    """The content, or None where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s can't be read and is left out: %s", path, error)
        return None
    return content if isinstance(content, dict) and content.pop("schema", None) == _SCHEMA else None


def read_replica(directory: Path) -> tuple[ReplicaRecord, KnownTemplate] | None:
    """The record in a replica's directory, and the template it was made of."""
    content = _read(directory / "record.json")
    if content is None:
        return None
    try:
        known = KnownTemplate.from_json(content.pop("template"))
        for name in ("started_at", "ready_at"):
            content[name] = datetime.fromisoformat(content[name]) if content[name] else None
        content["last_log_lines"] = tuple(content["last_log_lines"])
        return ReplicaRecord(**content), known
    except (KeyError, TypeError, ValueError) as error:
        log.warning("The record in %s is not understood and is left out: %s", directory, error)
        return None


def load_workloads(directory: Path) -> dict[Path, WorkloadRecord]:
    """Every workload there is a record of, by its directory."""
    found = {}
    for entry in sorted(directory.iterdir()):
        content = _read(entry / "workload.json") if entry.is_dir() else None
        if content is None:
            continue
        try:
            roles = tuple((r["name"], r["count"], KnownTemplate.from_json(r["template"])) for r in content["roles"])
            found[entry] = WorkloadRecord(WorkloadRef(**content["ref"]), content["labels"], roles, content["serial"])
        except (KeyError, TypeError) as error:
            log.warning("The record in %s is not understood and is left out: %s", entry, error)
    return found


def boot_id() -> str:
    """A name for this boot of the machine and this platform.

    After another boot a pid means nothing, and in a copy of the data directory it is a process of the original's.
    """
    platform = os.environ.get(ENV_INSTANCE, "")
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        boot = ""
    return f"{boot}/{platform}"
