"""Records of workloads and their replicas on disk, from which the next controller continues.

There is a directory per workload with ``workload.json``, and in it a directory per replica with ``record.json``, its
log and its working directory. A record is replaced atomically (written to another file, flushed, renamed), so that a
reader finds the old or the new one. The values of `ProcessTemplate.secret_env` are never written.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from llmos import proc
from llmos.files import write_private
from llmos_hub.names import ENV_INSTANCE
from llmos_hub.workload import Mount, Probe, ProcessTemplate, Role, WorkloadRef

__all__ = [
    "KnownTemplate",
    "ReplicaPaths",
    "ReplicaRecord",
    "RoleRecord",
    "WorkloadRecord",
    "boot_id",
    "load_workloads",
    "read_replica",
]

log = logging.getLogger(__name__)

_SCHEMA = 1


@dataclass(frozen=True, slots=True)
class KnownTemplate:
    """A template with its hash, possibly without its secrets.

    Attributes
    ----------
    template
        The template; without its secrets if it was read from disk.
    hash
        The hash of the whole template, including secrets.
    complete
        True if it has all its secrets.
    """

    template: ProcessTemplate
    hash: str
    complete: bool = True

    @classmethod
    def of(cls, template: ProcessTemplate) -> KnownTemplate:
        """Return the object for a complete template."""
        return cls(template, template.hash)

    def to_json(self) -> dict[str, Any]:
        """Return the data for a record, without secrets."""
        content = replace(self.template, env=dict(self.template.env), secret_env={}).content()
        del content["secret_env"]
        return {**content, "hash": self.hash, "secrets": bool(self.template.secret_env) or not self.complete}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> KnownTemplate:
        """Return the object from data of `to_json`."""
        fields = dict(content)
        digest, secrets = fields.pop("hash"), fields.pop("secrets")
        fields["argv"] = tuple(fields["argv"])
        for probe in ("readiness", "liveness"):
            fields[probe] = Probe(**fields[probe]) if fields[probe] else None
        fields["mounts"] = {name: Mount(**mount) for name, mount in fields.get("mounts", {}).items()}
        return cls(ProcessTemplate(**fields), digest, complete=not secrets)


@dataclass(frozen=True, slots=True)
class ReplicaPaths:
    """The paths of a replica's files.

    Attributes
    ----------
    directory
        The replica's own directory.
    socket
        The socket, in another directory, since its path must be short.
    exit
        The file to which a job's exit code is written, also while no controller runs.
    """

    directory: Path
    socket: Path
    exit: Path

    @classmethod
    def of(cls, workload: Path, runtime_dir: Path, replica: str, *, user: str = "") -> ReplicaPaths:
        """Return the paths of a replica in the directory of its workload.

        If it runs as another user, it writes the socket and the exit code into directories that belong to the user.
        """
        digest = hashlib.sha256(f"{workload.name}/{replica}".encode()).hexdigest()[:16]
        directory = workload / replica
        if user:
            return cls(directory, runtime_dir / digest / "sock", directory / "dir" / ".exit")
        return cls(directory, runtime_dir / f"{digest}.sock", directory / "exit")

    @property
    def record(self) -> Path:
        """The record, which is written before the replica is started and again after it."""
        return self.directory / "record.json"

    @property
    def log(self) -> Path:
        """The log of its output, of all starts in turn."""
        return self.directory / "log"

    @property
    def own(self) -> Path:
        """Its working directory, ``{dir}``."""
        return self.directory / "dir"


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """The record of a replica for the next controller.

    Attributes
    ----------
    attempt
        The number of this start, from 1 on. It is written with `pid` None before the process is started.
    pid, start_time, boot
        The process (see `ProcessHandle`), and the boot in which pid and start time are valid.
    log_start
        The position in the log where this start begins.
    phase
        The final phase of a finished job; otherwise empty.
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

    def write(self, paths: ReplicaPaths, known: KnownTemplate) -> None:
        """Write it to disk, with the replica's template."""
        _write(paths.record, {"schema": _SCHEMA, **asdict(self), "template": known.to_json()})


@dataclass(frozen=True, slots=True)
class RoleRecord:
    """A role with a template whose secrets may be unknown; see `Role`."""

    name: str
    count: int
    known: KnownTemplate
    after: tuple[str, ...] = ()

    @classmethod
    def of(cls, role: Role) -> RoleRecord:
        """Return the record of a role."""
        return cls(role.name, role.count, KnownTemplate.of(role.template), role.after)

    def to_json(self) -> dict[str, Any]:
        """Return the data for a record, without secrets."""
        content = {"name": self.name, "count": self.count, "template": self.known.to_json()}
        return {**content, "after": self.after} if self.after else content

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RoleRecord:
        """Return the object from data of `to_json`."""
        known = KnownTemplate.from_json(content["template"])
        return cls(content["name"], content["count"], known, tuple(content.get("after", ())))

    def same(self, other: RoleRecord) -> bool:
        """Return whether it is the same, secrets apart: their hash is compared."""
        return replace(self, known=other.known) == other and self.known.hash == other.known.hash


@dataclass(frozen=True, slots=True)
class WorkloadRecord:
    """The record of a workload's desired state.

    Attributes
    ----------
    serial
        The number of the newest replica; numbers are not reused.
    ports
        The named ports of each role's replicas, by role and index, such as ``head-0``. They are not those of a
        replica's record, so that a replica and its successor have the same.
    """

    ref: WorkloadRef
    labels: Mapping[str, str]
    roles: tuple[RoleRecord, ...]
    serial: int = 0
    ports: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def same(self, roles: tuple[RoleRecord, ...], labels: Mapping[str, str]) -> bool:
        """Return whether that is the desired state already."""
        same = len(roles) == len(self.roles) and all(map(RoleRecord.same, self.roles, roles))
        return same and labels == self.labels

    def write(self, directory: Path) -> None:
        """Write it to disk."""
        roles = [role.to_json() for role in self.roles]
        content = {"ref": asdict(self.ref), "labels": dict(self.labels), "roles": roles, "serial": self.serial}
        content |= {"ports": self.ports} if self.ports else {}
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(directory / "workload.json", {"schema": _SCHEMA, **content})


def _write(path: Path, content: Mapping[str, Any]) -> None:
    write_private(path, json.dumps(content, default=lambda value: value.isoformat()))


def _read(path: Path) -> dict[str, Any] | None:
    """Return the content of a record; None if it doesn't exist or can't be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("%s can't be read and is left out: %s", path, error)
        return None
    return content if isinstance(content, dict) and content.pop("schema", None) == _SCHEMA else None


def read_replica(directory: Path) -> tuple[ReplicaRecord, KnownTemplate] | None:
    """Return the record in a replica's directory, and the replica's template; None if it can't be read."""
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
    """Return all recorded workloads by directory."""
    found = {}
    for entry in sorted(directory.iterdir()):
        content = _read(entry / "workload.json") if entry.is_dir() else None
        if content is None:
            continue
        try:
            roles = tuple(map(RoleRecord.from_json, content["roles"]))
            ref, ports = WorkloadRef(**content["ref"]), content.get("ports", {})
            found[entry] = WorkloadRecord(ref, content["labels"], roles, content["serial"], ports)
        except (KeyError, TypeError) as error:
            log.warning("The record in %s is not understood and is left out: %s", entry, error)
    return found


def boot_id() -> str:
    """Return an identifier of this boot of the machine and this platform.

    After another boot a pid is meaningless, and in a copy of the data directory it is the original platform's.
    """
    platform = os.environ.get(ENV_INSTANCE, "")
    return f"{proc.boot_id()}/{platform}"
