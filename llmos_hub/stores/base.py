"""The interface of a store of resources, independent of the database below it.

The semantics are the Kubernetes API's
(https://kubernetes.io/docs/reference/using-api/api-concepts/): an opaque, growing resourceVersion, to be
compared among resources of one kind only; optimistic concurrency; status as a subresource; finalizers; list
and watch. One contract suite (``tests/support/store_contract.py``) holds each implementation to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Literal, Protocol, TypeVar

from llmos.resources.base import Resource

__all__ = [
    "ADDED",
    "BOOKMARK",
    "DELETED",
    "MODIFIED",
    "PAGE_BYTES",
    "Event",
    "Listing",
    "NamespaceQuota",
    "Page",
    "Selector",
    "Store",
    "WatchEvent",
]

R = TypeVar("R", bound=Resource)
Selector = Mapping[str, str]
"""Labels that a resource must have, with these values."""

ADDED: Literal["ADDED"] = "ADDED"
MODIFIED: Literal["MODIFIED"] = "MODIFIED"
DELETED: Literal["DELETED"] = "DELETED"
BOOKMARK: Literal["BOOKMARK"] = "BOOKMARK"

PAGE_BYTES: Final = 1024 * 1024
"""Size in bytes after which a page ends, on databases that can count it; bounds the memory of one reader."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """All resources of a kind, as of one resourceVersion.

    Attributes
    ----------
    items
        The resources, ordered by namespace and name.
    resource_version
        The version from which a watch continues without missing a change.
    """

    items: Sequence[R]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Page(Listing[R]):
    """Some of the resources of a kind; all pages of a list have the resourceVersion of the first page.

    Attributes
    ----------
    token
        The token that `Store.page` takes for the next page; empty on the last page.
    """

    token: str = ""


@dataclass(frozen=True, slots=True)
class NamespaceQuota:
    """A quota for the resources of one kind in a namespace: writes beyond it are refused, but never writes that shrink.

    Attributes
    ----------
    count
        Maximum number of resources.
    size
        Maximum total size in bytes, as stored in the database.
    advice
        A sentence that says what to do when the quota is used up.
    """

    count: int
    size: int
    advice: str = "Delete some."


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[R]):
    """One change; changes come in the order of resourceVersions.

    Attributes
    ----------
    type
        ``ADDED``, ``MODIFIED``, ``DELETED``; ``BOOKMARK`` reports the position of the watch, without a change.
    resource
        The resource after the change; for ``DELETED`` as it last was; None for a bookmark.
    resource_version
        The version from which a new watch continues after this event.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    resource: R | None
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a resource; kept with the resource and deleted with it.

    Attributes
    ----------
    type
        ``Normal`` or ``Warning``.
    reason
        One word for programs: ``Started``, ``OutOfMemory``.
    message
        A sentence for people.
    first, last
        Times of its first and last occurrence.
    count
        Consecutive occurrences: an event equal to the newest one in type, reason and message is counted there.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    first: datetime
    last: datetime
    count: int = 1


class Store(Protocol):
    """A store of resources, by kind, namespace and name.

    Every method raises `llmos.errors.Unavailable` when the database doesn't answer in time; a write may or may
    not have been done then, so the caller reads again. A result that was returned is stored: it survives the death
    of any process. The caller may modify the objects it gets. Every method raises `llmos.errors.Invalid`
    if a namespace is given for a cluster-scoped kind, or missing for a namespaced one.
    """

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """Read one resource.

        Raises
        ------
        NotFound
            It doesn't exist.
        Internal
            Nothing of it can be read; `list` and `watch` leave such a resource out. A resource that this version can't
            read completely, or not with this key, is returned with the reason in `llmos.resources.Resource.unread`. Its
            metadata and status can be written, and it can be replaced by `apply` or deleted.
        """
        ...

    async def list(self, kind: type[R], namespace: str | None = None, *, labels: Selector | None = None) -> Listing[R]:
        """Read all resources of a kind, in one namespace or (None) in all: sorted, and as of one resourceVersion."""
        ...

    async def page(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        limit: int,
        token: str = "",
        labels: Selector | None = None,
    ) -> Page[R]:
        """Read at most `limit` resources of a kind, in the order of `list`; fewer, even none, if others don't match.

        A watch from the resourceVersion that all pages share misses nothing. As in Kubernetes, a page may show changes
        made since the first page was read.

        Raises
        ------
        Expired
            The list was begun too long ago: start again.
        BadRequest
            The token was not issued with a page.
        """
        ...

    def watch(
        self,
        kind: type[R],
        namespace: str | None = None,
        *,
        resource_version: str,
        labels: Selector | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent[R]]]:
        """Follow every change after `resource_version`, without end.

        Use it as ``async with store.watch(...) as events: async for event in events: ...``. A resource that
        starts or stops matching `labels` is reported as ``ADDED`` or ``DELETED``. A bookmark comes
        at least every 30 seconds. A wait that is cancelled (``asyncio.wait_for(anext(events), …)``) loses nothing.
        Errors come on entering or from the iterator.

        Raises
        ------
        Expired
            The store no longer has all changes since then: list again.
        Unavailable
            The database is not reachable, for half a minute if it was before; no change was skipped until now.
        Invalid
            `resource_version` was not issued by a store.
        """
        ...

    async def create(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Store a new resource; sets uid, resourceVersion, generation 1 and creationTimestamp, and ignores given ones.

        ``status`` starts empty, whatever was given: only `patch_status` writes it.

        Raises
        ------
        AlreadyExists
            A resource of that name exists; or another one has a name that it claims (`Resource.claims`), and the error
            has a cause for each. Of concurrent writes that claim a name, from any number of processes, one succeeds.
        Invalid
            It is not valid for its type and could not be read back.
        PayloadTooLarge
            It is larger than etcd would take.
        Insufficient
            It exceeds `quota`. On Valkey this is exact, even if several processes write concurrently.
        Forbidden
            The kind has secrets and this process has no key for them.
        """
        ...

    async def update(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Replace spec, labels, annotations and finalizers of an existing resource; status is not changed.

        ``generation`` grows when ``spec`` changed. A write that changes nothing returns the stored resource, with
        the same resourceVersion. Removing the last finalizer of a resource that is being deleted deletes it.

        Raises
        ------
        NotFound
            It doesn't exist.
        Conflict
            `resource` carries a resourceVersion (or uid) that differs from the stored one.
        AlreadyExists
            Another resource has a name that it claims and the stored one doesn't.
        Invalid
            A finalizer is added to a resource that is being deleted; or as for `create`.
        Insufficient
            It would grow and exceed `quota`.
        """
        ...

    async def apply(self, resource: R, *, quota: NamespaceQuota | None = None) -> R:
        """Create it, or replace the whole ``spec`` and merge labels and annotations; finalizers are not changed.

        Raises
        ------
        Conflict
            As for `update`; or it is being deleted; or it carries a resourceVersion or uid and no longer exists.
        AlreadyExists, Insufficient
            As for `create` and `update`.
        """
        ...

    async def patch_status(self, resource: R) -> R:
        """Replace only ``status``.

        Raises
        ------
        NotFound, Conflict
            As for `update`.
        """
        ...

    async def delete(self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None) -> R:
        """Delete it, or set ``deletionTimestamp`` if it has finalizers; returns its new or last state.

        Raises
        ------
        NotFound
            It doesn't exist.
        Conflict
            `uid` is given and differs from the stored one.
        """
        ...

    async def record(self, resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Keep an event with the resource, at most the newest 100; one equal to the newest is counted there.

        In a cluster events expire after the API server's ``--event-ttl``, usually one hour.

        Nothing is stored if the resource (with the same uid) no longer exists. Messages are cut after 4,096 characters.
        """
        ...

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """Return the events of a resource, oldest first; empty if the resource doesn't exist."""
        ...

    async def healthy(self) -> bool:
        """Return whether the database answers within two seconds."""
        ...

    async def close(self) -> None:
        """Close all connections; open watches end with `Unavailable`."""
        ...
