"""The controllers of a release on a real cluster, in this process, with a stand-in for model engines."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmos.errors import NotFound
from llmos.resources import ModelService
from llmos.resources.modelservice import ModelServiceStatus
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.backends.kubernetes.names import workload_selector
from llmos_hub.controllers.layout import Layout, WorkloadContext
from llmos_hub.controllers.parts import Parts
from llmos_hub.controllers.runner import Controllers
from llmos_hub.engines.base import Machine
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.names import DataDir
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces
from llmos_hub.stores.kubernetes.store import KubernetesStore
from llmos_hub.volumes.kubernetes import KubernetesVolumes
from tests.support.cluster import Cluster
from tests.support.kubernetes_backend import settings_for

__all__ = ["LiveRelease", "live_release", "stand_in"]

# holds some megabytes, so that its memory use is visible
_SERVE = "kept=$(head -c 4000000 /dev/zero | tr '\\0' x); mkdir -p /tmp/v1; echo ok > /tmp/v1/models; trap 'exit 0' TERM; httpd -f -p {port} -h /tmp & wait"


def stand_in(name: str, namespace: str, **spec: Any) -> ModelService:
    """Return a service that becomes ready."""
    content = {
        "engine": "custom",
        "args": ["/bin/sh", "-c", _SERVE],
        "resources": {"cpu": "10m", "memory": "32Mi"},
        **spec,
    }
    return ModelService.parse({"metadata": {"name": name, "namespace": namespace}, "spec": content})


@dataclass
class LiveRelease:
    """A release with running controllers; `namespace` is one of its own, and has the release's name."""

    cluster: Cluster
    store: KubernetesStore
    backend: KubernetesBackend
    namespace: str

    async def status(self, name: str, namespace: str | None = None) -> ModelServiceStatus:
        return (await self.store.get(ModelService, namespace or self.namespace, name)).status

    async def until(
        self,
        name: str,
        holds: Callable[[ModelServiceStatus], bool],
        *,
        namespace: str | None = None,
        timeout: float = 60.0,
    ) -> ModelServiceStatus:
        """Wait until a service's status meets a condition, and return the status."""
        deadline = time.monotonic() + timeout
        while True:
            status = await self.status(name, namespace)
            if holds(status):
                return status
            assert time.monotonic() < deadline, f"{name}: {status.phase}: {status.message}"
            await asyncio.sleep(0.2)

    async def gone(self, name: str, namespace: str | None = None, timeout: float = 60.0) -> None:
        """Delete a service and wait until it is gone."""
        await self.store.delete(ModelService, namespace or self.namespace, name)
        async with asyncio.timeout(timeout):
            with contextlib.suppress(NotFound):
                while True:
                    await self.status(name, namespace)
                    await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def live_release(cluster: Cluster, api: KubernetesAPI) -> AsyncIterator[LiveRelease]:
    """Run a release with one namespace; nothing of it remains at the end."""
    name = cluster.namespace("live")
    cluster.kubectl(
        "label", "namespace", name, "app.kubernetes.io/managed-by=llmos", f"app.kubernetes.io/instance={name}"
    )
    backend = KubernetesBackend(api, settings_for(name, owned=True))
    store = KubernetesStore(api)
    namespaces = ReleaseNamespaces(api, name)
    settings = ProcessSettings(
        DataDir(Path("/nonexistent")), "", store="kubernetes", backend="kubernetes", namespace=name, release=name
    )
    context = WorkloadContext(
        Layout(Path("/models"), per_namespace=True), lambda _: Machine(2, 8 * 2**30), workload_selector
    )
    await backend.start()
    controllers = Controllers(
        Parts(store, backend, context, namespaces=namespaces, volumes=KubernetesVolumes(api)), settings, environ={}
    )
    work = asyncio.create_task(controllers.run())
    release = LiveRelease(cluster, store, backend, name)
    try:
        yield release
        for service in (await store.list(ModelService, name)).items:
            await release.gone(service.metadata.name)
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        await backend.close(stop=True)
        await namespaces.close()
