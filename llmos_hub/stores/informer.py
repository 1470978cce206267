"""A local copy of all resources of a kind, kept up to date by list and watch; it can be read while the store is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from llmos.resources import Resource
from llmos_hub.stores.base import BOOKMARK, DELETED, Listing, Store, WatchEvent
from llmos_hub.stores.follower import Follower

__all__ = ["Informer", "Key", "key_of"]

R = TypeVar("R", bound=Resource)
Key = tuple[str | None, str]
"""Namespace and name."""


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
        self._follower = Follower(store, kind, listed=self._replace, changed=self._take)
        self.synced = self._follower.synced
        """Set once all resources are listed; until then a missing key doesn't mean that the resource doesn't exist."""
        self.run = self._follower.run
        self._on_change = on_change
        self._keep = keep
        self._resources: dict[Key, R] = {}

    @property
    def connected(self) -> bool:
        """True while the watch is open."""
        return self._follower.connected

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

    def _replace(self, listing: Listing[R]) -> None:
        fresh = {key_of(resource): self._keep(resource) for resource in listing.items}
        gone = self._resources.keys() - fresh.keys()
        self._resources = fresh
        for key in (*gone, *fresh):
            self._on_change(key)

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
