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
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from prometheus_client import generate_latest

from llmos_hub.controllers.election import Alone
from llmos_hub.controllers.fencing import fenced
from llmos_hub.controllers.health import serve_pages
from llmos_hub.controllers.parts import Parts, opened
from llmos_hub.controllers.reconciler import WORKERS, Controller, Queueing, Reconciler, resource_controller
from llmos_hub.controllers.registry import (
    ClusterControllerSpec,
    ControllerSpec,
    Dependencies,
    load_specs,
)
from llmos_hub.controllers.unserved import InOwnNamespaces
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores.base import Store
from llmos_hub.stores.informer import Key

__all__ = ["Controllers", "serve"]

_CLUSTER_WORKERS: Final = 16
"""Concurrent reconciles in a cluster: a busy API server takes tens of milliseconds for each of ten requests."""

logger = logging.getLogger(__name__)


class Controllers:
    """All controllers of the process.

    Parameters
    ----------
    parts
        The opened parts.
    settings
        The settings, with the data directory.
    environ
        The environment from which downloads get their variables.
    specs
        The controllers; by default those of all kinds.
    """

    def __init__(
        self,
        parts: Parts,
        settings: ProcessSettings,
        *,
        environ: Mapping[str, str] = os.environ,
        specs: Iterable[ControllerSpec[Any] | ClusterControllerSpec] | None = None,
    ) -> None:
        self.metrics = parts.metrics
        self.leadership = parts.leadership or Alone()
        self._parts = parts
        self._store, self._backend = parts.store, parts.backend
        if parts.leadership is None:
            self.metrics.lead(self.leadership.leading, term=1)
        else:
            self._store = fenced(parts.store, parts.leadership)
            self._backend = fenced(parts.backend, parts.leadership)
        self._settings = settings
        self._environ = environ
        if parts.namespaces is not None:
            parts.namespaces.subscribe(self._look_at_all_in)
        found = load_specs() if specs is None else specs
        self._controllers: dict[str, Controller[Any]] = {}
        for spec in found:
            workers = _CLUSTER_WORKERS if settings.in_cluster else WORKERS
            queueing = Queueing(self.metrics.of(spec.name), workers)
            if isinstance(spec, ControllerSpec):
                self._controllers[spec.name] = self._make(spec, queueing)
            elif parts.cluster is not None:
                self._controllers[spec.name] = spec.make(parts.cluster, queueing)

    def _make(self, spec: ControllerSpec[Any], queueing: Queueing) -> Controller[Any]:
        name = spec.name
        reconciler: Reconciler[Any] = spec.make(
            Dependencies(
                self._store,
                self._backend,
                self._parts.context,
                requeue=functools.partial(self._requeue, name),
                volumes=self._parts.volumes,
                environ=self._environ,
                engine_secret=self._settings.engine_secret,
            )
        )
        if self._parts.namespaces is not None:
            reconciler = InOwnNamespaces(reconciler, self._store, self._parts.namespaces)
        in_cluster = self._settings.in_cluster
        return resource_controller(
            self._store,
            reconciler,
            references=[
                reference
                for reference in spec.references
                # in a cluster no process may watch all Secrets: reconcilers read those named in a spec
                if not (in_cluster and reference.kind.stored_as == "Secret")
            ],
            queueing=queueing,
        )

    def _requeue(self, name: str, key: Key) -> None:
        self._controllers[name].enqueue(key)

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
                for task in self._parts.always:
                    group.create_task(task())
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
                for task in self._parts.while_leading:
                    group.create_task(task())
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
            controllers = Controllers(parts, settings)
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
