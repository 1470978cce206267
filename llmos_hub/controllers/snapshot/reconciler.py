"""The Snapshot reconciler."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from llmos.errors import NotFound
from llmos.resources import Condition, Snapshot, Volume
from llmos.resources.base import set_condition, utcnow
from llmos.resources.snapshot import SnapshotPhase, SnapshotStatus
from llmos_hub.controllers.reconciler import Result
from llmos_hub.controllers.registry import Dependencies
from llmos_hub.managers.uses import users_of
from llmos_hub.stores.informer import Key
from llmos_hub.volumes.base import VolumeRef, VolumeState

__all__ = ["SnapshotReconciler"]

_AGAIN = 5.0
"""Seconds between looks at a deletion that is under way, or held up."""
_PHASES: dict[str, SnapshotPhase] = {"Ready": "Ready", "Working": "Copying", "Failed": "Failed"}


class SnapshotReconciler:
    """A reconciler of Snapshots.

    Parameters
    ----------
    parts
        The parts of the process.
    clock
        Returns the current time.
    """

    kind = Snapshot

    def __init__(self, parts: Dependencies, *, clock: Callable[[], datetime] = utcnow) -> None:
        self._store, self._volumes = parts.store, parts.volumes
        self._clock = clock
        self._volumes.subscribe(lambda ref: parts.requeue((ref.namespace, ref.name)))

    async def reconcile(self, resource: Snapshot) -> Result[Snapshot]:
        """Reconcile one; see `llmos_hub.controllers.reconciler.Reconciler`."""
        snapshot, meta = resource, resource.metadata
        ref = VolumeRef(meta.namespace or "", meta.name, meta.uid or "")
        if meta.deletion_timestamp is not None:
            return await self._delete(snapshot, ref)
        if snapshot.unread or snapshot.status.phase == "Ready":
            return Result()
        if Snapshot.finalizer not in meta.finalizers:
            finalizers = [*meta.finalizers, Snapshot.finalizer]
            snapshot = await self._store.update(
                snapshot.model_copy(update={"metadata": meta.model_copy(update={"finalizers": finalizers})})
            )
        return await self._write(snapshot, await self._look(snapshot, ref))

    async def gone(self, key: Key) -> None:
        """Do nothing: the finalizer saw to the files."""

    async def close(self) -> None:
        """Do nothing: what runs in the background is the provider's."""

    async def _look(self, snapshot: Snapshot, ref: VolumeRef) -> VolumeState:
        name = snapshot.spec.volume
        try:
            volume = await self._store.get(Volume, snapshot.metadata.namespace, name)
        except NotFound:
            message = f'There is no Volume "{name}" in {ref.namespace}. It continues once there is one.'
            return VolumeState("Failed", reason="NotFound", message=message)
        if volume.rests_until is not None or volume.metadata.deletion_timestamp is not None:
            undo = Volume.undo.format(name=name)
            return VolumeState(
                "Failed", reason="Deleted", message=f"{name} was deleted. To have it again: llmos {undo}"
            )
        if volume.status.capacity is None or volume.restores:
            return VolumeState("Working", reason="Waiting", message=f"It waits for {name}: {volume.status.phase}.")
        return await self._volumes.snapshot(ref, VolumeRef(ref.namespace, name, volume.metadata.uid or ""))

    async def _write(self, snapshot: Snapshot, state: VolumeState) -> Result[Snapshot]:
        now, ready = self._clock(), state.state == "Ready"
        condition = Condition(
            type="Ready",
            status="True" if ready else "False",
            reason=state.reason or state.state,
            message=state.message,
            last_transition_time=now,
        )
        status = SnapshotStatus(
            phase=_PHASES[state.state],
            message=state.message,
            observed_generation=snapshot.metadata.generation,
            conditions=set_condition(snapshot.status.conditions, condition),
            size=state.used if ready else None,
            taken_at=now if ready else None,
        )
        if status != snapshot.status:
            snapshot = await self._store.patch_status(snapshot.model_copy(update={"status": status}))
        return Result(state.look_again, snapshot)

    async def _delete(self, snapshot: Snapshot, ref: VolumeRef) -> Result[Snapshot]:
        meta = snapshot.metadata
        if Snapshot.finalizer not in meta.finalizers:
            return Result()
        if await users_of(self._store, snapshot) or not await self._volumes.delete_snapshot(ref):
            return Result(_AGAIN)
        finalizers = [name for name in meta.finalizers if name != Snapshot.finalizer]
        freed = snapshot.model_copy(update={"metadata": meta.model_copy(update={"finalizers": finalizers})})
        return Result(resource=await self._store.update(freed))
