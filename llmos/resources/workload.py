"""Parts of a spec and status that kinds with processes have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from llmos.resources.base import Model, Timestamp, Unit, Usage
from llmos.resources.quantities import CPU, Memory, parse_quantity

__all__ = ["DownloadProgress", "Endpoint", "ReplicaStatus", "Resources", "usage_of"]


class Resources(Model):
    """The resources of each replica."""

    cpu: CPU | None = None
    """CPUs per replica; by default all of the machine's. Also sets the engine's number of threads, if it has one."""
    memory: Memory | None = None
    """The most memory a replica may use, in bytes; a replica that exceeds it is stopped and the reason is shown. By
    default twice the estimate from the model's header."""
    gpus: int = Field(default=0, ge=0, le=64)
    """GPUs per replica, for its exclusive use."""
    gpu_type: str | None = Field(default=None, max_length=63)
    """Type of GPU, as ``llmos nodes`` shows it; by default any."""

    @property
    def cpus(self) -> float | None:
        """The number of CPUs; None if not given."""
        return float(parse_quantity(self.cpu)) if self.cpu else None

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes; None if not given."""
        return int(parse_quantity(self.memory)) if self.memory else None


class ReplicaStatus(Model):
    """The status of one process or pod."""

    id: str
    """Id that is unique during the service's life."""
    phase: Literal["Starting", "Ready", "NotReady", "Waiting", "Failed", "Stopping"]
    """Phase of the replica; ``Waiting`` means that it will be restarted after a crash."""
    restarts: int = 0
    """Number of restarts after crashes."""
    memory: Annotated[int | None, Unit("bytes")] = None
    """Memory in use, in bytes."""
    memory_limit: Annotated[int | None, Unit("bytes")] = None
    """Memory limit in bytes."""
    started_at: Timestamp | None = None
    """Time when the process was started."""
    message: str = ""
    """Reason why the replica is not ready."""


class DownloadProgress(Model):
    """The progress of a download."""

    file: str = ""
    """File being downloaded."""
    done: int = 0
    """Bytes downloaded."""
    total: int | None = None
    """Size in bytes, if known."""
    rate: float | None = None
    """Bytes per second, over the last seconds."""


class Endpoint(Model):
    """The address at which the gateway reaches a replica; not usable from elsewhere."""

    replica: str
    """Id of the replica."""
    url: str
    """``unix:///path/to.sock`` or ``http://127.0.0.1:PORT``."""


def usage_of(each: Resources, replicas: Sequence[ReplicaStatus]) -> Usage | None:
    """Return what replicas use of which each has the same resources; None if there are no replicas."""
    if not replicas:
        return None
    return Usage(
        cpus=float(parse_quantity(each.cpu)) * len(replicas) if each.cpu else 0.0,
        memory=sum(replica.memory or 0 for replica in replicas),
        gpus=each.gpus * len(replicas),
    )
