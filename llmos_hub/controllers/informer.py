"""A local copy of all resources of a kind, kept up to date by list and watch.

It follows Kubernetes' shared informers (https://pkg.go.dev/k8s.io/client-go/tools/cache): list once, watch the
changes from there, list again when the store no longer has all of them, and retry with a growing delay
while it doesn't answer. The copy can be read meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from llmos.errors import Expired, LLMOSError
from llmos.resources import Resource
from llmos_hub.controllers.workqueue import Backoff
from llmos_hub.stores.base import BOOKMARK, DELETED, Store, WatchEvent

__all__ = ["Informer", "Key", "key_of"]

R = TypeVar("R", bound=Resource)
Key = tuple[str | None, str]
"""Namespace and name."""

_BACKOFF = Backoff(base=0.1, ceiling=5.0)
"""A local database is back within one or two seconds; afterwards a change goes unnoticed for at most five seconds."""

logger = logging.getLogger(__name__)


def key_of(resource: Resource) -> Key:
    """Return the key of a resource."""
    return (resource.metadata.namespace, resource.metadata.name)


class Informer(Generic[R]):
    """A local copy of the resources of one kind.

    Parameters
    ----------
    store
        The store of the resources.
    kind
        The kind.
    on_change
        Called with the key of each resource that was added, changed or deleted, and of all after a list.
    keep
        Returns the copy to keep of a resource; for kinds whose contents should not stay in memory.
    """

    def __init__(
        self,
        store: Store,
        kind: type[R],
        on_change: Callable[[Key], None],
        *,
        keep: Callable[[R], R] = lambda resource: resource,
    ) -> None:
        self.kind = kind
        self.synced = asyncio.Event()
        """Set once all resources are listed; until then a missing key doesn't mean that the resource doesn't exist."""
        self.connected = False
        """True while the watch is open."""
        self._store = store
        self._on_change = on_change
        self._keep = keep
        self._resources: dict[Key, R] = {}

    def get(self, key: Key) -> R | None:
        """Return the last known resource; None if it doesn't exist."""
        return self._resources.get(key)

    def __iter__(self) -> Iterator[Key]:
        return iter(tuple(self._resources))

    def __len__(self) -> int:
        return len(self._resources)

    def items(self) -> tuple[tuple[Key, R], ...]:
        """Return all resources with their keys."""
        return tuple(self._resources.items())

    def values(self) -> tuple[R, ...]:
        """Return all resources."""
        return tuple(self._resources.values())

    def written(self, resource: R) -> None:
        """Store a resource that the caller has just written, so that it doesn't read an older version later.

        Only a newer version of the same resource is stored: the watch may have reported a later one meanwhile.
        """
        key = key_of(resource)
        known = self._resources.get(key)
        if known is not None and known.metadata.uid == resource.metadata.uid and _newer(resource, known):
            self._resources[key] = self._keep(resource)

    async def run(self) -> None:
        """List and watch until cancelled."""
        failures = 0
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._list()
                async with self._store.watch(self.kind, resource_version=version) as events:
                    self.connected = True
                    async for event in events:
                        failures = 0
                        self._take(event)
                        version = event.resource_version
                error: Exception | None = None
            except Expired as exc:
                logger.info("%s: %s Listing again.", self.kind.plural, exc.message)
                version, error = None, None
            except LLMOSError as exc:
                error = exc
            except Exception as exc:
                logger.exception("Following %s failed; listing again", self.kind.plural)
                version, error = None, exc
            finally:
                self.connected = False
            failures += 1
            # without an error the first retry is immediate, but repeated ones are not
            delay = 0.0 if error is None and failures == 1 else _BACKOFF.delay(failures)
            if error is not None and failures in (1, 5):
                logger.warning("%s can't be followed: %s Trying again in %.1f s", self.kind.plural, error, delay)
            await asyncio.sleep(delay)

    async def _list(self) -> str:
        listing = await self._store.list(self.kind)
        fresh = {key_of(resource): self._keep(resource) for resource in listing.items}
        gone = self._resources.keys() - fresh.keys()
        self._resources = fresh
        self.synced.set()
        for key in (*gone, *fresh):
            self._on_change(key)
        return listing.resource_version

    def _take(self, event: WatchEvent[R]) -> None:
        resource = event.resource
        if event.type == BOOKMARK or resource is None:
            return
        key = key_of(resource)
        if event.type == DELETED:
            self._resources.pop(key, None)
            self._on_change(key)
            return
        known = self._resources.get(key)
        if known is not None and known.metadata.uid == resource.metadata.uid and not _newer(resource, known):
            return  # our own write, already handled
        self._resources[key] = self._keep(resource)
        self._on_change(key)


def _newer(one: Resource, other: Resource) -> bool:
    """Return whether `one` is a later version, or if versions can't be compared, a different one.

    Kubernetes guarantees since 1.35 that resourceVersions compare as integers
    (https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions).
    """
    a, b = one.metadata.resource_version or "", other.metadata.resource_version or ""
    if a.isdecimal() and b.isdecimal():
        return int(a) > int(b)
    return a != b
