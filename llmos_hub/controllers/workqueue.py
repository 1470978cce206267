"""A queue of keys to reconcile, like that of Kubernetes' controllers.

The semantics are those of client-go's rate-limiting work queue
(https://pkg.go.dev/k8s.io/client-go/util/workqueue): a key is in the queue at most once, however often it is
added; only one worker at a time has it; if added meanwhile, it is queued again afterwards. Of several times at
which a key is to be queued, the earliest counts.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmos_hub.controllers.metrics import ControllerMetrics, ProcessMetrics

__all__ = ["Backoff", "ShutDown", "WorkQueue"]

K = TypeVar("K", bound=Hashable)


class ShutDown(Exception):
    """An error that ends a worker: the queue is shut down and empty."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before the next attempt, which doubles each time.

    Attributes
    ----------
    base
        Seconds before the second attempt; short, since most failures are conflicts or brief outages of the database.
    ceiling
        Maximum seconds, so that a repair is noticed within that time.
    """

    base: float = 0.05
    ceiling: float = 60.0

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after that many consecutive failures (1 or more)."""
        # the exponent is bounded, since a float overflows at 2**1024
        return min(self.ceiling, self.base * 2.0 ** min(max(failures, 1) - 1, 64))


class WorkQueue(Generic[K]):
    """A queue of keys that wait for a worker, within one event loop.

    Parameters
    ----------
    backoff
        The delays of `retry`.
    metrics
        The metrics to update; by default metrics that nobody reads.
    """

    def __init__(self, *, backoff: Backoff | None = None, metrics: ControllerMetrics | None = None) -> None:
        self._backoff = backoff or Backoff()
        self._metrics = metrics or ProcessMetrics().of("")
        self._ready: deque[K] = deque()
        self._queued: dict[K, float] = {}  # keys to get, also after their worker; loop time of adding
        self._working: dict[K, float] = {}  # keys that a worker has; loop time of getting
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._closed = False

    def __len__(self) -> int:
        """Return the number of keys that wait for a worker, without those being worked on and delayed ones."""
        return len(self._ready)

    @property
    def delayed(self) -> int:
        """The number of delayed keys."""
        return len(self._timers)

    @property
    def idle(self) -> bool:
        """True if no key waits for a worker or is with one, whatever is delayed."""
        return not self._queued and not self._working

    def failures(self, key: K) -> int:
        """Return the number of consecutive retries of the key."""
        return self._failures.get(key, 0)

    def add(self, key: K) -> None:
        """Queue a key for the next free worker; a later time set for it is dropped."""
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
        """Queue a key in so many seconds, unless it is queued earlier anyway."""
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
        """Queue a key again after a failure; returns the maximum delay in seconds."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = self._backoff.delay(failures)
        self._metrics.retried.inc()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Reset the number of failures of a key after a success."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Return the next key; the worker calls `done` when it is finished.

        Raises
        ------
        ShutDown
            The queue is empty and shut down.
        """
        while not self._ready:
            if self._closed:
                raise ShutDown
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                # pass on a wake-up that this waiter can no longer use; otherwise a key would wait without need
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
        self._metrics.depth.set(len(self._ready))
        self._metrics.waited.observe(now - since)
        return key

    def done(self, key: K) -> None:
        """Record that a worker has finished a key; if it was added meanwhile, queue it."""
        since = self._working.pop(key)
        self._metrics.worked.observe(asyncio.get_running_loop().time() - since)
        if key in self._queued:
            if self._closed:
                del self._queued[key]
            else:
                self._push(key)

    def shut_down(self) -> None:
        """Refuse new keys, drop waiting ones, and end idle workers; keys being worked on are finished."""
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
        self._metrics.depth.set(len(self._ready))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
