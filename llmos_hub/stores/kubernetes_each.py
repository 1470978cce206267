"""Lists and watches of Secrets over a release's namespaces, one by one.

A right to read all Secrets of a cluster is a right to everything in it, so that the platform holds it only in its own
namespaces, where the controllers give it. A cluster's versions count all its objects, so that those of the
namespaces can be compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, Generic, TypeVar

from llmos.errors import Forbidden, LLMOSError
from llmos.resources import ModelService
from llmos.resources.base import Resource
from llmos_hub.names import PUBLIC_NAMESPACE
from llmos_hub.stores.base import BOOKMARK, Listing, Selector, Store, WatchEvent
from llmos_hub.stores.changes import revision_of

__all__ = ["EachNamespace", "list_each"]

R = TypeVar("R", bound=Resource)

_AT_ONCE: Final = 16
"""Lists under way: a busy API server takes tens of milliseconds for each."""
_AGAIN: Final = 1.0
"""Seconds until it is seen whether the controllers have given the right to read a new namespace."""

logger = logging.getLogger(__name__)


async def list_each(
    store: Store, kind: type[R], namespaces: Iterable[str], *, labels: Selector | None = None
) -> Listing[R]:
    """All of a kind in these namespaces; none of one that can't be read (yet).

    Its version is that of the first list, so that a watch from there tells of some again rather than skip one.
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
    if not found:  # a version is one all the same
        return Listing([], (await store.list(ModelService, PUBLIC_NAMESPACE)).resource_version)
    version = min((listing.resource_version for listing in found), key=revision_of)
    return Listing([item for listing in found for item in listing.items], version)


class EachNamespace(Generic[R]):
    """A watch over namespaces: an asynchronous iterator of changes, without end. `add` them, and `close` it.

    The version that comes with a change is one from which nothing that is yet to be told would be skipped.

    Parameters
    ----------
    store, kind, labels
        What is watched.
    position
        The version after which it begins, in namespaces that come later too.
    owned
        Whether a namespace is still one of them.
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
        """Follow what happens in a namespace, unless it is followed already."""
        if namespace not in self._tasks:
            self._reached[namespace] = self._position
            self._tasks[namespace] = asyncio.create_task(self._follow(namespace), name=f"watch {namespace}")

    async def close(self) -> None:
        """Follow no more."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
