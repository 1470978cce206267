"""Containers state the CPU and memory that a namespace's quota requires, and nothing without a quota."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llmos.errors import Unavailable
from llmos_hub.backends.kubernetes import KubernetesBackend
from llmos_hub.backends.kubernetes.objects import make_objects
from llmos_hub.backends.kubernetes.quotas import Demands
from llmos_hub.kubernetes_api import KubernetesAPI
from llmos_hub.workload import Role, Workload, WorkloadRef
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.kubernetes_backend import script, serving, settings_for

NAMESPACE = "user-ada"
REF = WorkloadRef("ModelService", NAMESPACE, "chat", "u1", "serve")
SETTINGS = settings_for("llmos")
FETCH = script("true")


def resources(demands: set[str], **fields: Any) -> dict[str, Any]:
    """Return the resources of each container of a model's pods."""
    workload = Workload(REF, (Role("replica", 1, serving(init=(FETCH,), **fields)),))
    spec = make_objects(workload, SETTINGS, frozenset(demands))[-1]["spec"]["template"]["spec"]
    return {c["name"]: c.get("resources") for c in (*spec["initContainers"], *spec["containers"])}


def test_nothing_is_stated_where_nobody_asks() -> None:
    assert set(resources(set()).values()) == {None}


def test_cores_are_bounded_where_the_quota_bounds_them() -> None:
    small = {"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}
    assert set(map(str, resources({"limits.cpu"}).values())) == {str(small)}
    chosen = resources({"limits.cpu"}, cpus=3.0)["engine"]
    assert chosen == {"requests": {"cpu": "3000m"}, "limits": {"cpu": "3000m"}}


def test_memory_of_a_download_is_bounded_and_an_engine_s_is_not_made_up() -> None:
    found = resources({"limits.memory"})
    assert found == {
        "init-0": {"requests": {"memory": "128Mi"}, "limits": {"memory": "1Gi"}},
        "engine": None,
    }
    job = Workload(REF, (Role("fetch", 1, script("true", completes=True)),))
    spec = make_objects(job, SETTINGS, frozenset({"limits.cpu", "limits.memory"}))[-1]["spec"]["template"]["spec"]
    assert spec["containers"][0]["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}


def quota(**hard: str) -> dict[str, Any]:
    names = {name.replace("_", "."): amount for name, amount in hard.items()}
    return {"metadata": {"name": "site", "namespace": NAMESPACE}, "spec": {"hard": names}}


@pytest.mark.parametrize(
    ("default", "stated"),
    [({}, {"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}), ({"cpu": "2"}, None)],
)
async def test_the_namespace_s_own_quota_counts_and_its_defaults_do(tmp_path, default, stated) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        cluster.put("resourcequotas", quota(limits_cpu="8", pods="5"))
        limits = [{"type": "Container", "default": default}]
        cluster.put("limitranges", {"metadata": {"name": "site", "namespace": NAMESPACE}, "spec": {"limits": limits}})
        backend = KubernetesBackend(api, SETTINGS)
        await backend.start()
        try:
            await backend.apply(Workload(REF, (Role("replica", 1, serving()),)))
        finally:
            await backend.close()
        (name,) = cluster.names("deployments", NAMESPACE)
        deployment = cluster.get("deployments", name, NAMESPACE)
        assert deployment is not None
        assert deployment["spec"]["template"]["spec"]["containers"][0].get("resources") == stated


@pytest.fixture
async def unread(tmp_path, monkeypatch) -> AsyncIterator[tuple[FakeKubernetes, KubernetesAPI, set[str]]]:
    """A cluster whose lists of these kinds can't be read."""
    kinds: set[str] = set()
    async with fake_kubernetes(tmp_path) as (cluster, api):
        listed = cluster._list

        def answer(request: Request, plural: str, namespace: str) -> Response:
            if plural in kinds:
                return JSONResponse({"reason": "InternalError", "message": "etcd is away"}, status_code=500)
            return listed(request, plural, namespace)

        monkeypatch.setattr(cluster, "_list", answer)
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        cluster.put("resourcequotas", quota(limits_cpu="8"))
        yield cluster, api, kinds


@pytest.mark.parametrize("kind", ["resourcequotas", "limitranges"])
async def test_a_quota_that_cannot_be_read_is_not_taken_for_none(unread, kind) -> None:
    """A different answer some minutes later would restart every engine."""
    _, api, kinds = unread
    now = [1000.0]
    demands = Demands(api, clock=lambda: now[0])
    kinds.add(kind)
    with pytest.raises(Unavailable, match="the quota of namespace user-ada wants can't be read: etcd is away"):
        await demands.of(NAMESPACE)
    kinds.clear()
    assert await demands.of(NAMESPACE) == {"limits.cpu"}
    kinds.add(kind)
    now[0] += 600
    assert await demands.of(NAMESPACE) == {"limits.cpu"}


async def test_an_engine_waits_for_the_quota_to_be_read(unread) -> None:
    cluster, api, kinds = unread
    backend = KubernetesBackend(api, SETTINGS)
    await backend.start()
    try:
        kinds.add("resourcequotas")
        with pytest.raises(Unavailable, match="can't be read"):
            await backend.apply(Workload(REF, (Role("replica", 1, serving()),)))
        assert cluster.names("deployments", NAMESPACE) == []
        kinds.clear()
        await backend.apply(Workload(REF, (Role("replica", 1, serving()),)))
        (name,) = cluster.names("deployments", NAMESPACE)
        spec = cluster.get("deployments", name, NAMESPACE)["spec"]["template"]["spec"]
        assert spec["containers"][0]["resources"]["limits"] == {"cpu": "1"}
    finally:
        await backend.close()
