"""The controllers' process: one controller per kind, over one store and one backend.

Ended by SIGTERM it leaves what runs running, for the next one to adopt; ended by SIGINT it stops it all.
It may be killed at any time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from prometheus_client import generate_latest

from llmos.resources import Credential, ModelService
from llmos_hub import engines
from llmos_hub.backends.base import Backend
from llmos_hub.backends.local import LocalBackend
from llmos_hub.controllers.health import serve_pages
from llmos_hub.controllers.informer import Key
from llmos_hub.controllers.metrics import Metrics
from llmos_hub.controllers.modelservice import ModelServiceReconciler
from llmos_hub.controllers.modelservice_workloads import fetch_environment
from llmos_hub.controllers.reconciler import Controller, Trigger
from llmos_hub.engines.machine import detect
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores import open_store
from llmos_hub.stores.base import Store

__all__ = ["Controllers", "serve"]

logger = logging.getLogger(__name__)


class Controllers:
    """All controllers; `run` lets them work.

    Parameters
    ----------
    store, backend
        Where resources are and where workloads run; the backend has been started.
    settings
        Where the data directory is.
    environ
        The environment that downloads get their part of.
    """

    def __init__(
        self, store: Store, backend: Backend, settings: ProcessSettings, *, environ: Mapping[str, str] = os.environ
    ) -> None:
        self.metrics = Metrics()
        self._store = store
        self._backend = backend
        self._models = ModelServiceReconciler(
            store,
            backend,
            data_dir=settings.data_dir,
            machine=detect(),
            choose=engines.choose,
            environment=fetch_environment(environ),
            requeue=self._look_again,
        )
        metrics = self.metrics.of(ModelService.kind_name())
        models = Controller(
            store,
            self._models,
            triggers=[Trigger(Credential, self._users_of)],
            metrics=metrics,
            failed=metrics.failed,
        )
        self._controllers: dict[str, Controller[Any]] = {ModelService.kind_name(): models}

    def _look_again(self, key: Key) -> None:
        self._controllers[ModelService.kind_name()].enqueue(key)

    def _users_of(self, credential: Key) -> list[Key]:
        """The ModelServices that name a Credential."""
        namespace, name = credential
        return [
            (namespace, service.metadata.name)
            for service in self._controllers[ModelService.kind_name()].informer.values()
            if service.metadata.namespace == namespace and service.spec.credential_ref == name
        ]

    @property
    def ready(self) -> bool:
        """Whether all resources are known and changes are heard of."""
        return all(controller.connected for controller in self._controllers.values())

    async def run(self) -> None:
        """Work until cancelled."""
        changes = self._backend.changes()  # from now on, before anything is looked at
        try:
            async with asyncio.TaskGroup() as group:
                for controller in self._controllers.values():
                    group.create_task(controller.run())
                group.create_task(self._forward(changes))
        finally:
            await self._models.close()

    async def _forward(self, changes: AsyncIterator[Any]) -> None:
        """Have the resource of each workload that changed looked at, and first that of every workload there is.

        Those whose resource is gone are found so; nothing is done before all resources were listed.
        """
        for ref in await self._backend.refs():
            if ref.kind in self._controllers:
                self._controllers[ref.kind].enqueue((ref.namespace or None, ref.name))
        async for ref in changes:
            if ref.kind in self._controllers:
                self._controllers[ref.kind].enqueue((ref.namespace or None, ref.name))


async def serve(settings: ProcessSettings) -> None:
    """Run the controllers until SIGTERM (what runs goes on) or SIGINT (what runs is stopped).

    Raises
    ------
    BackendFailed
        The directory of workloads can't be used, or another controllers process is in charge of it.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    store = open_store(settings.redis_url, settings.encryption_key)
    backend = LocalBackend(settings.data_dir.workloads, settings.data_dir.run)
    with _signals(stop):
        try:
            await backend.start()
            controllers = Controllers(store, backend, settings)
            async with _pages(settings, store, controllers):
                await _until(controllers, stop)
        finally:
            everything = stop.done() and stop.result() is signal.SIGINT
            logger.info("Ending; what runs %s", "is stopped" if everything else "goes on")
            await backend.close(stop=everything)
            await store.close()


async def _until(controllers: Controllers, stop: asyncio.Future[signal.Signals]) -> None:
    """Work until told to stop; an error that ends the work is raised."""
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
    """Health, readiness and metrics, where a port is set."""

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
