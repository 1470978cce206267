"""One reader of the stream of changes per process, and any number of watches on it.

A watch is in one of two states. *Joined*: the reader hands it every change of its kind through a bounded
queue. *Catching up*: it reads the stream itself, page by page, from where it is; so does one that starts at
an old revision, and one whose queue ran over because its user is slow. Memory is bounded either way, and
since revisions have no holes, one that meets a hole knows that the stream was trimmed under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, Literal, TypeVar, cast

from llmos.errors import Expired, Invalid, LLMOSError, Unavailable
from llmos.resources.base import Resource
from llmos_hub.stores._lua import STATE
from llmos_hub.stores.base import ADDED, BOOKMARK, DELETED, MODIFIED, Selector, WatchEvent
from llmos_hub.stores.database import Database
from llmos_hub.stores.rules import match

__all__ = ["Change", "Decode", "Scope", "State", "Tail", "Watch", "revision_of"]

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)
Decode = Callable[[type[R], "Change"], R | None]
"""The resource of a change; None where this version can't read it."""

PAGE: Final = 500
"""Changes read at once: a few milliseconds of the event loop's time."""
QUEUE: Final = 1024
"""Changes that wait for one watch before it must catch up by itself."""
BLOCK: Final = 5.0
"""Seconds for which the server holds a read that finds nothing; then the reader checks who it talks to."""
_PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds between attempts to reach the server
_BEHIND_PAUSE: Final = 0.05  # seconds to wait where the reader is ahead of what can be read


class Change:
    """An entry of the stream.

    Parameters
    ----------
    revision
        Its revision.
    fields
        The entry's fields as the script wrote them.
    """

    __slots__ = ("__dict__", "_before", "_labels", "body", "kind", "name", "namespace", "revision", "type")

    def __init__(self, revision: int, fields: list[bytes]) -> None:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        self.revision = revision
        # an entry without these fields is of no kind that anyone here watches
        self.type = cast("Literal['ADDED', 'MODIFIED', 'DELETED']", values.get(b"t", b"").decode())
        self.kind = values.get(b"k", b"").decode()
        self.namespace = values.get(b"n", b"").decode()
        self.name = values.get(b"m", b"").decode()
        self.body = values.get(b"o", b"")
        self._labels = values.get(b"l", b"{}")
        self._before = values.get(b"p", b"")

    @cached_property
    def labels(self) -> dict[str, str]:
        """The resource's labels after the change, for a removal as they last were."""
        return cast("dict[str, str]", json.loads(self._labels))

    @cached_property
    def labels_before(self) -> dict[str, str]:
        """The resource's labels before the change."""
        return cast("dict[str, str]", json.loads(self._before)) if self._before else self.labels

    def seen_by(self, selector: Selector | None) -> Literal["ADDED", "MODIFIED", "DELETED"] | None:
        """What the change is to one who sees only what matches `selector`."""
        now = match(self.labels, selector)
        if self.type != MODIFIED:
            return self.type if now else None
        before = match(self.labels_before, selector)
        if now:
            return MODIFIED if before else ADDED
        return DELETED if before else None


def _changes(entries: Any) -> list[Change]:
    return [Change(_of_id(entry_id), fields) for entry_id, fields in entries]


def _of_id(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


def revision_of(resource_version: str) -> int:
    """The revision that a resourceVersion stands for.

    Raises
    ------
    Invalid
        It is none that a store gave out.
    """
    if not (resource_version.isascii() and resource_version.isdigit()):
        message = f'resourceVersion: "{resource_version[:40]}" is none that this store gave out. List again and watch from there.'
        raise Invalid(message)
    return int(resource_version)


def _expired(revision: int) -> Expired:
    return Expired(
        f"The changes since resourceVersion {revision} are not known any more. List again and watch from there."
    )


@dataclass(frozen=True, slots=True)
class State:
    """Where the database is.

    Attributes
    ----------
    epoch
        Which database it is.
    revision
        Its newest revision.
    first
        The oldest revision in the stream, None where it is empty.
    """

    epoch: str
    revision: int
    first: int | None

    def reaches(self, revision: int) -> bool:
        """Whether all changes after `revision` can be read; no if it is none of this database's."""
        known_from = self.revision if self.first is None else self.first - 1
        return known_from <= revision <= self.revision

    def check(self, revision: int) -> None:
        """The same as an error.

        Raises
        ------
        Expired
            Some were trimmed; or the revision is none of this database's.
        """
        if not self.reaches(revision):
            raise _expired(revision)


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a kind a watch sees: a namespace or (None) all, and the labels that must be there."""

    namespace: str | None = None
    labels: Selector | None = None


class Watch(Generic[R]):
    """One watch: an asynchronous iterator of changes, without end.

    A call that is cancelled loses nothing: the next one returns what it would have.
    """

    def __init__(self, tail: Tail, kind: type[R], state: State, revision: int, scope: Scope) -> None:
        self._tail = tail
        self._kind = kind
        self._labels = dict(scope.labels or {})
        self.plural = kind.plural
        self.namespace = scope.namespace
        self.position = revision
        self.epoch = state.epoch
        self.queue: deque[Change] = deque()
        self.woken = asyncio.Event()
        self.error: LLMOSError | None = None
        self._told = time.monotonic()

    def __aiter__(self) -> Watch[R]:
        return self

    async def __anext__(self) -> WatchEvent[R]:
        while True:
            while self.queue:
                change = self.queue.popleft()
                if (event := self._event(change)) is not None:
                    return event
            if self.error is not None:
                raise self.error
            if time.monotonic() - self._told >= self._tail.bookmark_interval:
                return self._bookmark()
            if self._tail.join(self):
                self.position = max(self.position, self._tail.position)
                await self._wait()
            else:
                self.queue.extend(await self._tail.page(self))

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
        """What the change is to this watch, None where it is nothing."""
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
        """Whether the change is of the watch's kind and namespace."""
        return change.kind == self.plural and self.namespace in (None, change.namespace)


class Tail:
    """The reader.

    Parameters
    ----------
    database
        Where the stream is.
    decode
        Makes the resource of a change.
    bookmark_interval
        Seconds after which a quiet watch gets a bookmark.
    patience
        Seconds without the database after which watches end with `Unavailable`.
    """

    def __init__(
        self, database: Database, decode: Decode[Any], *, bookmark_interval: float = 15.0, patience: float = 30.0
    ) -> None:
        self._database = database
        self.decode = decode
        self.bookmark_interval = bookmark_interval
        self._patience = patience
        self.position = -1
        self._epoch = ""
        self._joined: dict[str, set[Watch[Any]]] = defaultdict(set)
        self._all: set[Watch[Any]] = set()
        self._task: asyncio.Task[None] | None = None
        self._away_since: float | None = None

    async def state(self) -> State:
        """Where the database is now.

        Raises
        ------
        Unavailable
            It doesn't answer.
        """
        keys = self._database.keys
        for _ in range(3):
            await self._database.epoch()
            epoch, revision, first = await self._database.script(
                STATE, [keys.epoch, keys.revision, keys.changes], [], repeatable=True
            )
            if epoch is not None:
                return State(epoch.decode(), int(revision), _of_id(first) if first else None)
            self._database.forget()
        message = f"The database at {self._database} is being emptied."
        raise Unavailable(message)

    async def open(self, kind: type[R], revision: int, scope: Scope) -> Watch[R]:
        """A watch from after `revision`; give it back with `release`.

        Raises
        ------
        Expired
            The stream doesn't reach back so far.
        Unavailable
            The database doesn't answer.
        """
        state = await self.state()
        state.check(revision)
        if self._task is None:
            self.position, self._epoch = state.revision, state.epoch
            self._task = asyncio.create_task(self._run(), name="store-tail")
        watch = Watch(self, kind, state, revision, scope)
        self._all.add(watch)
        return watch

    def release(self, watch: Watch[Any]) -> None:
        """The watch is over."""
        self._all.discard(watch)
        self._joined[watch.plural].discard(watch)

    def join(self, watch: Watch[Any]) -> bool:
        """Hand the watch every change from now on; False where it must catch up first."""
        if watch in self._joined[watch.plural]:
            return True
        if watch.position < self.position or watch.epoch != self._epoch:
            return False
        self._joined[watch.plural].add(watch)
        return True

    async def page(self, watch: Watch[Any]) -> list[Change]:
        """The next changes after the watch's position, read from the stream.

        Raises
        ------
        Expired
            They were trimmed.
        Unavailable
            The database doesn't answer for as long as the reader is patient.
        """
        start = time.monotonic()
        while True:
            try:
                entries = await self._database.run(
                    "XRANGE", self._database.keys.changes, f"({watch.position}-0", "+", "COUNT", PAGE, repeatable=True
                )
                if not entries:
                    state = await self.state()
                    if state.epoch != watch.epoch:
                        raise _expired(watch.position)
                    state.check(watch.position)
                    await asyncio.sleep(_BEHIND_PAUSE)
                    return []
                break
            except Unavailable:
                if watch.error is not None:
                    raise watch.error from None
                if time.monotonic() - start > self._patience:
                    raise
                await asyncio.sleep(_PAUSES[-1])
        changes = _changes(entries)
        if changes[0].revision != watch.position + 1:
            raise _expired(watch.position)
        wanted = [change for change in changes if watch.wants(change)]
        if not wanted or wanted[-1] is not changes[-1]:
            wanted.append(changes[-1])  # not wanted, but it carries the position
        return wanted

    async def close(self) -> None:
        """End; watches under way raise `Unavailable`."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._end(Unavailable("The store was closed."))

    def _end(self, error: LLMOSError, keep: Callable[[Watch[Any]], bool] | None = None) -> None:
        """All watches, but for those to `keep`, end with that error, after what they have in their queues."""
        for watch in self._all:
            if watch.error is None and not (keep and keep(watch)):
                watch.error = error
                watch.woken.set()
        self._joined.clear()

    async def _run(self) -> None:
        """Read for ever; whatever goes wrong, start over from where it was."""
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
        """Whether the database is still the one that was read, and has all that was not read yet."""
        state = await self.state()
        if state.epoch == self._epoch and state.reaches(self.position):
            return
        log.warning("The database at %s no longer has all changes; watches must list again.", self._database)
        self._end(
            _expired(self.position),
            lambda watch: watch.epoch == state.epoch and state.reaches(watch.position) and not watch.queue,
        )
        self.position, self._epoch = state.revision, state.epoch

    async def _read(self) -> bool:
        """Hand out what comes; False where nothing came for a while."""
        reply = await self._database.run(
            *("XREAD", "COUNT", PAGE, "BLOCK", int(BLOCK * 1000)),
            *("STREAMS", self._database.keys.changes, f"{self.position}-0"),
            repeatable=True,
            timeout=BLOCK + self._database.timeout,
        )
        if not reply:
            return False
        for change in _changes(reply[0][1]):
            if change.revision != self.position + 1:
                self._end(_expired(self.position))
            self.position = change.revision
            self._hand_out(change)
        return True

    def _hand_out(self, change: Change) -> None:
        watches = self._joined[change.kind]
        full = []
        for watch in watches:
            if watch.namespace not in (None, change.namespace):
                continue
            if len(watch.queue) >= QUEUE:
                full.append(watch)
                continue
            watch.queue.append(change)
            watch.woken.set()
        watches.difference_update(full)
