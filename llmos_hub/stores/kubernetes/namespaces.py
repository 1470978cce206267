"""Ownership of the cluster's namespaces: this release's, another's, or nobody's.

A cluster may have several releases of the platform, and they see each other's resources. Two labels of a namespace,
set by its creator, name the release it belongs to; everything in the namespace is that release's, whoever created it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from llmos.errors import Internal, Unavailable
from llmos.names import KEY_INSTANCE, KEY_MANAGED_BY
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from llmos_hub.kubernetes.reflector import Reflector
from llmos_hub.tasks import cancel

__all__ = ["Ownership", "ReleaseNamespaces"]

Ownership = Literal["ours", "another's", "nobody's"]


_SYNC: Final = 20.0
"""Maximum seconds for the first list."""
_MOST: Final = 10_000
"""Maximum number of requested namespaces that are cached as nobody's."""
_KEPT: Final = ("name", "labels", "resourceVersion", "deletionTimestamp")


class ReleaseNamespaces:
    """A cache of the owners of namespaces, kept up to date from the first query on.

    Parameters
    ----------
    api
        The connection to the cluster; not closed here.
    release
        The release's name, the value of the label `KEY_INSTANCE`.
    """

    def __init__(self, api: KubernetesAPI, release: str) -> None:
        self._api = api
        self._release = release
        self._listeners: list[Callable[[str], None]] = []
        self._nobodys: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self._reflector = Reflector(
            api,
            path_of("v1", "namespaces"),
            params={"labelSelector": f"{KEY_MANAGED_BY}=llmos"},
            keep=_keep,
            changed=self._changed,
        )

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with each namespace whose owner changes; not for a namespace that was deleted."""
        self._listeners.append(listener)

    async def ownership(self, namespace: str) -> Ownership:
        """Return the current owner of a namespace.

        Raises
        ------
        Unavailable
            The cluster doesn't answer, and the cache doesn't know the namespace.
        Internal
            The cluster doesn't let this process read namespaces.
        """
        await self._synced()
        known = self._reflector.objects.get(("", namespace))
        if known is not None:
            return self._label(known)
        if namespace in self._nobodys:
            return "nobody's"
        return await self._look(namespace)

    async def ours(self) -> list[str]:
        """Return the release's namespaces.

        Raises
        ------
        Unavailable
            The cluster doesn't answer.
        """
        await self._synced()
        found = self._reflector.objects.values()
        return sorted(obj["metadata"]["name"] for obj in found if self._label(obj) == "ours")

    async def close(self) -> None:
        """Stop the watch of namespaces."""
        if self._task is not None:
            await cancel(self._task)

    async def _synced(self) -> None:
        if self._reflector.synced.is_set():
            return
        if self._task is None:
            self._task = asyncio.create_task(self._reflector.run(), name="owners of namespaces")
        try:
            async with asyncio.timeout(_SYNC):
                await self._reflector.synced.wait()
        except TimeoutError:
            raise Unavailable(
                "The cluster's namespaces can't be listed; the log says why. Does the service account have the chart's role?"
            ) from None

    async def _look(self, namespace: str) -> Ownership:
        """Read one namespace from the cluster: a resource in it may be reported before the namespace itself."""
        try:
            obj = await self._api.find(path_of("v1", "namespaces", None, namespace))
        except APIError as error:
            raise Internal(f"The namespace {namespace} can't be read: {error.message}.") from None
        if obj is not None and (obj["metadata"].get("labels") or {}).get(KEY_MANAGED_BY) == "llmos":
            self._reflector.take(obj)
        known = self._reflector.objects.get(("", namespace))  # the watch may have added it meanwhile
        if known is not None:
            return self._label(known)
        if len(self._nobodys) >= _MOST:
            self._nobodys.clear()
        self._nobodys.add(namespace)
        return "nobody's"

    def _label(self, obj: Mapping[str, Any] | None) -> Ownership:
        if obj is None:
            return "nobody's"
        return "ours" if obj["metadata"]["labels"].get(KEY_INSTANCE) == self._release else "another's"

    def _changed(self, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        obj = new or old
        assert obj is not None, "of a change one side is there"
        self._nobodys.discard(obj["metadata"]["name"])
        deleted = new is None and "deletionTimestamp" in obj["metadata"]
        if self._label(old) != self._label(new) and not deleted:
            for listener in self._listeners:
                listener(obj["metadata"]["name"])


def _keep(obj: Mapping[str, Any]) -> dict[str, Any]:
    return {"metadata": {key: obj["metadata"][key] for key in _KEPT if key in obj["metadata"]}}
