"""Controllers of several releases: they serve only their own namespaces, and report namespaces without a release."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import Forbidden
from llmos.resources import ModelService
from llmos.resources.base import condition, utcnow
from llmos_hub.controllers.layout import Layout, WorkloadContext
from llmos_hub.controllers.parts import Parts
from llmos_hub.controllers.runner import Controllers
from llmos_hub.controllers.unserved import InOwnNamespaces, unserved
from llmos_hub.engines.base import Machine
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.names import DataDir
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces
from llmos_hub.stores.kubernetes.store import KubernetesStore
from tests.support.crate import Crate
from tests.support.fake_backend import FakeBackend
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.waiting import eventually


def service(name: str, namespace: str) -> ModelService:
    spec = {"engine": "custom", "args": ["server", "--port", "{port}"]}
    return ModelService.parse({"metadata": {"name": name, "namespace": namespace}, "spec": spec})


@dataclass
class Release:
    """The controllers of one release."""

    name: str
    api: KubernetesAPI
    directory: Path
    backend: FakeBackend = field(default_factory=FakeBackend)
    task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.namespaces = ReleaseNamespaces(self.api, self.name)
        settings = ProcessSettings(
            DataDir(self.directory), "", store="kubernetes", backend="kubernetes", namespace=self.name
        )
        context = WorkloadContext(
            Layout(Path("/models"), per_namespace=True),
            lambda _: Machine(2, 2**33),
            lambda ref: f"llmos.ai/workload={ref.id}",
        )
        parts = Parts(KubernetesStore(self.api), self.backend, context, namespaces=self.namespaces)
        self.controllers = Controllers(parts, settings, environ={})
        self.task = asyncio.create_task(self.controllers.run())

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
            await self.namespaces.close()

    def settled(self, name: str, namespace: str, version: str | None) -> bool:
        """Return whether it knows this version of a model, and has nothing to do now or later."""
        controller = self.controllers._controllers["ModelService"]
        known = controller.informer.get((namespace, name))
        if known is None or known.metadata.resource_version != version:
            return False
        return controller.queue.idle and controller.queue.delayed == 0

    @property
    def serves(self) -> set[str]:
        return {f"{ref.namespace}/{ref.name}" for ref in self.backend.world.entries}


@dataclass
class Bench:
    cluster: FakeKubernetes
    store: KubernetesStore
    first: Release
    second: Release

    def namespace(self, name: str, release: Release | None) -> None:
        labels = (
            {"app.kubernetes.io/managed-by": "llmos", "app.kubernetes.io/instance": release.name} if release else {}
        )
        self.cluster.put("namespaces", {"metadata": {"name": name, "labels": labels}})

    def status(self, namespace: str, name: str = "chat") -> dict[str, Any]:
        found = self.cluster.get("modelservices", name, namespace)
        return (found or {}).get("status") or {}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        store = KubernetesStore(api)
        releases = [Release(name, api, tmp_path / name) for name in ("a-llmos", "b-llmos")]
        bench = Bench(cluster, store, *releases)
        yield bench
        for release in releases:
            await release.stop()


async def test_each_release_serves_its_own_and_nothing_else(bench: Bench) -> None:
    bench.namespace("user-ada", bench.first)
    bench.namespace("user-grace", bench.second)
    for release in (bench.first, bench.second):
        release.start()
    for namespace in ("user-ada", "user-grace"):
        await bench.store.create(service("chat", namespace))
    await eventually(lambda: all(bench.status(ns).get("phase") == "Ready" for ns in ("user-ada", "user-grace")))
    assert (bench.first.serves, bench.second.serves) == ({"user-ada/chat"}, {"user-grace/chat"})
    (applied,) = {workload.ref for workload in bench.first.backend.applied}
    assert bench.status("user-ada")["selector"] == f"llmos.ai/workload={applied.id}"
    for release, namespace in ((bench.first, "user-grace"), (bench.second, "user-ada")):
        await bench.store.delete(ModelService, namespace, "chat")
        await eventually(lambda namespace=namespace: bench.cluster.get("modelservices", "chat", namespace) is None)
        assert f"{namespace}/chat" not in release.serves


async def test_a_model_where_no_release_serves_says_so_once(bench: Bench) -> None:
    bench.namespace("default", None)
    for release in (bench.first, bench.second):
        release.start()
    await bench.store.create(service("chat", "default"))
    await eventually(lambda: bench.status("default"))
    stored = await bench.store.get(ModelService, "default", "chat")
    assert stored.status.phase == "Failed"
    assert stored.status.observed_generation == 1
    assert stored.status.message.startswith("LLMOS serves only namespaces that it has made, and default is none.")
    assert "kubectl get namespaces -l app.kubernetes.io/managed-by=llmos" in stored.status.message
    ready = condition(stored.status.conditions, "Ready")
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", "NamespaceNotServed")
    assert stored.metadata.finalizers == [], "it can be deleted without us"
    version = stored.metadata.resource_version
    await eventually(lambda: all(r.settled("chat", "default", version) for r in (bench.first, bench.second)))
    assert (await bench.store.get(ModelService, "default", "chat")) == stored, "they don't write against each other"
    assert bench.first.serves | bench.second.serves == set()


def test_each_kind_says_it_with_its_own_phase() -> None:
    crate = Crate.parse({"metadata": {"name": "photos", "namespace": "default"}})
    assert unserved(crate, utcnow()).phase == "Broken"


async def test_it_is_served_as_soon_as_its_namespace_is_handed_over(bench: Bench) -> None:
    bench.namespace("team", None)
    bench.first.start()
    await bench.store.create(service("chat", "team"))
    await eventually(lambda: bench.status("team").get("phase") == "Failed")
    bench.namespace("team", bench.first)
    await eventually(lambda: bench.status("team").get("phase") == "Ready")
    assert bench.first.serves == {"team/chat"}
    await eventually(lambda: bench.status("team")["endpoints"])


async def test_a_status_that_may_not_be_written_is_no_error_that_is_repeated(bench: Bench) -> None:
    bench.namespace("default", None)
    created = await bench.store.create(service("chat", "default"))
    writes = 0

    class Confined:
        async def patch_status(self, resource: ModelService) -> ModelService:
            nonlocal writes
            writes += 1
            raise Forbidden("The cluster doesn't let this process touch modelservices.")

    namespaces = ReleaseNamespaces(bench.first.api, "a-llmos")
    reconciler = InOwnNamespaces(None, Confined(), namespaces)  # type: ignore[arg-type]
    try:
        result = await reconciler.reconcile(created)
        assert (result.requeue_after, result.resource, writes) == (None, None, 1)
    finally:
        await namespaces.close()
