"""Volume: a directory for data that outlives what works on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from llmos.names import STORAGE_FINALIZER
from llmos.resources import cel
from llmos.resources.base import Condition, Meaning, Model, Name, ObjectMeta, Resource, Timestamp, Unit
from llmos.resources.quantities import Storage, parse_quantity

__all__ = ["AccessMode", "Volume", "VolumePhase", "VolumeRestore", "VolumeSource", "VolumeSpec", "VolumeStatus"]

AccessMode = Literal["ReadWriteOnce", "ReadWriteMany"]
_ONE_SOURCE = "either snapshot or volume is needed, and only one of them"
VolumePhase = Literal["Pending", "Copying", "Ready", "Full", "Degraded", "Deleted", "Failed"]


class VolumeSource(Model):
    """The snapshot or the other volume that a new volume is a copy of."""

    model_config = ConfigDict(
        json_schema_extra=cel.validations(cel.rule("has(self.snapshot) != has(self.volume)", _ONE_SOURCE))
    )

    snapshot: Name | None = None
    """Snapshot in the same namespace."""
    volume: Name | None = None
    """Volume in the same namespace."""

    @model_validator(mode="after")
    def _check_one(self) -> VolumeSource:
        if (self.snapshot is None) == (self.volume is None):
            raise ValueError(_ONE_SOURCE)
        return self


class VolumeRestore(Model):
    """A request to put what a snapshot holds into the place of what the volume holds."""

    snapshot: Name
    """Snapshot in the same namespace."""
    request: Annotated[str, Field(min_length=1, max_length=63)]
    """Any text; another one restores again."""


class VolumeSpec(Model):
    """The desired state of a volume."""

    model_config = ConfigDict(
        json_schema_extra=cel.validations(
            cel.rule(
                "!quantity(string(self.size)).isLessThan(quantity(string(oldSelf.size)))",
                says="'%s is less than the %s that the volume has. A volume can grow, never shrink.'"
                ".format([string(self.size), string(oldSelf.size)])",
                field=".size",
            ),
            cel.rule("self.accessMode == oldSelf.accessMode", "it can't be changed", field=".accessMode"),
            cel.rule(
                "has(self.storageClass) == has(oldSelf.storageClass) && "
                "(!has(self.storageClass) || self.storageClass == oldSelf.storageClass)",
                "it can't be changed",
                field=".storageClass",
            ),
        )
    )

    size: Storage
    """Size in bytes. It can grow, never shrink. On a workstation nothing is set aside and nothing stops at the size: the
    space in use is measured, and the status says when it is more."""
    access_mode: AccessMode = "ReadWriteOnce"
    """``ReadWriteOnce``: one node mounts it at a time; ``ReadWriteMany``: several do, if the storage class can. It can't
    be changed, and has no meaning on a workstation."""
    storage_class: Name | None = None
    """Storage class, on a cluster; by default the cluster's own default. It can't be changed."""
    source: VolumeSource | None = None
    """The source of a new volume; by default it is empty. It has no effect later."""
    restore: VolumeRestore | None = None
    """A request to go back to a snapshot. All files that the volume holds now are replaced."""
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
    restored: str = ""
    """The ``request`` of ``spec.restore`` that was carried out last."""
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
    finalizer: ClassVar[str] = STORAGE_FINALIZER
    undo: ClassVar[str] = "volume undelete {name}"
    phases: ClassVar[Mapping[str, Meaning]] = {
        "Pending": "working",
        "Copying": "working",
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
    def uses(self) -> Sequence[tuple[str, str]]:
        """The source that it is being filled from."""
        found = []
        if self.spec.source is not None and self.status.capacity is None:
            source = self.spec.source
            found.append(("Snapshot", source.snapshot) if source.snapshot else ("Volume", source.volume or ""))
        if self.restores:
            assert self.spec.restore is not None, "it asks for it"
            found.append(("Snapshot", self.spec.restore.snapshot))
        return found

    @property
    def restores(self) -> bool:
        """True if a restore is asked for that wasn't carried out yet."""
        return self.spec.restore is not None and self.spec.restore.request != self.status.restored

    @property
    def rests_until(self) -> datetime | None:
        """The time until which its deletion can be undone; None if it isn't deleted."""
        return self.spec.delete_at
