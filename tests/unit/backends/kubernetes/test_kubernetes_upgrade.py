"""Running models keep their image in an upgrade of the platform."""

from __future__ import annotations

import copy
import hashlib
import json
import sys
from pathlib import Path

import pytest

from llmos.resources import ModelService
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.backends.kubernetes.objects import make_objects
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.controllers.layout import Layout
from llmos_hub.controllers.modelservice.workloads import make_fetch, make_serve
from llmos_hub.engines.base import Plan
from llmos_hub.workload import Probe, ProcessTemplate, Role, Workload, WorkloadRef
from tests.support.fake_kubernetes import fake_kubernetes
from tests.support.kubernetes_backend import serving, settings_for

REF = WorkloadRef("ModelService", "user-ada", "chat", "u1", "serve")


def wanted(**fields: object) -> Workload:
    return Workload(REF, (Role("replica", 1, serving(**{"init": (serving("fetch"),), **fields})),))


def images(cluster) -> set[str]:
    (name,) = cluster.names("deployments", "user-ada")
    pod = cluster.get("deployments", name, "user-ada")["spec"]["template"]["spec"]
    return {container["image"] for container in (*pod["initContainers"], *pod["containers"])}


def set_ready(cluster, count: int) -> None:
    (name,) = cluster.names("deployments", "user-ada")
    deployment = copy.deepcopy(cluster.get("deployments", name, "user-ada"))
    cluster.put("deployments", {**deployment, "status": {"readyReplicas": count}})


async def apply(api, tag: str, *workloads: Workload) -> None:
    """Apply the workload as a control plane of that version does after its start."""
    backend = KubernetesBackend(api, settings_for("llmos", images={"": {"image": f"engine:{tag}"}}))
    await backend.start()
    try:
        for workload in workloads:
            await backend.apply(workload)
    finally:
        await backend.close()


@pytest.fixture
async def running(tmp_path):
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "user-ada"}})
        await apply(api, "1", wanted())
        set_ready(cluster, 1)
        yield cluster, api


async def test_what_runs_is_left_alone(running):
    cluster, api = running
    await apply(api, "2", wanted())
    assert images(cluster) == {"engine:1"}


async def test_what_is_changed_gets_the_new_image(running):
    cluster, api = running
    await apply(api, "2", wanted(), wanted(name="b"))
    assert images(cluster) == {"engine:2"}


async def test_what_does_not_run_gets_the_new_image(running):
    cluster, api = running
    set_ready(cluster, 0)
    await apply(api, "2", wanted())
    assert images(cluster) == {"engine:2"}


def test_the_objects_of_a_model_are_byte_for_byte_those_of_the_version_before(monkeypatch):
    """A Deployment that differs restarts every model in an upgrade."""
    monkeypatch.setattr(sys, "executable", "/opt/llmos/bin/python")
    meta = {"name": "chat", "namespace": "user-ada", "uid": "u-1", "generation": 3}
    spec = {"model": "demo://tiny", "replicas": 2}
    service = ModelService.parse({"kind": "ModelService", "metadata": meta, "spec": spec})
    argv = ("server", "--listen", "{port}", "{other}")
    template = ProcessTemplate(argv, env={"A": "{index}"}, readiness=Probe("/health"))
    pods, none = Layout(Path("/models"), per_namespace=True), {}
    serve = make_serve(
        service, Plan(template, "generate", "", 2**30, ""), {"KEY": "secret"}, layout=pods, engine="llamacpp"
    )
    fetch = make_fetch(service, Path("/models"), pods, attempt=1, environment=none, secrets=none)
    digests = [
        hashlib.sha256(json.dumps(make_objects(workload, KubernetesSettings())).encode()).hexdigest()
        for workload in (serve, fetch)
    ]
    assert digests == [
        "eaad83d51d81150450fd998e0af292993880190ae77ca69afed49f5946627bcd",
        "57338579b44c63df0ae683babab6c253c895ab24dabe2ea634c2c03fb8ecbecd",
    ]
