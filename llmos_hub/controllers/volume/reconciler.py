"""The Volume reconciler: have the provider make what the spec asks for, and report what is there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from llmos.resources import Volume
from llmos.resources.base import utcnow
from llmos_hub.controllers.reconciler import Result
from llmos_hub.controllers.registry import Dependencies
from llmos_hub.controllers.volume.status import make_status
from llmos_hub.managers.uses import users_of
from llmos_hub.stores.informer import Key
from llmos_hub.volumes.base import VolumeRef, VolumeState, VolumeWish

__all__ = ["VolumeReconciler"]

_IN_USE = 5.0
"""Seconds between looks at the users of a volume that is to be deleted."""
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
        wish = VolumeWish(volume.spec.size_bytes, volume.status.capacity)
        state = await self._volumes.ensure(ref, wish)
        return await self._write(volume, state, state.look_again)

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

    async def _write(self, volume: Volume, state: VolumeState | None, after: float | None) -> Result[Volume]:
        status = make_status(volume, state, self._clock())
        if status != volume.status:
            volume = await self._store.patch_status(volume.model_copy(update={"status": status}))
        return Result(after, volume)
