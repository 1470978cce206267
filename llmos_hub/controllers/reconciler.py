"""Reconcilers, and the controller that calls them: whenever something changed, make it so.

A reconciler is level-triggered: it isn't told what happened, only which resource to look at. It reads,
compares, acts, reports, and says when to look again; it never sleeps. What it does twice changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from llmos.errors import Conflict, LLMOSError, NotFound, Unavailable
from llmos.resources import Resource
from llmos_hub.controllers.informer import Informer, Key
from llmos_hub.controllers.workqueue import QueueMetrics, ShutDown, WorkQueue
from llmos_hub.stores.base import Store

__all__ = ["WORKERS", "Controller", "Reconciler", "Result", "Trigger"]

R = TypeVar("R", bound=Resource)

WORKERS = 4
"""Resources looked at at once: a reconcile waits for little but the database."""
_RESYNC = 300.0
"""Seconds after which every resource is looked at even if nothing was heard: a bug must not last for ever."""
_TIMEOUT = 60.0
"""Seconds a reconcile may take; nothing in it waits for a process, so more means that something hangs."""
_SHUTDOWN = 10.0
"""Seconds that reconciles under way get to finish at the end."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result(Generic[R]):
    """What came of it.

    Attributes
    ----------
    requeue_after
        Seconds after which to look again; None: when something changes.
    resource
        The resource as it was last written, if it was.
    """

    requeue_after: float | None = None
    resource: R | None = None


class Reconciler(Protocol[R]):
    """Knows what one kind of resource means."""

    @property
    def kind(self) -> type[R]:
        """The kind."""
        ...

    async def reconcile(self, resource: R) -> Result[R]:
        """Bring the world closer to the resource's spec, and its status closer to the world.

        `resource` is the caller's and is not changed. A `Conflict` may be raised: what was read was old.
        """
        ...

    async def gone(self, key: Key) -> None:
        """There is no resource of that namespace and name (any more): let go of what was remembered of it."""
        ...


@dataclass(frozen=True, slots=True)
class Trigger:
    """Another kind whose changes matter.

    Attributes
    ----------
    kind
        Which.
    keys
        The keys of the resources that a change of that namespace and name concerns.
    """

    kind: type[Resource]
    keys: Callable[[Key], Iterable[Key]]


class Controller(Generic[R]):
    """Calls a reconciler for every resource of its kind that may need it.

    Parameters
    ----------
    store
        Where the resources are.
    reconciler
        What is called.
    triggers
        Other kinds whose changes matter.
    metrics
        Told what happens in the queue.
    failed
        Called with an error's code for each reconcile that raised.
    workers, resync
        How many at once; seconds between two looks at everything.
    """

    def __init__(
        self,
        store: Store,
        reconciler: Reconciler[R],
        *,
        triggers: Iterable[Trigger] = (),
        metrics: QueueMetrics | None = None,
        failed: Callable[[str], None] | None = None,
        workers: int = WORKERS,
        resync: float = _RESYNC,
    ) -> None:
        self.reconciler = reconciler
        self.queue: WorkQueue[Key] = WorkQueue(metrics=metrics)
        self.informer: Informer[R] = Informer(store, reconciler.kind, self.enqueue)
        self._metrics = metrics
        self._others = [self._follow(store, trigger) for trigger in triggers]
        self._failed = failed
        self._workers = workers
        self._resync = resync

    @property
    def connected(self) -> bool:
        """Whether it has seen all resources and hears of changes now."""
        return self.informer.synced.is_set() and self.informer.connected

    def enqueue(self, key: Key) -> None:
        """Have it looked at as soon as possible."""
        self.queue.add(key)

    async def run(self) -> None:
        """Follow and work until cancelled; reconciles under way are finished first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.follow())
            group.create_task(self.work())

    async def follow(self) -> None:
        """Keep the copies of all resources up to date until cancelled, whether there is work or not."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.informer.run())
            for other in self._others:
                group.create_task(other.run())

    async def work(self) -> None:
        """Look at what may need it until cancelled; reconciles under way are finished first."""
        queue = self.queue
        workers = [
            asyncio.create_task(self._work(queue), name=f"{self.informer.kind.plural}-{n}")
            for n in range(self._workers)
        ]
        try:
            await self._look_at_all()
        finally:
            queue.shut_down()
            if not self.informer.synced.is_set():  # then none has begun
                for task in workers:
                    task.cancel()
            _, late = await asyncio.wait(workers, timeout=_SHUTDOWN)
            for task in late:
                task.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def stand_by(self) -> None:
        """Take nothing into the queue until `begin`: another process does the work."""
        self.queue.shut_down()

    def begin(self) -> None:
        """Before `work` is done again: have everything looked at, since nobody here knows what was missed."""
        self.queue.shut_down()
        self.queue = WorkQueue(metrics=self._metrics)
        for key in self.informer:
            self.queue.add(key)

    def _follow(self, store: Store, trigger: Trigger) -> Informer[Any]:
        def changed(key: Key) -> None:
            for concerned in trigger.keys(key):
                self.enqueue(concerned)

        # only the names are needed, and a Credential's values should not stay in memory
        return Informer(store, trigger.kind, changed, keep=_without_spec)

    async def _look_at_all(self) -> None:
        while True:
            await asyncio.sleep(self._resync)
            for key in self.informer:
                self.queue.add(key)

    async def _work(self, queue: WorkQueue[Key]) -> None:
        await self.informer.synced.wait()
        with contextlib.suppress(ShutDown):
            while True:
                key = await queue.get()
                try:
                    await self._look_at(key, queue)
                finally:
                    queue.done(key)

    async def _look_at(self, key: Key, queue: WorkQueue[Key]) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT):
                resource = self.informer.get(key)
                if resource is None:
                    await self.reconciler.gone(key)
                    queue.forget(key)
                    return
                result = await self.reconciler.reconcile(resource)
        except Exception as error:  # noqa: BLE001 - one resource must not end the work for all; it is logged
            self._report(key, error, queue.retry(key))
            return
        queue.forget(key)
        if result.resource is not None:
            self.informer.written(result.resource)
        if result.requeue_after is not None:
            queue.add_after(key, result.requeue_after)

    def _report(self, key: Key, error: Exception, delay: float) -> None:
        name = f"{self.informer.kind.singular} {'/'.join(part for part in key if part)}"
        if self._failed is not None:
            self._failed(error.code if isinstance(error, LLMOSError) else "internal")
        if isinstance(error, Conflict | NotFound):
            logger.debug("%s changed meanwhile, looking again in %.2f s: %s", name, delay, error)
        elif isinstance(error, Unavailable):
            logger.warning("%s: %s Trying again in %.1f s", name, error, delay)
        elif isinstance(error, LLMOSError):
            logger.error("%s: %s Trying again in %.1f s", name, error, delay)
        elif isinstance(error, TimeoutError):
            logger.error("%s: looking at it took over %.0f s. Trying again in %.1f s", name, _TIMEOUT, delay)
        else:
            logger.error("%s: looking at it failed. Trying again in %.1f s", name, delay, exc_info=error)


def _without_spec(resource: Any) -> Any:
    return resource.model_copy(update={"spec": None})
