"""Running models keep their image in an upgrade of the platform."""

from __future__ import annotations

import copy

import pytest

from llmos_hub.backends.kubernetes import KubernetesBackend
from llmos_hub.workload import Role, Workload, WorkloadRef
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
