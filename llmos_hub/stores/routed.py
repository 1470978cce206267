"""A store that routes each kind to one of two stores in a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal, TypeVar

from llmos.errors import UsageError
from llmos.resources.base import Resource
from llmos_hub.stores.base import Event, Listing, NamespaceQuota, Page, Selector, Store, WatchEvent

__all__ = ["RoutedStore"]

R = TypeVar("R", bound=Resource)


class RoutedStore:
    """A `llmos_hub.stores.base.Store` that keeps Settings in the database and all other kinds in the cluster.

    Parameters
    ----------
    cluster
        The store of custom resources and Secrets; closed with this one.
    database
        The store of the other kinds; None in a process that doesn't use them.
    """

    def __init__(self, cluster: Store, database: Store | None) -> None:
        self._cluster = cluster
        self._database = database

    def _of(self, kind: type[Resource]) -> Store:
        if kind.stored_as != "Database":
            return self._cluster
        if self._database is None:
            message = f"{kind.kind_name()}s live in the platform's database, whose address this process was not given: LLMOS_REDIS_URL is not set."
            raise UsageError(message)
        return self._database

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """Read one resource; see `llmos_hub.stores.base.Store` for this and the other methods."""
        return await self._of(kind).get(kind, namespace, name)

    async def list(self, kind: type[R], namespace: str | None = None, *, labels: Selector | None = None) -> Listing[R]:
        """Read all resources of a kind."""
        return await self._of(kind).list(kind, namespace, labels=labels)

    async def page(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        limit: int,
        token: str = "",
        labels: Selector | None = None,
    ) -> Page[R]:
        """Read a page of resources."""
        return await self._of(kind).page(kind, namespace, limit=limit, token=token, labels=labels)

    def watch(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: Selector | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent[R]]]:
        """Follow changes."""
        return self._of(kind).watch(kind, namespace, resource_version=resource_version, labels=labels)

    async def create(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Store a new resource."""
        return await self._of(type(resource)).create(resource, quota=quota)

    async def update(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Replace everything except status."""
        return await self._of(type(resource)).update(resource, quota=quota)

    async def apply(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Create the resource or replace its spec."""
        return await self._of(type(resource)).apply(resource, quota=quota)

    async def patch_status(self, resource: R) -> R:
        """Replace status."""
        return await self._of(type(resource)).patch_status(resource)

    async def delete(self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None) -> R:
        """Delete the resource, or mark it for deletion."""
        return await self._of(kind).delete(kind, namespace, name, uid=uid)

    async def record(self, resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Keep an event."""
        await self._of(type(resource)).record(resource, type_, reason, message)

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """Return a resource's events."""
        return await self._of(kind).events(kind, namespace, name)

    async def healthy(self) -> bool:
        """Return whether both stores answer."""
        return await self._cluster.healthy() and (self._database is None or await self._database.healthy())

    async def close(self) -> None:
        """Close both stores."""
        await self._cluster.close()
        if self._database is not None:
            await self._database.close()
