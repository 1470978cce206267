"""What every store of resources does, whichever database is under it.

The semantics are the Kubernetes API's
(https://kubernetes.io/docs/reference/using-api/api-concepts/): an opaque, growing resourceVersion, to be
compared among resources of one kind only; optimistic concurrency; status as a subresource; finalizers; list
and watch. One contract suite (``tests/support/store_contract.py``) holds each implementation to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from llmos.resources.base import Resource

__all__ = [
    "ADDED",
    "BOOKMARK",
    "DELETED",
    "MODIFIED",
    "PAGE_BYTES",
    "Event",
    "Listing",
    "Page",
    "Room",
    "Selector",
    "Store",
    "WatchEvent",
]

R = TypeVar("R", bound=Resource)
Selector = Mapping[str, str]
"""Labels that must all be there with that value."""

ADDED: Literal["ADDED"] = "ADDED"
MODIFIED: Literal["MODIFIED"] = "MODIFIED"
DELETED: Literal["DELETED"] = "DELETED"
BOOKMARK: Literal["BOOKMARK"] = "BOOKMARK"

PAGE_BYTES: Final = 1024 * 1024
"""Bytes after which a page ends, where the database can count them: what one reader costs at a time."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[R]):
    """A consistent reading of a kind.

    Attributes
    ----------
    items
        The resources, ordered by namespace and name.
    resource_version
        Where a watch goes on without missing anything.
    """

    items: Sequence[R]
    resource_version: str


@dataclass(frozen=True, slots=True)
class Page(Listing[R]):
    """Some of a kind; all pages of a list have the resourceVersion of its first.

    Attributes
    ----------
    token
        What `Store.page` takes to go on; empty where nothing is left.
    """

    token: str = ""


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a kind a namespace may hold; a write that would need more is refused, one that needs less never is.

    Attributes
    ----------
    count
        Resources.
    size
        Bytes of all of them as they lie in the database.
    advice
        A sentence on what to do when it is used up.
    """

    count: int
    size: int
    advice: str = "Delete some."


@dataclass(frozen=True, slots=True)
class WatchEvent(Generic[R]):
    """One change, in the order of resourceVersions.

    Attributes
    ----------
    type
        ``ADDED``, ``MODIFIED``, ``DELETED``; ``BOOKMARK`` says how far the watch is, without a change.
    resource
        The resource after the change; for ``DELETED`` as it last was; None for a bookmark.
    resource_version
        From where a new watch goes on after this event.
    """

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    resource: R | None
    resource_version: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a resource; kept with it and gone with it.

    Attributes
    ----------
    type
        ``Normal`` or ``Warning``.
    reason
        One word for programs: ``Started``, ``OutOfMemory``.
    message
        A sentence for people.
    first, last
        When it happened first and last.
    count
        How often, in a row: an event equal to the newest one in type, reason and message is counted there.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
    first: datetime
    last: datetime
    count: int = 1
    extra: Mapping[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """Resources by kind, namespace and name.

    Every method raises `llmos.errors.Unavailable` when the database doesn't answer in time; a write may then
    have been done or not, so that its caller reads again. What was returned is stored: it survives the death
    of any process. What is returned is the caller's own to change. Every method raises `llmos.errors.Invalid`
    where a namespace is given for a kind that has none, or missing for one that needs it.
    """

    async def get(self, kind: type[R], namespace: str | None, name: str) -> R:
        """Read one.

        Raises
        ------
        NotFound
            There is none.
        Internal
            Nothing of it can be read; `list` and `watch` leave such a one out. What this version can't read whole, or not
            with this key, is returned and says so: see `llmos.resources.Resource.unread`. Its metadata and status can be
            written, it can be replaced by `apply` and deleted.
        """
        ...

    async def list(self, kind: type[R], namespace: str | None = None, *, labels: Selector | None = None) -> Listing[R]:
        """Read all of a kind, in one namespace or (None) in all; ordered, and consistent with its resourceVersion."""
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
        """Read some of a kind, at most `limit`, in the order of `list`; fewer, even none, where others don't match.

        A watch from the resourceVersion that all pages share misses nothing. As in Kubernetes, a page may show what was
        changed since the first one was read.

        Raises
        ------
        Expired
            The list was begun too long ago: begin anew.
        BadRequest
            The token is none that a page had.
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

        Used as ``async with store.watch(...) as events: async for event in events: ...``. A resource that
        comes to match, or no longer matches, `labels` is reported as ``ADDED`` or ``DELETED``. A bookmark comes
        at least every 30 seconds. A wait that is cancelled (``asyncio.wait_for(anext(events), …)``) loses nothing.
        Errors come on entering or from the iterator.

        Raises
        ------
        Expired
            The store no longer knows all changes since then: list again.
        Unavailable
            The database is gone, for half a minute if it was there before; nothing was skipped so far.
        Invalid
            `resource_version` is none that a store gave out.
        """
        ...

    async def create(self, resource: R, *, room: Room | None = None) -> R:
        """Store a new one; sets uid, resourceVersion, generation 1 and creationTimestamp, and ignores those given.

        ``status`` starts empty, whatever was given: `patch_status` alone writes it.

        Raises
        ------
        AlreadyExists
            There is one of that name.
        Invalid
            It doesn't fit its own type and could not be read back.
        PayloadTooLarge
            It is larger than etcd would take.
        Insufficient
            There is no `room` left. On Valkey that is exact, however many processes write at once.
        Forbidden
            The kind has secrets and this process has no key for them.
        """
        ...

    async def update(self, resource: R, *, room: Room | None = None) -> R:
        """Replace spec, labels, annotations and finalizers of an existing one; status is left alone.

        ``generation`` grows when ``spec`` changed. A write that changes nothing returns what is there, with
        the same resourceVersion. When deletion was asked for and the last finalizer goes, the resource goes.

        Raises
        ------
        NotFound
            There is none.
        Conflict
            `resource` carries a resourceVersion (or uid) and the stored one is another.
        Invalid
            A finalizer is added though deletion was asked for; or as for `create`.
        Insufficient
            It would grow, and there is no `room` left.
        """
        ...

    async def apply(self, resource: R, *, room: Room | None = None) -> R:
        """Create it, or replace ``spec`` whole and merge labels and annotations; finalizers are left alone.

        Raises
        ------
        Conflict
            As for `update`; or deletion was asked for; or it carries a resourceVersion or uid and is gone.
        Insufficient
            As for `create` and `update`.
        """
        ...

    async def patch_status(self, resource: R) -> R:
        """Replace ``status`` alone.

        Raises
        ------
        NotFound, Conflict
            As for `update`.
        """
        ...

    async def delete(self, kind: type[R], namespace: str | None, name: str, *, uid: str | None = None) -> R:
        """Delete, or where finalizers are there set ``deletionTimestamp``; returns what is left or last was.

        Raises
        ------
        NotFound
            There is none.
        Conflict
            `uid` is given and the stored one is another.
        """
        ...

    async def record(self, resource: Resource, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Keep an event with the resource, the newest 100; one equal to the newest is counted there.

        In a cluster events are forgotten after the API server's ``--event-ttl``, an hour as a rule.

        Nothing happens where the resource (that of the same uid) is gone. A message is cut after 4,096 characters.
        """
        ...

    async def events(self, kind: type[Resource], namespace: str | None, name: str) -> Sequence[Event]:
        """The events of a resource, oldest first; empty where there is none of the name."""
        ...

    async def healthy(self) -> bool:
        """Whether the database answers, within two seconds."""
        ...

    async def close(self) -> None:
        """Let go of all connections; watches under way end with `Unavailable`."""
        ...
