"""Volumes in a cluster: PersistentVolumeClaims and VolumeSnapshots, whatever storage is behind them.

Objects are made by pure functions. What a storage class can do is found by looking at its answers, not at its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from llmos.errors import Conflict, LLMOSError
from llmos.names import KEY_MANAGED_BY
from llmos.resources.quantities import parse_quantity
from llmos_hub.kubernetes.connection import MERGE_PATCH, APIError, KubernetesAPI, path_of
from llmos_hub.names import KEY_APP, KEY_RESTORED, KEY_UID
from llmos_hub.volumes.base import Changed, DataSource, VolumeRef, VolumeState, VolumeWish

__all__ = ["KubernetesVolumes", "claim_name", "make_claim", "make_snapshot", "snapshot_name"]

_SNAPSHOTS: Final = "snapshot.storage.k8s.io/v1"
_LOOK: Final = 2.0
"""Seconds between looks at what isn't ready, as claims are not watched."""
_SETTLED: Final = 120.0
_RETRY: Final = 30.0
_LATER: Final = "WaitForFirstConsumer"


def claim_name(ref: VolumeRef) -> str:
    """Return the name of a volume's claim; the prefix keeps it apart from claims of others."""
    return f"llmos-volume-{ref.name}"


def snapshot_name(ref: VolumeRef) -> str:
    """Return the name of a snapshot's VolumeSnapshot."""
    return f"llmos-snapshot-{ref.name}"


def make_claim(ref: VolumeRef, wish: VolumeWish, *, restored: str = "") -> dict[str, Any]:
    """Return a volume's claim."""
    spec: dict[str, Any] = {
        "accessModes": [wish.access_mode],
        "resources": {"requests": {"storage": str(wish.size)}},
    }
    if wish.storage_class:
        spec["storageClassName"] = wish.storage_class
    if wish.source is not None and wish.source.kind == "snapshot":
        name = snapshot_name(wish.source.ref)
        spec["dataSource"] = {"apiGroup": _SNAPSHOTS.partition("/")[0], "kind": "VolumeSnapshot", "name": name}
    elif wish.source is not None:
        spec["dataSource"] = {"kind": "PersistentVolumeClaim", "name": claim_name(wish.source.ref)}
    metadata: dict[str, Any] = {"name": claim_name(ref), "namespace": ref.namespace, "labels": _labels(ref)}
    if restored:
        metadata["annotations"] = {KEY_RESTORED: restored}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}


def make_snapshot(ref: VolumeRef, volume: VolumeRef) -> dict[str, Any]:
    """Return a snapshot's VolumeSnapshot."""
    return {
        "apiVersion": _SNAPSHOTS,
        "kind": "VolumeSnapshot",
        "metadata": {"name": snapshot_name(ref), "namespace": ref.namespace, "labels": _labels(ref)},
        "spec": {"source": {"persistentVolumeClaimName": claim_name(volume)}},
    }


def _labels(ref: VolumeRef) -> dict[str, str]:
    return {KEY_APP: "llmos", KEY_MANAGED_BY: "llmos", KEY_UID: ref.uid}


class KubernetesVolumes:
    """A provider of PersistentVolumeClaims.

    Parameters
    ----------
    api
        The connection to the cluster. Not closed here.
    leading
        Returns whether this process may write.
    """

    def __init__(self, api: KubernetesAPI, leading: Callable[[], bool] = lambda: True) -> None:
        self._api = api
        self._leading = leading

    def subscribe(self, changed: Changed) -> None:
        """Do nothing: states say when to look again."""

    async def ensure(self, ref: VolumeRef, wish: VolumeWish) -> VolumeState:
        """Create or expand the claim, and return its state; see `llmos_hub.volumes.base.Volumes`."""
        claim = await self._get("v1", "persistentvolumeclaims", ref.namespace, claim_name(ref))
        try:
            if claim is None:
                if wish.had is not None:
                    message = f"Its PersistentVolumeClaim {claim_name(ref)} is gone. Restore it, or delete the volume."
                    return VolumeState("Failed", reason="Lost", message=message, look_again=_RETRY)
                claim = await self._create("v1", "persistentvolumeclaims", make_claim(ref, wish))
            if (refusal := _foreign(claim, ref)) is not None:
                return refusal
            if _requested(claim) < wish.size:
                claim = await self._expand(ref, wish.size)
        except APIError as error:
            return VolumeState("Failed", wish.had, reason="Refused", message=_words(error), look_again=_RETRY)
        return await self._state(claim, wish.size)

    async def snapshot(self, ref: VolumeRef, volume: VolumeRef) -> VolumeState:
        """Create the VolumeSnapshot, and return its state."""
        try:
            found = await self._get(_SNAPSHOTS, "volumesnapshots", ref.namespace, snapshot_name(ref))
            if found is None:
                found = await self._create(_SNAPSHOTS, "volumesnapshots", make_snapshot(ref, volume))
        except APIError as error:
            message = _words(error)
            if error.status == 404:
                message = (
                    "This cluster has no VolumeSnapshots. Its admins install the snapshot controller and a CSI driver that "
                    "makes them."
                )
            return VolumeState("Failed", reason="Refused", message=message, look_again=_RETRY)
        if (refusal := _foreign(found, ref)) is not None:
            return refusal
        status = found.get("status") or {}
        if status.get("readyToUse"):
            size = status.get("restoreSize")
            return VolumeState("Ready", used=int(parse_quantity(size)) if size else None)
        if said := (status.get("error") or {}).get("message"):
            return VolumeState("Failed", reason="Refused", message=f"The storage says: {said}", look_again=_RETRY)
        return VolumeState("Working", reason="Waiting", message="The storage makes the snapshot.", look_again=_LOOK)

    async def restore(self, volume: VolumeRef, snapshot: VolumeRef, request: str, wish: VolumeWish) -> VolumeState:
        """Replace the claim by one that is made from the snapshot."""
        claim = await self._get("v1", "persistentvolumeclaims", volume.namespace, claim_name(volume))
        try:
            if claim is None:
                filled = VolumeWish(
                    wish.size, None, DataSource("snapshot", snapshot), wish.access_mode, wish.storage_class
                )
                made = make_claim(volume, filled, restored=request)
                claim = await self._create("v1", "persistentvolumeclaims", made)
            elif (claim["metadata"].get("annotations") or {}).get(KEY_RESTORED) != request:
                await self._delete("v1", "persistentvolumeclaims", claim)
                return VolumeState(
                    "Working", reason="Copying", message="The old claim is being removed.", look_again=_LOOK
                )
        except APIError as error:
            return VolumeState("Failed", reason="Refused", message=_words(error), look_again=_RETRY)
        return await self._state(claim, wish.size)

    def source(self, ref: VolumeRef) -> str:
        """Return the claim's name."""
        return claim_name(ref)

    async def hide(self, ref: VolumeRef) -> None:
        """Do nothing: pods that run keep what they have mounted, and new ones don't mount it."""

    async def delete(self, ref: VolumeRef) -> bool:
        """Delete the claim; the storage class decides what becomes of the data."""
        return await self._gone("v1", "persistentvolumeclaims", ref, claim_name(ref))

    async def delete_snapshot(self, ref: VolumeRef) -> bool:
        """Delete the VolumeSnapshot."""
        return await self._gone(_SNAPSHOTS, "volumesnapshots", ref, snapshot_name(ref))

    async def close(self) -> None:
        """Do nothing: nothing runs in the background."""

    async def _get(self, version: str, plural: str, namespace: str, name: str) -> dict[str, Any] | None:
        try:
            return await self._api.request("GET", path_of(version, plural, namespace, name))
        except APIError as error:
            if error.status == 404:
                return None
            raise

    async def _create(self, version: str, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        self._require_leadership()
        return await self._api.request("POST", path_of(version, plural, body["metadata"]["namespace"]), body=body)

    async def _expand(self, ref: VolumeRef, size: int) -> dict[str, Any]:
        self._require_leadership()
        path = path_of("v1", "persistentvolumeclaims", ref.namespace, claim_name(ref))
        patch = {"spec": {"resources": {"requests": {"storage": str(size)}}}}
        return await self._api.request("PATCH", path, body=patch, content_type=MERGE_PATCH)

    async def _delete(self, version: str, plural: str, found: Mapping[str, Any]) -> None:
        self._require_leadership()
        meta = found["metadata"]
        body = {"preconditions": {"uid": meta["uid"]}}
        await self._api.request("DELETE", path_of(version, plural, meta["namespace"], meta["name"]), body=body)

    async def _gone(self, version: str, plural: str, ref: VolumeRef, name: str) -> bool:
        found = await self._get(version, plural, ref.namespace, name)
        if found is None or found["metadata"].get("labels", {}).get(KEY_UID) != ref.uid:
            return True
        if not found["metadata"].get("deletionTimestamp"):
            await self._delete(version, plural, found)
        return False

    async def _state(self, claim: Mapping[str, Any], size: int) -> VolumeState:
        status = claim.get("status") or {}
        if status.get("phase") == "Bound":
            capacity = int(parse_quantity(status["capacity"]["storage"]))
            if capacity < size:
                return VolumeState(
                    "Working", capacity, reason="Growing", message="The storage makes it larger.", look_again=_LOOK
                )
            return VolumeState("Ready", size, look_again=_SETTLED)
        if status.get("phase") == "Lost":
            message = f"The storage behind {claim['metadata']['name']} is gone. Restore it, or delete the volume."
            return VolumeState("Failed", reason="Lost", message=message, look_again=_RETRY)
        name = claim["spec"].get("storageClassName", "")
        storage = await self._get("storage.k8s.io/v1", "storageclasses", "", name) if name else None
        if storage is not None and storage.get("volumeBindingMode") == _LATER:
            return VolumeState("Ready", size, message="It is made where it is first mounted.", look_again=_LOOK)
        if not name:
            message = "This cluster has no default storage class. Name one: spec.storageClass"
        elif said := await self._warning(claim):
            message = f"The storage could not make it so far: {said}"
        else:
            message = "The storage makes it."
        return VolumeState("Working", reason="Provisioning", message=message, look_again=_LOOK)

    async def _warning(self, claim: Mapping[str, Any]) -> str:
        """Return the last warning about a claim; empty if there is none."""
        meta = claim["metadata"]
        selector = f"involvedObject.uid={meta['uid']},type=Warning"
        path = path_of("v1", "events", meta["namespace"])
        events = (await self._api.request("GET", path, params={"fieldSelector": selector}))["items"]
        last = max(events, key=lambda event: event.get("lastTimestamp") or "", default=None)
        return str(last["message"]) if last else ""

    def _require_leadership(self) -> None:
        if not self._leading():
            raise Conflict("Another process leads now and does this.")


def _foreign(found: Mapping[str, Any], ref: VolumeRef) -> VolumeState | None:
    """Return the refusal for an object that belongs to something else."""
    meta = found["metadata"]
    if (meta.get("labels") or {}).get(KEY_UID) == ref.uid and not meta.get("deletionTimestamp"):
        return None
    if meta.get("deletionTimestamp"):
        return VolumeState("Working", reason="Waiting", message=f"{meta['name']} is being deleted.", look_again=_LOOK)
    message = f"{meta['name']} exists and is not of this volume. Remove it, or choose another name."
    return VolumeState("Failed", reason="Refused", message=message, look_again=_RETRY)


def _requested(claim: Mapping[str, Any]) -> int:
    return int(parse_quantity(claim["spec"]["resources"]["requests"]["storage"]))


def _words(error: LLMOSError | APIError) -> str:
    return f"The cluster refuses it: {error.message}"
