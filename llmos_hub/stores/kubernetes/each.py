"""Lists and watches of Secrets in a release's namespaces, one namespace at a time.

The right to read all Secrets of a cluster is a right to everything in it, so the platform has it only in its own
namespaces, where the controllers grant it. A cluster has one resourceVersion counter for all its objects, so
the versions of different namespaces can be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar

from llmos.errors import Forbidden, LLMOSError
from llmos.resources import KINDS
from llmos.resources.base import Resource
from llmos_hub.names import PUBLIC_NAMESPACE
from llmos_hub.stores.base import BOOKMARK, Listing, Selector, Store, WatchEvent
from llmos_hub.stores.writes import revision_of
from llmos_hub.tasks import cancel

__all__ = ["EachNamespace", "list_each"]

R = TypeVar("R", bound=Resource)

_AT_ONCE: Final = 16
"""Concurrent lists: a busy API server takes tens of milliseconds for each."""
_AGAIN: Final = 1.0
"""Seconds between attempts to read a new namespace, until the controllers have granted the right."""

logger = logging.getLogger(__name__)


async def list_each(
    store: Store, kind: type[R], namespaces: Iterable[str], *, labels: Selector | None = None
) -> Listing[R]:
    """Return the resources of a kind in these namespaces; namespaces that can't be read (yet) are left out.

    The version is the oldest of the lists, so that a watch from there repeats changes rather than skips one.
    """
    turns = asyncio.Semaphore(_AT_ONCE)

    async def read(namespace: str) -> Listing[R] | None:
        async with turns:
            try:
                return await store.list(kind, namespace, labels=labels)
            except Forbidden as error:
                logger.info("%s of %s are left out: %s", kind.plural, namespace, error.message)
                return None

    found = [listing for listing in await asyncio.gather(*map(read, sorted(namespaces))) if listing is not None]
    if not found:  # a list of any kind in the same database has a version that fits
        other = next(each for each in KINDS.values() if each.stored_as == "CustomResource")
        return Listing([], (await store.list(other, PUBLIC_NAMESPACE)).resource_version)
    version = min((listing.resource_version for listing in found), key=revision_of)
    return Listing([item for listing in found for item in listing.items], version)


class EachNamespace(Generic[R]):
    """A watch over several namespaces: an endless asynchronous iterator of changes. `add` namespaces, then `close` it.

    Each event carries a version from which a new watch would skip no change that is still to be reported.

    Parameters
    ----------
    store, kind, labels
        The store, kind and labels to watch.
    position
        The version after which it begins, also in namespaces that are added later.
    owned
        Returns whether a namespace still belongs to the release.
    bookmark_interval
        Seconds after which a quiet watch gets a bookmark.
    """

    def __init__(
        self,
        store: Store,
        kind: type[R],
        *,
        position: str,
        labels: Selector | None,
        owned: Callable[[str], Awaitable[bool]],
        bookmark_interval: float = 15.0,
    ) -> None:
        self._store, self._kind, self._labels = store, kind, labels
        self._position = position
        self._owned = owned
        self._bookmark_interval = bookmark_interval
        self._queue: asyncio.Queue[tuple[str, WatchEvent[R]] | LLMOSError] = asyncio.Queue(64)
        self._reached: dict[str, str] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def add(self, namespace: str) -> None:
        """Watch a namespace, unless it is watched already."""
        if namespace not in self._tasks:
            self._reached[namespace] = self._position
            self._tasks[namespace] = asyncio.create_task(self._follow(namespace), name=f"watch {namespace}")

    async def close(self) -> None:
        """Stop all watches."""
        await cancel(*self._tasks.values())

    async def _follow(self, namespace: str) -> None:
        try:
            while await self._owned(namespace):
                with contextlib.suppress(Forbidden):
                    await self._watch(namespace)
                await asyncio.sleep(_AGAIN)
        except LLMOSError as error:
            await self._queue.put(error)
        finally:
            self._reached.pop(namespace, None)
            self._tasks.pop(namespace, None)

    async def _watch(self, namespace: str) -> None:
        since = self._reached[namespace]
        async with self._store.watch(self._kind, namespace, resource_version=since, labels=self._labels) as events:
            async for event in events:
                await self._queue.put((namespace, event))

    def __aiter__(self) -> EachNamespace[R]:
        return self

    async def __anext__(self) -> WatchEvent[R]:
        while True:
            try:
                async with asyncio.timeout(self._bookmark_interval):
                    item = await self._queue.get()
            except TimeoutError:
                return WatchEvent(BOOKMARK, None, self._told())
            if isinstance(item, LLMOSError):
                raise item
            namespace, event = item
            if namespace in self._reached:
                self._reached[namespace] = event.resource_version
            if event.type != BOOKMARK:
                return WatchEvent(event.type, event.resource, self._told())

    def _told(self) -> str:
        return min(self._reached.values(), key=revision_of, default=self._position)
