"""A watch on the API server that continues after time-outs, restarts and broken connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

from llmos.errors import Expired, LLMOSError, Unavailable
from llmos.resources.base import Resource
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI
from llmos_hub.stores.base import BOOKMARK, WatchEvent
from llmos_hub.stores.writes import expired
from llmos_hub.tasks import cancel

__all__ = ["ClusterWatch"]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

QUEUE: Final = 256
"""Events that wait for the watch's user; beyond that reading stops, and the server may end the watch."""
PERIOD: Final = (50.0, 70.0)
"""Range of the seconds that one request lasts. The server sends a bookmark just before it ends one, so that a
quiet watch doesn't fall behind; the time is random so that not all watches reconnect at once."""
_IDLE: Final = 90.0  # seconds without a byte: the server ended the request before that, and the connection is dead
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between attempts to reach the server


class ClusterWatch(Generic[R]):
    """A watch: an endless asynchronous iterator of changes. `start` it, and `close` it.

    A call that is cancelled loses nothing: the next one returns what it would have.

    Parameters
    ----------
    api
        The connection to the cluster.
    path, params
        The collection to watch, and its selectors.
    read
        Converts an object to a resource; None if this version can't read it.
    refusal
        Converts the server's error to the platform's.
    position
        The resourceVersion after which it begins.
    bookmark_interval
        Seconds after which a quiet watch gets a bookmark.
    patience
        Seconds without the server after which it ends.
    """

    def __init__(
        self,
        api: KubernetesAPI,
        path: str,
        params: Mapping[str, str],
        *,
        read: Callable[[Mapping[str, Any]], R | None],
        refusal: Callable[[APIError], LLMOSError],
        position: str,
        bookmark_interval: float,
        patience: float,
    ) -> None:
        self._api, self._path, self._params = api, path, dict(params)
        self._read, self._refusal = read, refusal
        self._reached = position  # by the reading task
        self._told = position  # by events that the user has received
        self._bookmark_interval, self._patience = bookmark_interval, patience
        self._queue: asyncio.Queue[WatchEvent[R] | LLMOSError] = asyncio.Queue(QUEUE)
        self._error: LLMOSError | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the reading task."""
        self._task = asyncio.create_task(self._run(), name=f"watch {self._path}")

    async def close(self) -> None:
        """Close the connection; its user gets `Unavailable`."""
        if self._task is not None:
            await cancel(self._task)
        if not self._queue.full():
            self._queue.put_nowait(Unavailable("The store was closed."))  # wakes a waiting user

    def __aiter__(self) -> ClusterWatch[R]:
        return self

    async def __anext__(self) -> WatchEvent[R]:
        if self._error is None and self._queue.empty() and self._task is not None and self._task.done():
            self._error = Unavailable("The watch is over.")
        if self._error is None:
            try:
                async with asyncio.timeout(self._bookmark_interval):
                    item = await self._queue.get()
            except TimeoutError:
                return WatchEvent(BOOKMARK, None, self._told)
            if not isinstance(item, LLMOSError):
                self._told = item.resource_version
                return item
            self._error = item
        raise type(self._error)(self._error.message)

    async def _run(self) -> None:
        """Send request after request; give up only if changes would be skipped or the server is away for too long."""
        failures, away_since, doubtful = 0, None, True
        while True:
            began = time.monotonic()
            try:
                if doubtful:
                    await self._check()
                    doubtful = False
                await self._follow()
                failures, away_since = (0 if time.monotonic() - began > 1 else failures + 1), None
            except Expired as error:
                await self._queue.put(error)
                return
            except Unavailable as error:
                if time.monotonic() - began > 1:  # it was reachable in between
                    failures, away_since = 0, None
                away_since = away_since or time.monotonic()
                failures, doubtful = failures + 1, True
                if time.monotonic() - away_since > self._patience:
                    await self._queue.put(error)
                    return
                log.log(logging.INFO if failures > 1 else logging.DEBUG, "%s: %s", self._path, error.message)
            except LLMOSError as error:
                await self._queue.put(error)
                return
            except Exception:
                log.exception("Watching %s failed", self._path)
                await self._queue.put(Unavailable("The watch failed; the log knows more."))
                return
            if failures:
                await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1])

    async def _check(self) -> None:
        """Raise an error unless the server has reached the version to watch from.

        Asked to watch from a future version, the server sends nothing until it reaches it. That would happen after
        its database was restored from a backup.
        """
        params = {
            **self._params,
            "limit": "1",
            "resourceVersion": self._reached,
            "resourceVersionMatch": "NotOlderThan",
        }
        try:
            await self._api.request("GET", self._path, params=params)
        except APIError as error:
            raise self._error_of(error) from None

    async def _follow(self) -> None:
        """Send one watch request, from the position where the last one ended."""
        seconds = round(random.uniform(*PERIOD))  # noqa: S311 - spreads load, guards nothing
        watch = self._api.watch(self._path, params=self._params, version=self._reached, seconds=seconds, idle=_IDLE)
        try:
            async with contextlib.aclosing(watch) as events:
                async for event in events:
                    await self._take(event)
        except APIError as error:
            raise self._error_of(error) from None

    def _error_of(self, error: APIError) -> LLMOSError:
        # after a restore of the server's database a later version is as unknown as one that is too old
        if error.status == 410 or error.because("ResourceVersionTooLarge"):
            return expired(self._reached)
        return self._refusal(error)

    async def _take(self, event: dict[str, Any]) -> None:
        obj = event["object"]
        version = obj["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            if version != self._reached:
                self._reached = version
                await self._queue.put(WatchEvent(BOOKMARK, None, version))
            return
        resource = self._read(obj)
        if resource is not None:
            await self._queue.put(WatchEvent(event["type"], resource, version))
        self._reached = version
