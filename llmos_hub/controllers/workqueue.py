"""A queue of keys that need looking at, as Kubernetes' controllers have one.

The semantics are those of client-go's rate-limiting work queue
(https://pkg.go.dev/k8s.io/client-go/util/workqueue): a key is in the queue once however often it is
added; one worker at a time has it; added meanwhile, it comes again afterwards. Of several times at
which a key is to come, the earliest counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["Backoff", "QueueMetrics", "ShutDown", "WorkQueue"]

K = TypeVar("K", bound=Hashable)


class ShutDown(Exception):
    """The queue is shut down and empty: a worker goes home."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long to wait before the next try: twice as long each time.

    Attributes
    ----------
    base
        Seconds before the second try; short, since most failures are a conflict or a blink of the database.
    ceiling
        Seconds at most, so that what was repaired is noticed within that time.
    """

    base: float = 0.05
    ceiling: float = 60.0

    def delay(self, failures: int) -> float:
        """Seconds to wait after that many failures in a row (1 or more)."""
        # the exponent is bounded, since a float overflows at 2**1024
        return min(self.ceiling, self.base * 2.0 ** min(max(failures, 1) - 1, 64))


class QueueMetrics(Protocol):
    """Told what happens in a queue."""

    def depth(self, keys: int) -> None:
        """So many keys wait for a worker now."""
        ...

    def waited(self, seconds: float) -> None:
        """A key waited that long for a worker."""
        ...

    def worked(self, seconds: float) -> None:
        """A worker had a key for that long."""
        ...

    def retried(self) -> None:
        """A key was added again after a failure."""
        ...


class WorkQueue(Generic[K]):
    """Keys that wait for a worker, within one event loop.

    Parameters
    ----------
    backoff
        For `retry`.
    metrics
        Who wants to know.
    """

    def __init__(self, *, backoff: Backoff | None = None, metrics: QueueMetrics | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._metrics = metrics
        self._ready: deque[K] = deque()
        self._queued: dict[K, float] = {}  # waiting or to come again: since when (loop time)
        self._working: dict[K, float] = {}  # since when a worker has it
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        """How many keys wait for a worker (neither those being worked on, nor those for later)."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        """How many keys are to come later."""
        return len(self._timers)

    def failures(self, key: K) -> int:
        """How often in a row the key was retried."""
        return self._failures.get(key, 0)

    def add(self, key: K) -> None:
        """Let it be looked at as soon as a worker is free; a later time that was set for it is dropped."""
        if self._closed:
            return
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._queued:
            return
        self._queued[key] = asyncio.get_running_loop().time()
        if key not in self._working:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Let it be looked at in so many seconds; one that comes earlier anyway is left as it is."""
        if seconds <= 0:
            self.add(key)
            return
        if self._closed or key in self._queued:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + seconds
        if timer := self._timers.get(key):
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self.add, key)

    def retry(self, key: K) -> float:
        """Let it be looked at again after a failure; returns in how many seconds at the latest."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(failures)
        if self._metrics:
            self._metrics.retried()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """It went well: the next failure is its first again."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """The next key; the worker calls `done` when it has looked at it.

        Raises
        ------
        ShutDown
            There are none left and none will come.
        """
        while not self._ready:
            if self._closed:
                raise ShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # a wake-up that this waiter can no longer use is passed on, or a key would lie there
                if waiter.done() and not waiter.cancelled() and self._ready:
                    self._wake_one()
                raise
            finally:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        key = self._ready.popleft()
        now = asyncio.get_running_loop().time()
        since = self._queued.pop(key)
        self._working[key] = now
        if self._metrics:
            self._metrics.depth(len(self._ready))
            self._metrics.waited(now - since)
        return key

    def done(self, key: K) -> None:
        """A worker has looked at it; what was added meanwhile comes now."""
        since = self._working.pop(key)
        if self._metrics:
            self._metrics.worked(asyncio.get_running_loop().time() - since)
        if key in self._queued:
            if self._closed:
                del self._queued[key]
            else:
                self._push(key)

    def shut_down(self) -> None:
        """Take nothing more, drop what waits, and send idle workers home; what is being worked on is finished."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._ready.clear()
        self._queued.clear()
        while self._waiters:
            self._wake_one()

    def _push(self, key: K) -> None:
        self._ready.append(key)
        if self._metrics:
            self._metrics.depth(len(self._ready))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
