"""A view of a cluster's store for one of several releases: only resources in its own namespaces.

The filter is at this level since API and gateway reach the cluster only through the store, so that no handler can
bypass it. The controllers don't use it: they also report resources in namespaces that no release serves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Generic, Literal, TypeVar

from llmos.errors import Expired, Forbidden
from llmos.resources.base import Resource
from llmos_hub.stores import writes
from llmos_hub.stores.base import BOOKMARK, DELETED, Event, Listing, NamespaceQuota, Page, Selector, Store, WatchEvent
from llmos_hub.stores.kubernetes.each import EachNamespace, list_each
from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces
from llmos_hub.stores.writes import expired, revision_of
from llmos_hub.tasks import cancel

__all__ = ["ReleaseStore"]

R = TypeVar("R", bound=Resource)

_CHANGED: Final = "A namespace was handed over to or by this release. List again."


def _each(kind: type[Resource], namespace: str | None) -> bool:
    """Return whether namespaces have to be read one by one: there is no right to read all Secrets of a cluster."""
    return namespace is None and kind.stored_as == "Secret"


class ReleaseStore:
    """A `llmos_hub.stores.base.Store` over another one that shows only resources in this release's namespaces.

    A namespace with resources may be handed over to the release. A watch has already passed over their changes,
    so watches end with `Expired` then, and their users list again.

    Parameters
    ----------
    inner
        The cluster's store; closed with this one.
    namespaces
        The owners of namespaces; closed with this one.
    """

    def __init__(self, inner: Store, namespaces: ReleaseNamespaces) -> None:
        self._inner = inner
        self._namespaces = namespaces
        self._watches: set[_OwnEvents[Any]] = set()
        self._each: set[EachNamespace[Any]] = set()
        self._met: set[str] = set()  # namespaces of the resources that were shown or passed over
        self._epoch = 0  # how often the set of the release's resources has changed by a hand-over
        self._listed: dict[type[Resource], tuple[int, int]] = {}  # in which epoch, and from which revision on
        namespaces.subscribe(self._handed_over)

    # -- ownership

    def _handed_over(self, namespace: str) -> None:
        for each in self._each:
            each.add(namespace)
        if namespace not in self._met:
            return  # no resource in it was seen yet, so none was passed over
        self._met.discard(namespace)
        self._epoch += 1
        for watch in self._watches:
            watch.expire()

    async def _owns(self, namespace: str | None) -> bool:
        """Return whether a namespace is the release's; None (cluster-scoped) always is."""
        return namespace is None or await self._namespaces.ownership(namespace) == "ours"

    async def _shows(self, resource: Resource) -> bool:
        """Return whether a listed or changed resource is the release's."""
        namespace = resource.metadata.namespace
        owned = await self._owns(namespace)
        if namespace is not None:
            self._met.add(namespace)
        return owned

    async def filtered(self, event: WatchEvent[R]) -> WatchEvent[R]:
        """Return the event as the release sees it: unchanged, or a bookmark if the resource is not the release's."""
        if event.resource is None or await self._shows(event.resource):
            return event
        namespace = event.resource.metadata.namespace or ""
        # a deletion is passed on unless the namespace is another's: the namespace may have been deleted first
        if event.type == DELETED and await self._namespaces.ownership(namespace) != "another's":
            return event
        return WatchEvent(BOOKMARK, None, event.resource_version)

    async def _check(self, kind: type[Resource], namespace: str | None, name: str) -> None:
        if not await self._owns(namespace):
            raise writes.not_found(kind, namespace, name)

    async def _check_new(self, resource: Resource) -> None:
        namespace = resource.metadata.namespace
        if not await self._owns(namespace):
            raise Forbidden(
                f"LLMOS serves only namespaces that it has made, and {namespace} is none of this release's. "
                "Yours is made when you first need it."
            )

    # -- reading

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """Read one resource; see `llmos_hub.stores.base.Store` for this and the other methods."""
        await self._check(kind, namespace, name)
        return await self._inner.get(kind, namespace, name)

    async def list(self, kind: type[R], namespace: str | None = None, *, labels: Selector | None = None) -> Listing[R]:
        """Read all resources of a kind that are the release's."""
        epoch = self._epoch
        listing = await self._read(kind, namespace, labels)
        return Listing(await self._shown(kind, namespace, listing, epoch), listing.resource_version)

    async def page(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        limit: int,
        token: str = "",
        labels: Selector | None = None,
    ) -> Page[R]:
        """Read a page of resources that are the release's; it has fewer than `limit` if some belong to others.

        Secrets of all namespaces come as one page: they are read namespace by namespace.
        """
        epoch = self._epoch
        if _each(kind, namespace):
            listing = await self._read(kind, namespace, labels)
            return Page(await self._shown(kind, namespace, listing, epoch), listing.resource_version)
        page = await self._inner.page(kind, namespace, limit=limit, token=token, labels=labels)
        # a later page says nothing about resources that were passed over in earlier ones
        items = await self._shown(kind, namespace, page, epoch if not token else 0)
        return Page(items, page.resource_version, page.token)

    async def _read(self, kind: type[R], namespace: str | None, labels: Selector | None) -> Listing[R]:
        if _each(kind, namespace):
            return await list_each(self._inner, kind, await self._namespaces.ours(), labels=labels)
        return await self._inner.list(kind, namespace, labels=labels)

    async def _shown(self, kind: type[R], namespace: str | None, listing: Listing[R], epoch: int) -> Sequence[R]:
        items = [item for item in listing.items if await self._shows(item)]
        if namespace is None and self._listed.get(kind, (0, 0))[0] < epoch:
            self._listed[kind] = (epoch, revision_of(listing.resource_version))
        return items

    @asynccontextmanager
    async def watch(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: Selector | None = None,
    ) -> AsyncIterator[AsyncIterator[WatchEvent[R]]]:
        """Follow changes of the release's resources; changes of others are reported as bookmarks."""
        epoch, since = self._listed.get(kind, (0, 0))
        if namespace is None and (epoch < self._epoch or revision_of(resource_version) < since):
            raise Expired(_CHANGED)
        async with self._followed(kind, namespace, resource_version, labels) as events:
            own = _OwnEvents(self, events)
            self._watches.add(own)
            try:
                yield own
            finally:
                self._watches.discard(own)
                await own.close()

    @asynccontextmanager
    async def _followed(
        self, kind: type[R], namespace: str | None, position: str, labels: Selector | None
    ) -> AsyncIterator[AsyncIterator[WatchEvent[R]]]:
        """Follow the inner store's changes; Secrets namespace by namespace, without a right to read all of them."""
        if not _each(kind, namespace):
            async with self._inner.watch(kind, namespace, resource_version=position, labels=labels) as events:
                yield events
            return
        if revision_of(position) == 0:
            raise expired(position)
        each = EachNamespace(self._inner, kind, position=position, labels=labels, owned=self._owns)
        self._each.add(each)
        try:
            for name in await self._namespaces.ours():
                each.add(name)
            yield each
        finally:
            self._each.discard(each)
            await each.close()

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """Return a resource's events."""
        return await self._inner.events(kind, namespace, name) if await self._owns(namespace) else []

    # -- writing

    async def create(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Store a new resource."""
        await self._check_new(resource)
        return await self._inner.create(resource, quota=quota)

    async def apply(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Create the resource or replace its spec."""
        await self._check_new(resource)
        return await self._inner.apply(resource, quota=quota)

    async def update(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Replace everything except status."""
        await self._check(type(resource), resource.metadata.namespace, resource.metadata.name)
        return await self._inner.update(resource, quota=quota)

    async def patch_status(self, resource: R) -> R:
        """Replace status."""
        await self._check(type(resource), resource.metadata.namespace, resource.metadata.name)
        return await self._inner.patch_status(resource)

    async def delete(self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None) -> R:
        """Delete the resource, or mark it for deletion."""
        await self._check(kind, namespace, name)
        return await self._inner.delete(kind, namespace, name, uid=uid)

    async def record(self, resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Keep an event."""
        if await self._owns(resource.metadata.namespace):
            await self._inner.record(resource, type_, reason, message)

    # -- the connection

    async def healthy(self) -> bool:
        """Return whether the cluster answers."""
        return await self._inner.healthy()

    async def close(self) -> None:
        """Close all connections."""
        await self._namespaces.close()
        await self._inner.close()


class _OwnEvents(Generic[R]):
    """The filtered events of a watch; a wait that is cancelled loses nothing."""

    def __init__(self, store: ReleaseStore, events: AsyncIterator[WatchEvent[R]]) -> None:
        self._store = store
        self._events = events
        self._pending: asyncio.Future[WatchEvent[R]] | None = None
        self._expired: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def expire(self) -> None:
        """End the watch with `Expired`, also for a caller that is waiting."""
        if not self._expired.done():
            self._expired.set_result(None)

    async def close(self) -> None:
        if self._pending is not None:
            await cancel(self._pending)

    def __aiter__(self) -> _OwnEvents[R]:
        return self

    async def __anext__(self) -> WatchEvent[R]:
        if self._pending is None:
            self._pending = asyncio.ensure_future(anext(self._events))
        either: set[asyncio.Future[Any]] = {self._pending, self._expired}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._expired.done():
            raise Expired(_CHANGED)
        event = await self._store.filtered(self._pending.result())
        self._pending = None
        return event
