"""The controllers' process: one controller per kind, over one store and one backend.

After SIGTERM, workloads keep running for the next process to adopt; after SIGINT, workloads on this machine are
stopped. The process may be killed at any time. In a cluster several may run: one leads and does the work, the others
keep their copies of all resources up to date and take over when the leader ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from prometheus_client import generate_latest

from llmos_hub.backends.base import Backend
from llmos_hub.controllers.election import Alone, Leadership
from llmos_hub.controllers.fencing import fenced_backend, fenced_store
from llmos_hub.controllers.health import serve_pages
from llmos_hub.controllers.layout import WorkloadContext
from llmos_hub.controllers.metrics import Metrics
from llmos_hub.controllers.parts import Companion, local_context, opened
from llmos_hub.controllers.reconciler import WORKERS, Controller, Queueing, Reconciler, Trigger, resource_controller
from llmos_hub.controllers.registry import (
    Cluster,
    ClusterControllerSpec,
    ControllerSpec,
    Dependencies,
    Reference,
    load_specs,
)
from llmos_hub.controllers.unserved import InOwnNamespaces
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores.base import Store
from llmos_hub.stores.informer import Key
from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces

__all__ = ["Controllers", "serve"]

_CLUSTER_WORKERS: Final = 16
"""Concurrent reconciles in a cluster: a busy API server takes tens of milliseconds for each of ten requests."""

logger = logging.getLogger(__name__)


class Controllers:
    """All controllers of the process.

    Parameters
    ----------
    store, backend
        The store of resources and the backend of workloads; the backend has been started.
    settings
        The settings, with the data directory.
    environ
        The environment from which downloads get their variables.
    context
        The context of workloads' processes; by default that of `settings` on this machine.
    leadership
        The leadership among several processes; by default this process leads.
    companions
        Further tasks with parts that run always or only while leading.
    namespaces
        In a cluster, the owners of namespaces. Resources in other releases' namespaces are ignored.
    cluster
        In a cluster, the parts for the controllers of Kubernetes' own objects; without it they don't run.
    metrics
        The metrics to update.
    specs
        The controllers; by default those of all kinds.
    """

    def __init__(
        self,
        store: Store,
        backend: Backend,
        settings: ProcessSettings,
        *,
        environ: Mapping[str, str] = os.environ,
        context: WorkloadContext | None = None,
        leadership: Leadership | None = None,
        companions: Sequence[Companion] = (),
        namespaces: ReleaseNamespaces | None = None,
        cluster: Cluster | None = None,
        metrics: Metrics | None = None,
        specs: Iterable[ControllerSpec[Any] | ClusterControllerSpec] | None = None,
    ) -> None:
        self.metrics = metrics or Metrics()
        self.leadership = leadership or Alone()
        if leadership is None:
            self.metrics.lead(self.leadership.leading, self.leadership.term)
        self._backend = backend
        self._companions = companions
        if leadership is not None:
            store, self._backend = fenced_store(store, leadership), fenced_backend(backend, leadership)
        self._store = store
        self._settings = settings
        self._environ = environ
        self._context = context or local_context(settings)
        self._namespaces = namespaces
        if namespaces is not None:
            namespaces.subscribe(self._look_at_all_in)
        found = load_specs() if specs is None else specs
        self._controllers: dict[str, Controller[Any]] = {}
        for spec in found:
            counted = self.metrics.of(spec.name)
            workers = _CLUSTER_WORKERS if settings.in_cluster else WORKERS
            queueing = Queueing(counted, counted.failed, workers)
            if isinstance(spec, ControllerSpec):
                self._controllers[spec.name] = self._make(spec, queueing)
            elif cluster is not None:
                self._controllers[spec.name] = spec.make(cluster, queueing)

    def _make(self, spec: ControllerSpec[Any], queueing: Queueing) -> Controller[Any]:
        name = spec.name
        reconciler: Reconciler[Any] = spec.make(
            Dependencies(
                self._store,
                self._backend,
                self._context,
                requeue=functools.partial(self._requeue, name),
                environ=self._environ,
                engine_secret=self._settings.engine_secret,
            )
        )
        if self._namespaces is not None:
            reconciler = InOwnNamespaces(reconciler, self._store, self._namespaces)
        in_cluster = self._settings.in_cluster
        return resource_controller(
            self._store,
            reconciler,
            triggers=[
                Trigger(reference.kind, functools.partial(self._referring, name, reference))
                for reference in spec.references
                # in a cluster no process may watch all Secrets: reconcilers read those named in a spec
                if not (in_cluster and reference.kind.stored_as == "Secret")
            ],
            queueing=queueing,
        )

    def _requeue(self, name: str, key: Key) -> None:
        self._controllers[name].enqueue(key)

    def _referring(self, name: str, reference: Reference[Any], changed: Key) -> list[Key]:
        """Return the keys of the resources of the kind `name` that refer to a changed resource."""
        return [
            key
            for key, resource in self._controllers[name].informer.items()
            if key[0] == changed[0] and changed[1] in reference.names(resource)
        ]

    def _look_at_all_in(self, namespace: str) -> None:
        """Reconcile all resources of a namespace that was handed over to or by this release."""
        for controller in self._controllers.values():
            for key in controller.informer:
                if key[0] == namespace:
                    controller.enqueue(key)

    @property
    def ready(self) -> bool:
        """True if all resources were listed and the watches are open, whether leading or not."""
        return all(controller.connected for controller in self._controllers.values())

    async def run(self) -> None:
        """Work, or stand by, until cancelled."""
        changes = self._backend.changes()  # subscribed before anything is read, so that no change is missed
        for controller in self._controllers.values():
            controller.stand_by()
        try:
            async with asyncio.TaskGroup() as group:
                for controller in self._controllers.values():
                    group.create_task(controller.follow())
                for companion in self._companions:
                    group.create_task(companion.follow())
                group.create_task(self._forward(changes))
                group.create_task(self.leadership.run(self._lead))
        finally:
            await self._close()

    async def _lead(self) -> None:
        """Do the work of a leader until cancelled.

        All resources are reconciled, and so are the resources of all workloads, to find those whose resource no longer
        exists. No reconcile begins before all resources were listed.
        """
        for controller in self._controllers.values():
            controller.begin()
        try:
            async with asyncio.TaskGroup() as group:
                for controller in self._controllers.values():
                    group.create_task(controller.work())
                for companion in self._companions:
                    group.create_task(companion.work())
                group.create_task(self._look_at_workloads())
        finally:
            await self._close()

    async def _close(self) -> None:
        for controller in self._controllers.values():
            await controller.close()

    async def _look_at_workloads(self) -> None:
        for ref in await self._backend.refs():
            if ref.kind in self._controllers:
                self._controllers[ref.kind].enqueue((ref.namespace or None, ref.name))

    async def _forward(self, changes: AsyncIterator[Any]) -> None:
        """Reconcile the resource of each changed workload."""
        async for ref in changes:
            if ref.kind in self._controllers:
                self._controllers[ref.kind].enqueue((ref.namespace or None, ref.name))


async def serve(settings: ProcessSettings) -> None:
    """Run the controllers until SIGTERM (workloads keep running) or SIGINT (workloads on this machine are stopped).

    Raises
    ------
    BackendFailed
        The directory of workloads can't be used, or another controllers process uses it.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    with _signals(stop):
        async with opened(settings, stop) as parts:
            controllers = Controllers(
                parts.store,
                parts.backend,
                settings,
                context=parts.context,
                leadership=parts.leadership,
                companions=parts.companions,
                namespaces=parts.namespaces,
                cluster=parts.cluster,
                metrics=parts.metrics,
            )
            async with _pages(settings, parts.store, controllers):
                await _until(controllers, stop)


async def _until(controllers: Controllers, stop: asyncio.Future[signal.Signals]) -> None:
    """Run the controllers until `stop`; raise an error that ends them."""
    work = asyncio.create_task(controllers.run(), name="controllers")
    ends: set[asyncio.Future[Any]] = {work, stop}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work


@contextlib.contextmanager
def _signals(stop: asyncio.Future[signal.Signals]) -> Any:
    loop = asyncio.get_running_loop()

    def received(number: signal.Signals) -> None:
        if not stop.done():
            stop.set_result(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, received, number)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@asynccontextmanager
async def _pages(settings: ProcessSettings, store: Store, controllers: Controllers) -> AsyncIterator[None]:
    """Serve health, readiness and metrics, if a port is set."""

    async def health() -> tuple[int, str]:
        return 200, "ok\n"

    async def ready() -> tuple[int, str]:
        if not await store.healthy():
            return 503, "The database does not answer.\n"
        return (200, "ok\n") if controllers.ready else (503, "Resources are being listed.\n")

    async def metrics() -> tuple[int, str]:
        return 200, generate_latest(controllers.metrics.registry).decode()

    if not settings.port:
        yield
        return
    pages = {"/health": health, "/ready": ready, "/metrics": metrics}
    async with serve_pages(settings.host, settings.port, pages) as port:
        logger.info("Health on http://%s:%d/health", settings.host, port)
        yield
