"""A made-up kind, all that it needs in `llmos.resources`: it holds data, and two roles of processes guard it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from llmos.resources.base import Condition, Meaning, Model, ObjectMeta, Resource, Unit, Usage
from llmos.resources.workload import ReplicaStatus, Resources, usage_of


class CrateSpec(Model):
    """The desired state of a crate."""

    size: Annotated[int, Unit("bytes")] = 2**20
    """Size in bytes."""
    replicas: int = Field(default=1, ge=0)
    """Number of guards, beside the head."""
    paused: bool = False
    """True to keep the crate without processes."""


class CrateStatus(Model):
    """The observed state of a crate."""

    phase: Literal["Packing", "Stored", "Closed", "Broken"] = "Packing"
    """Summary of the status in one word."""
    message: str = ""
    """Reason for the phase."""
    observed_generation: int = 0
    """Generation of ``spec`` that this status refers to."""
    conditions: list[Condition] = Field(default_factory=list)
    """The condition Ready."""
    replicas: int = 0
    """Number of guards."""
    replica_statuses: list[ReplicaStatus] = Field(default_factory=list)
    """Status of each process."""


class Crate(Resource):
    """A crate with data in it."""

    plural: ClassVar[str] = "crates"
    singular: ClassVar[str] = "crate"
    short_names: ClassVar[tuple[str, ...]] = ("cr",)
    columns: ClassVar[tuple[tuple[str, str], ...]] = (("SIZE", "spec.size"), ("STATE", "status.phase"))
    has_logs: ClassVar[bool] = True
    log_parts: ClassVar[tuple[str, ...]] = ("guard",)
    scalable: ClassVar[bool] = True
    pausable: ClassVar[bool] = True
    holds_data: ClassVar[bool] = True
    finalizer: ClassVar[str] = "llmos.ai/crate"
    phases: ClassVar[Mapping[str, Meaning]] = {
        "Packing": "working",
        "Stored": "ready",
        "Closed": "stopped",
        "Broken": "failed",
    }

    kind: Literal["Crate"] = "Crate"
    metadata: ObjectMeta
    spec: CrateSpec = Field(default_factory=CrateSpec)
    status: CrateStatus = Field(default_factory=CrateStatus)

    def usage(self) -> Usage | None:
        """Return what its guards use."""
        return usage_of(Resources(), self.status.replica_statuses)
