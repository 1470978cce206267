"""The Volume reconciler: have the provider make what the spec asks for, and report what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Literal

from llmos.errors import NotFound
from llmos.resources import Snapshot, Volume
from llmos.resources.base import utcnow
from llmos.resources.volume import VolumeSource
from llmos_hub.controllers.reconciler import Result
from llmos_hub.controllers.registry import Dependencies
from llmos_hub.controllers.volume.status import make_status
from llmos_hub.managers.uses import users_of
from llmos_hub.stores.informer import Key
from llmos_hub.volumes.base import DataSource, VolumeRef, VolumeState, VolumeWish

__all__ = ["VolumeReconciler"]

_IN_USE = 5.0
"""Seconds between looks at the users of a volume that is to be deleted."""
_MISSING = 10.0
"""Seconds between looks for what a volume is to be filled with."""
_WAITING = 1.0
_DELETING = 2.0
"""Seconds between looks at a deletion that is under way."""


class VolumeReconciler:
    """A reconciler of Volumes.

    Parameters
    ----------
    parts
        The parts of the process.
    clock
        Returns the current time.
    """

    kind = Volume

    def __init__(self, parts: Dependencies, *, clock: Callable[[], datetime] = utcnow) -> None:
        self._store, self._volumes = parts.store, parts.volumes
        self._clock = clock
        self._volumes.subscribe(lambda ref: parts.requeue((ref.namespace, ref.name)))

    async def reconcile(self, resource: Volume) -> Result[Volume]:
        """Reconcile one; see `llmos_hub.controllers.reconciler.Reconciler`."""
        volume, meta, now = resource, resource.metadata, self._clock()
        ref = VolumeRef(meta.namespace or "", meta.name, meta.uid or "")
        if meta.deletion_timestamp is not None:
            return await self._delete(volume, ref)
        if volume.unread:
            return Result()
        if Volume.finalizer not in meta.finalizers:
            finalizers = [*meta.finalizers, Volume.finalizer]
            volume = await self._store.update(
                volume.model_copy(update={"metadata": meta.model_copy(update={"finalizers": finalizers})})
            )
        if (until := volume.rests_until) is not None:
            if now >= until:
                return Result(resource=await self._store.delete(Volume, meta.namespace, meta.name, uid=meta.uid))
            await self._volumes.hide(ref)
            return await self._write(volume, None, (until - now).total_seconds())
        state, restored = await self._look(volume, ref)
        return await self._write(volume, state, state.look_again, restored)

    async def _look(self, volume: Volume, ref: VolumeRef) -> tuple[VolumeState, str]:
        """Have it made, filled, grown or restored, as far as possible now; return also what was restored last."""
        spec, had, restored = volume.spec, volume.status.capacity, volume.status.restored
        source: DataSource | None = None
        if had is None and spec.source is not None:
            found = await self._found(ref, Snapshot if spec.source.snapshot else Volume, spec.source)
            if isinstance(found, VolumeState):
                return found, restored
            source = found
        wish = VolumeWish(spec.size_bytes, had, source, spec.access_mode, spec.storage_class or "")
        if volume.restores and spec.restore is not None and had is not None:
            found = await self._found(ref, Snapshot, VolumeSource(snapshot=spec.restore.snapshot))
            if isinstance(found, VolumeState):
                return replace(found, capacity=had), restored
            if users := await users_of(self._store, volume):
                message = f"It is restored as soon as nothing uses it: {', '.join(users[:5])}."
                return VolumeState("Working", had, reason="InUse", message=message, look_again=_IN_USE), restored
            state = await self._volumes.restore(ref, found.ref, spec.restore.request, wish)
            if state.state != "Ready":
                return replace(state, capacity=had), restored
            restored = spec.restore.request
        return await self._volumes.ensure(ref, wish), restored

    async def _found(
        self, ref: VolumeRef, kind: type[Snapshot | Volume], source: VolumeSource
    ) -> DataSource | VolumeState:
        """Return what is to be copied, or why it can't be yet."""
        name = source.snapshot or source.volume or ""
        try:
            found = await self._store.get(kind, ref.namespace, name)
        except NotFound:
            message = f'There is no {kind.kind_name()} "{name}" in {ref.namespace}. It continues once there is one.'
            return VolumeState("Failed", reason="SourceMissing", message=message, look_again=_MISSING)
        if found.rests_until is not None or found.metadata.deletion_timestamp is not None:
            message = f"The {kind.kind_name()} {name} was deleted."
            return VolumeState("Failed", reason="SourceMissing", message=message, look_again=_MISSING)
        if found.status.phase == "Failed":
            message = f"The {kind.kind_name()} {name} failed: {found.status.message}"
            return VolumeState("Failed", reason="SourceFailed", message=message, look_again=_MISSING)
        if found.status.observed_generation == 0 or kind.phases.get(found.status.phase) == "working":
            return VolumeState("Working", reason="Waiting", message=f"It waits for {name}.", look_again=_WAITING)
        kind_word: Literal["snapshot", "volume"] = "snapshot" if kind is Snapshot else "volume"
        return DataSource(kind_word, VolumeRef(ref.namespace, name, found.metadata.uid or ""))

    async def gone(self, key: Key) -> None:
        """Do nothing: the finalizer saw to the files, and files without a resource are never deleted unasked."""

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._volumes.close()

    async def _delete(self, volume: Volume, ref: VolumeRef) -> Result[Volume]:
        meta = volume.metadata
        if Volume.finalizer not in meta.finalizers:
            return Result()
        if users := await users_of(self._store, volume):  # deleted past the API, which refuses that
            message = f"It is deleted as soon as nothing uses it: {', '.join(users[:5])}."
            return await self._write(volume, VolumeState("Working", reason="InUse", message=message), _IN_USE)
        if not await self._volumes.delete(ref):
            return Result(_DELETING)
        finalizers = [name for name in meta.finalizers if name != Volume.finalizer]
        freed = volume.model_copy(update={"metadata": meta.model_copy(update={"finalizers": finalizers})})
        return Result(resource=await self._store.update(freed))

    async def _write(
        self, volume: Volume, state: VolumeState | None, after: float | None, restored: str | None = None
    ) -> Result[Volume]:
        status = make_status(volume, state, self._clock())
        if restored is not None:
            status = status.model_copy(update={"restored": restored})
        if status != volume.status:
            volume = await self._store.patch_status(volume.model_copy(update={"status": status}))
        return Result(after, volume)
