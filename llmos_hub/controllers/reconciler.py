"""Reconcilers, and the controller that calls them when a resource may have changed.

A reconciler is level-triggered: it gets only the resource, not the kind of change. It reads,
compares, acts, reports, and returns when to be called again; it never sleeps. It is idempotent.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from llmos.errors import Conflict, LLMOSError, NotFound, Unavailable
from llmos.resources import Resource
from llmos_hub.controllers.metrics import ControllerMetrics, ProcessMetrics
from llmos_hub.controllers.workqueue import ShutDown, WorkQueue
from llmos_hub.stores.base import Store
from llmos_hub.stores.informer import Informer, Key
from llmos_hub.tasks import cancel

__all__ = [
    "WORKERS",
    "Controller",
    "ObjectReconciler",
    "Objects",
    "Queueing",
    "Reconciler",
    "Reference",
    "Result",
    "resource_controller",
]

R = TypeVar("R", bound=Resource)
T = TypeVar("T")

WORKERS = 4
"""Resources reconciled concurrently: a reconcile waits for little other than the database."""
_RESYNC = 300.0
"""Seconds after which every resource is reconciled without a change, which limits the effect of a missed event."""
_TIMEOUT = 60.0
"""Maximum seconds of a reconcile; it waits for no process, so more means that something hangs."""
_SHUTDOWN = 10.0
"""Seconds that running reconciles have to finish at the end."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """The result of a reconcile.

    Attributes
    ----------
    requeue_after
        Seconds until the next reconcile; None to wait for a change.
    resource
        The resource as last written, if it was written.
    """

    requeue_after: float | None = None
    resource: T | None = None


class ObjectReconciler(Protocol[T]):
    """A reconciler of one kind of objects: of resources, or of Kubernetes' own."""

    async def reconcile(self, resource: T, /) -> Result[T]:
        """Bring the actual state closer to the resource's spec, and its status closer to the actual state.

        `resource` belongs to the caller and is not modified. It may raise `Conflict` if the resource was outdated.
        """
        ...

    async def gone(self, key: Key) -> None:
        """Clean up after a resource of that namespace and name, which doesn't exist (any more)."""
        ...

    async def close(self) -> None:
        """Stop what runs in the background; the next leader finds again what is unfinished. It may be used again."""
        ...


class Reconciler(ObjectReconciler[R], Protocol[R]):
    """A reconciler of one kind of resources."""

    @property
    def kind(self) -> type[R]:
        """The kind."""
        ...


class Objects(Protocol[T]):
    """A local copy of the objects that a controller reconciles: an `Informer` or a `ClusterInformer`."""

    synced: asyncio.Event
    """Set once all objects are listed."""

    @property
    def run(self) -> Callable[[], Any]:
        """Follow the changes until cancelled."""
        ...

    @property
    def connected(self) -> bool:
        """True while changes are followed."""
        ...

    def get(self, key: Key) -> T | None:
        """Return the last known object; None if it doesn't exist."""
        ...

    def items(self) -> Iterable[tuple[Key, T]]:
        """Return all objects with their keys."""
        ...

    def written(self, resource: T, /) -> None:
        """Store an object that the caller has just written."""
        ...

    def __iter__(self) -> Iterator[Key]:
        """Iterate over the keys of all objects."""
        ...


@dataclass(frozen=True, slots=True)
class Queueing:
    """The settings of a controller's queue.

    Attributes
    ----------
    metrics
        The metrics of the controller; by default metrics that nobody reads.
    workers, resync
        Number of concurrent reconciles; seconds between reconciles of all objects.
    """

    metrics: ControllerMetrics = field(default_factory=lambda: ProcessMetrics().of(""))
    workers: int = WORKERS
    resync: float = _RESYNC


@dataclass(frozen=True, slots=True)
class Reference(Generic[R]):
    """A reference to resources of another kind in the same namespace, whose changes trigger reconciles.

    Attributes
    ----------
    kind
        The other kind.
    names
        Returns the names to which a resource refers.
    """

    kind: type[Resource]
    names: Callable[[R], Iterable[str]]


class Controller(Generic[T]):
    """A controller that calls a reconciler for each object of a kind that may need it.

    Parameters
    ----------
    name
        The kind in logs, in the singular.
    informer
        The objects; it calls `enqueue` with the key of each changed one.
    reconciler
        The reconciler to call.
    others
        The objects of other kinds to follow; they call `enqueue` too.
    keys
        The keys of objects that should exist; the reconciler is called for them even if they don't.
    queueing
        The settings of the queue.
    """

    def __init__(
        self,
        name: str,
        informer: Objects[T],
        reconciler: ObjectReconciler[T],
        *,
        others: Iterable[Objects[Any]] = (),
        keys: Iterable[Key] = (),
        queueing: Queueing | None = None,
    ) -> None:
        queueing = queueing or Queueing()
        self.name = name
        self.reconciler = reconciler
        self.queue: WorkQueue[Key] = WorkQueue(metrics=queueing.metrics)
        self.informer = informer
        self._metrics = queueing.metrics
        self._others = tuple(others)
        self._keys = tuple(keys)
        self._workers = queueing.workers
        self._resync = queueing.resync

    @property
    def connected(self) -> bool:
        """True if all resources were listed and the watch is open."""
        return self.informer.synced.is_set() and self.informer.connected

    def enqueue(self, key: Key) -> None:
        """Have a resource reconciled as soon as possible."""
        self.queue.add(key)

    async def follow(self) -> None:
        """Keep the local copies of all resources up to date until cancelled, whether leading or not."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.informer.run())
            for other in self._others:
                group.create_task(other.run())

    async def work(self) -> None:
        """Reconcile resources from the queue until cancelled; running reconciles are finished first."""
        queue = self.queue
        workers = [asyncio.create_task(self._work(queue), name=f"{self.name}-{n}") for n in range(self._workers)]
        try:
            await self._look_at_all()
        finally:
            queue.shut_down()
            if not self.informer.synced.is_set():  # no reconcile has begun
                for task in workers:
                    task.cancel()
            await asyncio.wait(workers, timeout=_SHUTDOWN)
            await cancel(*workers)

    def stand_by(self) -> None:
        """Ignore changes until `begin`, while another process does the work."""
        self.queue.shut_down()

    def begin(self) -> None:
        """Prepare for `work`: queue all resources, since changes were ignored until now."""
        self.queue.shut_down()
        self.queue = WorkQueue(metrics=self._metrics)
        for key in self.informer:
            self.queue.add(key)

    async def close(self) -> None:
        """Stop what the reconciler runs in the background."""
        await self.reconciler.close()

    async def _look_at_all(self) -> None:
        while True:
            for key in self._keys:
                self.queue.add(key)
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
        name = f"{self.name} {'/'.join(part for part in key if part)}"
        self._metrics.failed(error.code if isinstance(error, LLMOSError) else "internal").inc()
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


def resource_controller(
    store: Store,
    reconciler: Reconciler[R],
    *,
    references: Iterable[Reference[R]] = (),
    queueing: Queueing | None = None,
) -> Controller[R]:
    """Return the controller of a kind of resources.

    Parameters
    ----------
    store
        The store of the resources.
    reconciler
        The reconciler to call.
    references
        The other kinds to which resources of this kind refer.
    queueing
        The settings of the queue.
    """

    def enqueue(key: Key) -> None:
        controller.enqueue(key)

    def follow(reference: Reference[R]) -> Informer[Any]:
        def changed(key: Key) -> None:
            namespace, name = key
            for own, resource in informer.items():
                if own[0] == namespace and name in reference.names(resource):
                    enqueue(own)

        # only the names are needed, and a Credential's values should not stay in memory
        return Informer(store, reference.kind, changed, keep=_without_spec)

    informer = Informer(store, reconciler.kind, enqueue)
    others = [follow(reference) for reference in references]
    controller = Controller(reconciler.kind.singular, informer, reconciler, others=others, queueing=queueing)
    return controller


def _without_spec(resource: Any) -> Any:
    return resource.model_copy(update={"spec": None})
