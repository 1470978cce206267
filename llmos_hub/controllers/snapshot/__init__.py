"""The controller of Snapshots: have the provider copy a volume, once, and delete the copy with its resource."""

from __future__ import annotations

from llmos.resources import Snapshot, Volume
from llmos_hub.controllers.reconciler import Reference
from llmos_hub.controllers.registry import ControllerSpec
from llmos_hub.controllers.snapshot.reconciler import SnapshotReconciler

__all__ = ["SPEC"]

SPEC = ControllerSpec(
    Snapshot, SnapshotReconciler, references=[Reference(Volume, lambda snapshot: [snapshot.spec.volume])]
)
