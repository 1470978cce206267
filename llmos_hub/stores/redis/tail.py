"""A reader of the stream of changes, one per process, and any number of watches on it.

A watch is in one of two states. *Joined*: the reader passes it every change of its kind through a bounded
queue. *Catching up*: it reads the stream itself, page by page, from its position; so does a watch that starts at
an old revision, and one whose queue is full because its user is slow. Memory is bounded either way, and
since revisions have no gaps, a gap means that the stream was trimmed meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from llmos.errors import LLMOSError, Unavailable
from llmos.resources.base import Resource
from llmos_hub.stores.base import BOOKMARK, Selector, WatchEvent
from llmos_hub.stores.redis.changes import Change, StreamState, changes_of, revision_of_id
from llmos_hub.stores.redis.keys import ResourceKeys
from llmos_hub.stores.redis.scripts import CHANGES, STATE
from llmos_hub.stores.writes import expired
from llmos_hub.tasks import cancel
from llmos_hub.valkey.database import Database

__all__ = ["Decode", "StreamWatch", "Tail"]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)
Decode = Callable[[type[R], Change], R | None]
"""A function that returns the resource of a change; None if this version can't read it."""

PAGE: Final = 200
"""Changes read at once: a few milliseconds of the event loop's time, and usually half a megabyte."""
QUEUE: Final = 1024
"""Maximum changes in the queue of a watch; beyond that it must catch up by itself."""
QUEUE_BYTES: Final = 1024 * 1024
"""Maximum bytes of the queue, and of the changes read at once: bounds the memory of a slow watch."""
BLOCK: Final = 5.0
"""Seconds for which the server blocks a read without changes; then the reader checks that it is the same database."""
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between attempts to reach the server
_BEHIND_PAUSE: Final = 0.05  # seconds to wait if the reader is ahead of the stream


class StreamWatch(Generic[R]):
    """A watch: an endless asynchronous iterator of changes.

    A call that is cancelled loses nothing: the next one returns what it would have.
    """

    def __init__(
        self, tail: Tail, kind: type[R], namespace: str | None, labels: Selector | None, *, epoch: str, revision: int
    ) -> None:
        self._tail = tail
        self._kind = kind
        self._labels = labels
        self.plural = kind.plural
        self.namespace = namespace
        self.position = revision
        self.epoch = epoch
        self.queue: deque[Change] = deque()
        self.queued = 0
        self.woken = asyncio.Event()
        self.error: LLMOSError | None = None
        self._told = time.monotonic()

    def __aiter__(self) -> StreamWatch[R]:
        return self

    async def __anext__(self) -> WatchEvent[R]:
        while True:
            while self.queue:
                change = self.queue.popleft()
                self.queued -= len(change.body)
                if (event := self._event(change)) is not None:
                    return event
            if self.error is not None:
                raise type(self.error)(self.error.message)  # a new instance: several watches raise this error
            if time.monotonic() - self._told >= self._tail.bookmark_interval:
                return self._bookmark()
            if self._tail.join(self):
                self.position = max(self.position, self._tail.position)
                await self._wait()
            else:
                for change in await self._tail.page(self):
                    self.put(change)

    def put(self, change: Change) -> None:
        """Queue a change for the watch's user."""
        self.queue.append(change)
        self.queued += len(change.body)

    async def _wait(self) -> None:
        self.woken.clear()
        left = self._told + self._tail.bookmark_interval - time.monotonic()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                await self.woken.wait()

    def _bookmark(self) -> WatchEvent[R]:
        self._told = time.monotonic()
        return WatchEvent(BOOKMARK, None, str(self.position))

    def _event(self, change: Change) -> WatchEvent[R] | None:
        """Return the event of a change for this watch; None if it doesn't see the change."""
        if change.revision <= self.position:
            return None
        self.position = change.revision
        if not self.wants(change) or (type_ := change.seen_by(self._labels)) is None:
            return None
        resource = self._tail.decode(self._kind, change)
        if resource is None:
            return None
        self._told = time.monotonic()
        return WatchEvent(type_, resource, str(change.revision))

    def wants(self, change: Change) -> bool:
        """Return whether the change is of the watch's kind and namespace."""
        return change.kind == self.plural and self.namespace in (None, change.namespace)


class Tail:
    """A reader of the stream of changes for all watches of a process.

    Parameters
    ----------
    database
        The database with the stream.
    decode
        Returns the resource of a change.
    bookmark_interval
        Seconds after which a quiet watch gets a bookmark.
    patience
        Seconds without the database after which watches end with `Unavailable`.
    """

    def __init__(
        self, database: Database, decode: Decode[Any], *, bookmark_interval: float = 15.0, patience: float = 30.0
    ) -> None:
        self._database = database
        self._keys = ResourceKeys()
        self.decode = decode
        self.bookmark_interval = bookmark_interval
        self._patience = patience
        self.position = -1
        self._epoch = ""
        self._joined: dict[str, set[StreamWatch[Any]]] = defaultdict(set)
        self._all: set[StreamWatch[Any]] = set()
        self._task: asyncio.Task[None] | None = None
        self._away_since: float | None = None

    async def state(self) -> StreamState:
        """Return the current position of the database.

        Raises
        ------
        Unavailable
            It doesn't answer.
        """
        for _ in range(3):
            await self._database.epoch()
            epoch, revision, first = await self._database.script(
                STATE, [self._keys.epoch, self._keys.revision, self._keys.changes], [], repeatable=True
            )
            if epoch is not None and revision is not None:
                return StreamState(epoch.decode(), int(revision), revision_of_id(first) if first else None)
            self._database.forget()
        raise Unavailable(f"The database at {self._database} is being emptied.")

    async def open(
        self, kind: type[R], namespace: str | None, labels: Selector | None, revision: int
    ) -> StreamWatch[R]:
        """Open a watch on the changes after `revision` in one namespace or (None) all; end it with `release`.

        Raises
        ------
        Expired
            The stream doesn't go back that far.
        Unavailable
            The database doesn't answer.
        """
        state = await self.state()
        state.check(revision)
        if self._task is None:
            self.position, self._epoch = state.revision, state.epoch
            self._task = asyncio.create_task(self._run(), name="store-tail")
        watch = StreamWatch(self, kind, namespace, labels, epoch=state.epoch, revision=revision)
        self._all.add(watch)
        return watch

    def release(self, watch: StreamWatch[Any]) -> None:
        """End a watch."""
        self._all.discard(watch)
        self._joined[watch.plural].discard(watch)

    def join(self, watch: StreamWatch[Any]) -> bool:
        """Pass the watch every change from now on; return False if it must catch up first."""
        if watch in self._joined[watch.plural]:
            return True
        if watch.position < self.position or watch.epoch != self._epoch:
            return False
        self._joined[watch.plural].add(watch)
        return True

    async def page(self, watch: StreamWatch[Any]) -> list[Change]:
        """Read the next changes after the watch's position from the stream.

        Raises
        ------
        Expired
            They were trimmed.
        Unavailable
            The database doesn't answer for longer than the reader's patience.
        """
        start = time.monotonic()
        while True:
            try:
                arguments = [f"{watch.position}-0", PAGE, QUEUE_BYTES]
                entries = await self._database.script(CHANGES, [self._keys.changes], arguments, repeatable=True)
                if not entries:
                    state = await self.state()
                    if state.epoch != watch.epoch:
                        raise expired(watch.position)
                    state.check(watch.position)
                    await asyncio.sleep(_BEHIND_PAUSE)
                    return []
                break
            except Unavailable:
                if watch.error is not None:
                    raise type(watch.error)(watch.error.message) from None
                if time.monotonic() - start > self._patience:
                    raise
                await asyncio.sleep(_PAUSES[-1])
        changes = changes_of(entries)
        if changes[0].revision != watch.position + 1:
            raise expired(watch.position)
        wanted = [change for change in changes if watch.wants(change)]
        if not wanted or wanted[-1] is not changes[-1]:
            wanted.append(changes[-1])  # not wanted, but it advances the position
        return wanted

    async def close(self) -> None:
        """Stop reading; open watches raise `Unavailable`."""
        if self._task is not None:
            await cancel(self._task)
            self._task = None
        self._end(Unavailable("The store was closed."))

    def _end(self, error: LLMOSError, keep: Callable[[StreamWatch[Any]], bool] | None = None) -> None:
        """End all watches except those to `keep` with that error, after the changes in their queues."""
        for watch in self._all:
            if watch.error is None and not (keep and keep(watch)):
                watch.error = error
            watch.woken.set()  # watches that are kept have to join again
        self._joined.clear()

    async def _run(self) -> None:
        """Read endlessly; after any failure, continue from the last position."""
        failures = 0
        while True:
            try:
                await self._resume()
                failures, self._away_since = 0, None
                while await self._read():
                    pass
            except Unavailable as error:
                self._gone(error)
            except Exception:
                log.exception("Reading the stream of changes failed; it is tried again.")
            else:
                continue
            await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES) - 1)])
            failures += 1

    def _gone(self, error: Unavailable) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("Watches wait: %s", error.message)
        elif now - self._away_since > self._patience:
            self._end(error)

    async def _resume(self) -> None:
        """Check that it is still the same database with all changes not yet read; if not, end the watches."""
        state = await self.state()
        if state.epoch == self._epoch and state.reaches(self.position):
            return
        log.warning("The database at %s no longer has all changes; watches must list again.", self._database)
        self._end(
            expired(self.position),
            lambda watch: watch.epoch == state.epoch and state.reaches(watch.position) and not watch.queue,
        )
        self.position, self._epoch = state.revision, state.epoch

    async def _read(self) -> bool:
        """Read and pass on the next changes; return False if there were none for `BLOCK` seconds."""
        reply = await self._database.run(
            *("XREAD", "COUNT", PAGE, "BLOCK", int(BLOCK * 1000)),
            *("STREAMS", self._keys.changes, f"{self.position}-0"),
            repeatable=True,
            timeout=BLOCK + self._database.timeout,
        )
        if not reply:
            return False
        for change in changes_of(reply[0][1]):
            if change.revision != self.position + 1:
                self._end(expired(self.position))
            self.position = change.revision
            self._hand_out(change)
        return True

    def _hand_out(self, change: Change) -> None:
        watches = self._joined[change.kind]
        full = []
        for watch in watches:
            if watch.namespace not in (None, change.namespace):
                continue
            if len(watch.queue) >= QUEUE or watch.queued >= QUEUE_BYTES:
                full.append(watch)
                continue
            watch.put(change)
            watch.woken.set()
        watches.difference_update(full)
