"""Clean-up after people and groups deleted in the Hub: after a grace period, and without irrecoverable data.

The time for which an owner has been missing is counted on the namespace. If they come back within the grace period,
nothing has changed. After it, all workloads end; the namespace is deleted too unless it has volumes, which are kept
unless the settings say otherwise. A Hub that does not answer, or has no users at all, is not taken as evidence.

Only time between two checks of one process counts, by a clock that can't be set: a machine whose date jumps, or that
was off over the weekend, ends nobody's grace period.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from llmos.errors import Conflict, LLMOSError, NotFound
from llmos.names import KEY_INSTANCE, KEY_MANAGED_BY, KEY_OWNER_CREATED, MODELS_CLAIM
from llmos.resources import KINDS, Resource
from llmos_hub.controllers.cluster_informer import Object
from llmos_hub.controllers.fencing import require_leadership
from llmos_hub.controllers.registry import Cluster
from llmos_hub.controllers.server_sweep import ServerSweep
from llmos_hub.identity.people import HubPeople
from llmos_hub.kubernetes.connection import MERGE_PATCH, APIError, path_of
from llmos_hub.managers.namespace_objects import owner_of
from llmos_hub.names import KEY_MISSING_FOR
from llmos_hub.policy import NamespaceOwner
from llmos_hub.stores.base import Store

__all__ = ["Sweep"]

_PERIOD: Final = 600.0
"""Seconds between checks; each sends the Hub one request per namespace."""

logger = logging.getLogger(__name__)


class Sweep:
    """A periodic clean-up of namespaces without an owner.

    Parameters
    ----------
    cluster
        The parts of the process, with the grace period and whether volumes are deleted in the settings.
    store
        The store of resources.
    people
        Reads the users and groups of the Hub.
    clock
        Returns a time in seconds that only goes forward, at the same pace whatever the date is set to.
    """

    def __init__(
        self, cluster: Cluster, store: Store, people: HubPeople, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._api, self._options, self._leading = cluster.api, cluster.options, cluster.leading
        self._store = store
        self._people = people
        self._clock = clock
        self._checked: float | None = None
        self._servers = ServerSweep(cluster.api, people, cluster.options.instance)

    async def work(self) -> None:
        """Check all namespaces of the release periodically until cancelled."""
        self._checked = None  # the time in which another process led is not this one's to count
        ours = {"labelSelector": f"{KEY_MANAGED_BY}=llmos,{KEY_INSTANCE}={self._options.instance}"}
        while True:
            try:
                found = await self._api.request("GET", path_of("v1", "namespaces"), params=ours)
                await self.look(found["items"])
            except (LLMOSError, APIError) as error:
                logger.warning("Whether people are gone can't be told now: %s", error)
            await asyncio.sleep(_PERIOD)

    async def look(self, namespaces: list[Object]) -> None:
        """Check these namespaces once.

        Raises
        ------
        Unavailable
            The Hub or the cluster does not answer.
        APIError
            The cluster refuses.
        """
        owned = [
            (obj, owner) for obj in namespaces if (owner := owner_of(obj)) is not None and owner.kind != "platform"
        ]
        if not owned or not await self._people.has_users():
            return
        now = self._clock()
        passed = now - self._checked if self._checked is not None else 0.0
        self._checked = now
        for obj, owner in owned:
            if not obj["metadata"].get("deletionTimestamp"):
                await self._look_at(obj, owner, passed)

    async def _look_at(self, obj: Object, owner: NamespaceOwner, passed: float) -> None:
        """Check a namespace; `passed` are the seconds since this process checked it before."""
        name = obj["metadata"]["name"]
        missing = (obj["metadata"].get("annotations") or {}).get(KEY_MISSING_FOR)
        there, created = await self._find(owner)
        if there:
            if missing is not None:
                logger.info("Namespace %s: %s is back", name, owner.name)
            if missing is not None or (created and not owner.created):
                await self._annotate(name, {KEY_MISSING_FOR: None, KEY_OWNER_CREATED: created or None})
            if owner.kind == "user":
                await self._servers.look(name, owner.name, self._check)
            return
        counted = _seconds(missing)
        if counted is None:
            logger.info(
                "Namespace %s: the Hub has no %s %s any more; it is kept for %g h",
                name, owner.kind, owner.name, self._options.orphan_grace_hours,
            )  # fmt: skip
            await self._annotate(name, {KEY_MISSING_FOR: "0"})
            return
        grace = round(3600 * self._options.orphan_grace_hours)
        now = min(round(counted + passed), grace)
        if now > counted:
            await self._annotate(name, {KEY_MISSING_FOR: str(now)})
        if now >= grace:
            await self._clean(name, obj["metadata"]["uid"])

    async def _find(self, owner: NamespaceOwner) -> tuple[bool, str]:
        """Return whether the owner exists in the Hub, and the time they were created there."""
        if owner.kind == "group":
            return await self._people.has_group(owner.name), ""
        person = await self._people.user(owner.name)
        if person is None:
            return False, ""
        # a name that was created again belongs to somebody else
        same = not (owner.created and person.created) or owner.created == person.created
        return same, person.created if same else ""

    async def _clean(self, namespace: str, uid: str) -> None:
        """End all workloads, and delete the namespace unless it holds data to keep."""
        keep = not self._options.delete_volumes
        data = await self._data(namespace) if keep else []
        for kind in _namespaced():
            if not (keep and kind.holds_data):
                await self._delete_resources(kind, namespace)
        if data:
            logger.info("Namespace %s stays: its data is kept (%s)", namespace, ", ".join(data))
            return
        logger.info("Namespace %s is removed: its owner is gone", namespace)
        # by uid, so that a namespace created again meanwhile is not deleted
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
        await self._request("DELETE", path_of("v1", "namespaces", None, namespace), body=body)

    async def _delete_resources(self, kind: type[Resource], namespace: str) -> None:
        for resource in (await self._store.list(kind, namespace)).items:
            if resource.metadata.deletion_timestamp is not None:
                continue
            self._check()
            try:
                await self._store.delete(kind, namespace, resource.metadata.name, uid=resource.metadata.uid)
            except (Conflict, NotFound):
                continue

    async def _data(self, namespace: str) -> list[str]:
        """Return the resources and volumes with data that can't be downloaded again, as ``kind/name``."""
        found = [
            f"{kind.singular}/{resource.metadata.name}"
            for kind in _namespaced()
            if kind.holds_data
            for resource in (await self._store.list(kind, namespace)).items
        ]
        pages = self._api.list_pages(path_of("v1", "persistentvolumeclaims", namespace))
        names = [item["metadata"]["name"] async for page in pages for item in page["items"]]
        return sorted([*found, *(f"persistentvolumeclaim/{name}" for name in names if name != MODELS_CLAIM)])

    async def _annotate(self, namespace: str, annotations: Mapping[str, str | None]) -> None:
        body = {"metadata": {"annotations": dict(annotations)}}
        await self._request("PATCH", path_of("v1", "namespaces", None, namespace), body=body, content_type=MERGE_PATCH)

    async def _request(
        self, method: str, path: str, *, body: Mapping[str, Any], content_type: str = "application/json"
    ) -> None:
        self._check()
        try:
            await self._api.request(method, path, body=body, content_type=content_type)
        except APIError as error:
            if error.status not in (404, 409):  # deleted or changed: the next check reads it again
                raise

    def _check(self) -> None:
        require_leadership(leading=self._leading())


def _namespaced() -> list[type[Resource]]:
    return [kind for kind in KINDS.values() if kind.scope == "Namespaced"]


def _seconds(text: str | None) -> int | None:
    """Return the seconds in an annotation; None if it is missing, or somebody has written another text there."""
    return int(text[:20]) if text is not None and text.isascii() and text.isdigit() else None
