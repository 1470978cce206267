"""Snapshot: what a volume held at one time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from llmos.names import STORAGE_FINALIZER
from llmos.resources import cel
from llmos.resources.base import Condition, Meaning, Model, Name, ObjectMeta, Resource, Timestamp, Unit

__all__ = ["Snapshot", "SnapshotPhase", "SnapshotSpec", "SnapshotStatus"]

SnapshotPhase = Literal["Pending", "Copying", "Ready", "Failed"]


class SnapshotSpec(Model):
    """The desired state of a snapshot."""

    model_config = ConfigDict(
        json_schema_extra=cel.validations(
            cel.rule("self.volume == oldSelf.volume", "it can't be changed: make another snapshot", field=".volume")
        )
    )

    volume: Name
    """Volume in the same namespace of which it is; it can't be changed."""


class SnapshotStatus(Model):
    """The observed state of a snapshot."""

    phase: SnapshotPhase = "Pending"
    """Summary of the status in one word."""
    message: str = ""
    """Reason for the phase, as a sentence."""
    observed_generation: int = 0
    """Generation of ``spec`` that this status refers to."""
    conditions: list[Condition] = Field(default_factory=list)
    """The condition Ready with its reason."""
    size: Annotated[int | None, Unit("bytes")] = None
    """Bytes that it holds, once it is ready."""
    taken_at: Annotated[Timestamp | None, Unit("age")] = None
    """Time when it was ready. On a workstation files that were written while it was made may be half of before."""


class Snapshot(Resource):
    """The contents of a volume at one time."""

    plural: ClassVar[str] = "snapshots"
    singular: ClassVar[str] = "snapshot"
    short_names: ClassVar[tuple[str, ...]] = ("snap",)
    holds_data: ClassVar[bool] = True
    finalizer: ClassVar[str] = STORAGE_FINALIZER
    phases: ClassVar[Mapping[str, Meaning]] = {
        "Pending": "working",
        "Copying": "working",
        "Ready": "ready",
        "Failed": "failed",
    }
    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("VOLUME", "spec.volume"),
        ("SIZE", "status.size"),
        ("STATE", "status.phase"),
    )

    kind: Literal["Snapshot"] = "Snapshot"
    metadata: ObjectMeta
    spec: SnapshotSpec
    status: SnapshotStatus = Field(default_factory=SnapshotStatus)

    @property
    def uses(self) -> Sequence[tuple[str, str]]:
        """The volume, until the snapshot holds all of it."""
        return [] if self.status.phase == "Ready" else [("Volume", self.spec.volume)]
