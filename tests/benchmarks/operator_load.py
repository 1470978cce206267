"""The load on the operators, and their results, for `bench_operator`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from llmos.names import KEY_PREPARED
from llmos.resources import ModelService
from llmos_hub.backends.kubernetes.objects import make_objects, path_of_object
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.controllers.layout import Layout
from llmos_hub.controllers.modelservice.workloads import SERVE, make_ref, make_serve
from llmos_hub.engines.base import Machine
from llmos_hub.engines.custom import Custom
from llmos_hub.kubernetes.connection import MERGE_PATCH, KubernetesAPI, path_of
from llmos_hub.managers.namespace_objects import make_contents, make_namespace, object_path
from llmos_hub.managers.namespace_options import Binding, NamespaceOptions
from llmos_hub.policy import NamespaceOwner

RELEASE = "llmos"
OPTIONS = NamespaceOptions(
    public=False, bindings=[Binding(cluster_role="llmos-hub-in-namespace", service_account="llmos-hub")]
)
GROUP = "llmos.ai/v1alpha1"
AT_ONCE = 16


def namespace_of(person: int) -> str:
    return f"user-p{person:04}"


def make_service(number: int, people: int) -> dict[str, Any]:
    """A model that nobody has to download."""
    return {
        "apiVersion": GROUP,
        "kind": "ModelService",
        "metadata": {
            "name": f"model-{number:05}",
            "namespace": namespace_of(number % people),
            "finalizers": ["llmos.ai/workloads"],  # as the API makes them
        },
        "spec": {
            "engine": "custom",
            "args": ["serve", "--port", "{port}"],
            "env": {"WAVE": "0"},
            "resources": {"cpu": "1", "memory": "1Gi"},
        },
    }


def make_templates() -> dict[str, list[list[str]]]:
    """The platform's own objects as text, with what differs from one to the next replaced by its name."""
    settings = KubernetesSettings(release=RELEASE, namespace=RELEASE)
    service = ModelService.parse(make_service(0, 1))
    uid = "4f3d8a4e-0000-4000-8000-000000000000"
    service.metadata.uid, service.metadata.name, service.metadata.namespace = uid, "sample-service", "sample-namespace"
    service.spec.env["WAVE"] = "sample-wave"
    plan = Custom().plan(service.spec, None, Machine(64, 2**40))
    workload = make_serve(
        service, plan, {}, layout=Layout(Path(settings.models.mount_path), per_namespace=True), engine="custom"
    )
    names = {
        make_ref(service, SERVE).id: "@NAME@-serve",
        "sample-service": "@NAME@",
        "sample-namespace": "@NAMESPACE@",
        "sample-wave": "@WAVE@",
        uid: "@UID@",
    }

    def template(obj: dict[str, Any], path: str) -> list[str]:
        texts = [path, json.dumps(obj)]
        for sample, name in names.items():
            texts = [text.replace(sample, name) for text in texts]
        return texts

    contents = make_contents("sample-namespace", NamespaceOwner("user", "sample"), RELEASE, OPTIONS, {})
    return {
        "service": [template(obj, path_of_object(obj)) for obj in make_objects(workload, settings)],
        "namespace": [template(obj, object_path(obj)) for obj in contents],
    }


def make_server(person: int) -> list[tuple[str, dict[str, Any]]]:
    """A person's notebook server as the spawner makes it: a Secret, a claim and a pod; with the paths to post them to."""
    namespace = namespace_of(person)
    name = f"jupyter-p{person:04}--work"
    labels = {"app.kubernetes.io/managed-by": "kubespawner", "component": "singleuser-server", "hub.jupyter.org/username": namespace}  # fmt: skip
    meta = {"name": name, "namespace": namespace, "labels": labels}
    requests = {"cpu": "100m", "memory": "512Mi"}
    pod = {
        "serviceAccountName": "llmos",
        "automountServiceAccountToken": False,
        "nodeName": f"node{person % 3}",  # their claims are never bound: there is no storage
        "containers": [
            {
                "name": "notebook",
                "image": "llmos-notebook:0.1.0",
                "env": [{"name": f"JUPYTERHUB_{n}", "value": "http://hub:8081/hub/api"} for n in range(20)],
                "resources": {"requests": requests, "limits": {"memory": "1Gi"}},
                "volumeMounts": [{"name": "home", "mountPath": "/home/jovyan"}],
            }
        ],
        "volumes": [{"name": "home", "persistentVolumeClaim": {"claimName": name}}],
    }
    claim = {"accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "10Gi"}}}
    core = {"apiVersion": "v1", "metadata": meta}
    return [
        (path_of("v1", "secrets", namespace), {**core, "kind": "Secret", "stringData": {"JUPYTERHUB_API_TOKEN": "x" * 64}}),
        (path_of("v1", "persistentvolumeclaims", namespace), {**core, "kind": "PersistentVolumeClaim", "spec": claim}),
        (path_of("v1", "pods", namespace), {**core, "kind": "Pod", "spec": pod}),
    ]  # fmt: skip


class Load:
    """Gives the work out."""

    def __init__(self, api: KubernetesAPI, people: int, services: int) -> None:
        self._api, self.people, self.services = api, people, services

    async def prepare(self) -> None:
        """The release's own namespace."""
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RELEASE}}
        await self._api.request("POST", path_of("v1", "namespaces"), body=body)

    async def create_namespaces(self) -> None:
        """As the API makes them when they are needed first."""
        path = path_of("v1", "namespaces")

        async def create(person: int) -> None:
            name = namespace_of(person)
            body = make_namespace(name, NamespaceOwner("user", name.removeprefix("user-")), OPTIONS)
            await self._api.request("POST", path, body=body)

        await _each(create, range(self.people))

    async def create_servers(self) -> None:
        async def create(person: int) -> None:
            for path, body in make_server(person):
                await self._api.request("POST", path, body=body)

        await _each(create, range(self.people))

    async def create_services(self) -> None:
        async def create(number: int) -> None:
            body = make_service(number, self.people)
            await self._api.request("POST", path_of(GROUP, "modelservices", body["metadata"]["namespace"]), body=body)

        await _each(create, range(self.services))

    async def change_services(self, wave: int) -> None:
        """Another variable for the engine: every Deployment is rolled out anew."""

        async def change(number: int) -> None:
            meta = make_service(number, self.people)["metadata"]
            path = path_of(GROUP, "modelservices", meta["namespace"], meta["name"])
            body = {"spec": {"env": {"WAVE": str(wave)}}}
            await self._api.request("PATCH", path, body=body, content_type=MERGE_PATCH)

        await _each(change, range(self.services))


async def _each(work: Callable[[int], Awaitable[None]], numbers: Iterable[int]) -> None:
    left = iter(numbers)

    async def some() -> None:
        for number in left:
            await work(number)

    await asyncio.gather(*(some() for _ in range(AT_ONCE)))


Done = Callable[[dict[str, Any]], bool]


class Watched:
    """The number of objects of a kind in the wanted state, and the time since when."""

    def __init__(self, api: KubernetesAPI, path: str, done: Done, params: dict[str, str] | None = None) -> None:
        self._api, self._path, self._done, self._params = api, path, done, params or {}
        self._state: dict[str, bool] = {}
        self.since = 0.0
        """When the last one became so (time.monotonic)."""

    @property
    def done(self) -> int:
        return sum(self._state.values())

    def __len__(self) -> int:
        return len(self._state)

    @contextlib.asynccontextmanager
    async def following(self) -> AsyncIterator[Watched]:
        task = asyncio.create_task(self._follow())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            params = self._params | {"watch": "1", "resourceVersion": "0"}
            async with self._api.lines(self._path, params=params) as lines:
                async for line in lines:
                    self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        obj = event["object"]
        key = obj["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._state.pop(key, None)
        elif event["type"] in ("ADDED", "MODIFIED"):
            done = self._done(obj)
            if done and not self._state.get(key):
                self.since = time.monotonic()
            self._state[key] = done


def is_prepared(namespace: dict[str, Any]) -> bool:
    return KEY_PREPARED in (namespace["metadata"].get("annotations") or {})


def is_ready(service: dict[str, Any]) -> bool:
    """The status says that what the spec asks for is there."""
    status = service.get("status") or {}
    return status.get("observedGeneration") == service["metadata"]["generation"] and status.get("phase") == "Ready"


def is_rolled_out(deployment: dict[str, Any]) -> bool:
    status, replicas = deployment.get("status") or {}, deployment["spec"]["replicas"]
    counts = [status.get(name) for name in ("readyReplicas", "updatedReplicas", "replicas")]
    return status.get("observedGeneration") == deployment["metadata"]["generation"] and counts == [replicas] * 3
