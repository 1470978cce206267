"""Volume: a directory for data that outlives what works on it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from llmos.resources import cel
from llmos.resources.base import Condition, Meaning, Model, ObjectMeta, Resource, Timestamp, Unit
from llmos.resources.quantities import Storage, parse_quantity

__all__ = ["Volume", "VolumePhase", "VolumeSpec", "VolumeStatus"]

VolumePhase = Literal["Pending", "Ready", "Full", "Degraded", "Deleted", "Failed"]


class VolumeSpec(Model):
    """The desired state of a volume."""

    model_config = ConfigDict(
        json_schema_extra=cel.validations(
            cel.rule(
                "!quantity(string(self.size)).isLessThan(quantity(string(oldSelf.size)))",
                says="'%s is less than the %s that the volume has. A volume can grow, never shrink.'"
                ".format([string(self.size), string(oldSelf.size)])",
                field=".size",
            )
        )
    )

    size: Storage
    """Size in bytes. It can grow, never shrink. On a workstation nothing is set aside and nothing stops at the size: the
    space in use is measured, and the status says when it is more."""
    delete_at: Annotated[Timestamp | None, Unit("wait")] = None
    """Time at which the volume is deleted with all its files; set by a deletion, unset by ``llmos volume undelete``. Until
    then nothing can use the volume, and its files stay."""

    @property
    def size_bytes(self) -> int:
        """The size in bytes."""
        return int(parse_quantity(self.size))


class VolumeStatus(Model):
    """The observed state of a volume."""

    phase: VolumePhase = "Pending"
    """Summary of the status in one word."""
    message: str = ""
    """Reason for the phase, as a sentence."""
    observed_generation: int = 0
    """Generation of ``spec`` that this status refers to."""
    conditions: list[Condition] = Field(default_factory=list)
    """The condition Ready with its reason."""
    capacity: Annotated[int | None, Unit("bytes")] = None
    """Size in bytes that the volume has; unset until it exists."""
    used: Annotated[int | None, Unit("bytes")] = None
    """Bytes in use, as last measured."""
    measured_at: Annotated[Timestamp | None, Unit("age")] = None
    """Time of the measurement at which ``used`` last changed."""


class Volume(Resource):
    """A directory for data that outlives what works on it."""

    plural: ClassVar[str] = "volumes"
    singular: ClassVar[str] = "volume"
    short_names: ClassVar[tuple[str, ...]] = ("vol",)
    holds_data: ClassVar[bool] = True
    has_files: ClassVar[bool] = True
    finalizer: ClassVar[str] = "llmos.ai/volume"
    undo: ClassVar[str] = "volume undelete {name}"
    phases: ClassVar[Mapping[str, Meaning]] = {
        "Pending": "working",
        "Ready": "ready",
        "Full": "degraded",
        "Degraded": "degraded",
        "Deleted": "stopped",
        "Failed": "failed",
    }
    refusals: ClassVar[frozenset[str]] = frozenset({"Full", "InsufficientStorage"})
    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("SIZE", "spec.size"),
        ("USED", "status.used"),
        ("STATE", "status.phase"),
    )

    kind: Literal["Volume"] = "Volume"
    metadata: ObjectMeta
    spec: VolumeSpec
    status: VolumeStatus = Field(default_factory=VolumeStatus)

    @property
    def rests_until(self) -> datetime | None:
        """The time until which its deletion can be undone; None if it isn't deleted."""
        return self.spec.delete_at
