"""Containers state the CPU and memory that a namespace's quota requires, and nothing without a quota."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from llmos.errors import BackendFailed
from llmos_hub.backends.kubernetes import backend as module
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.backends.kubernetes.objects import make_objects
from llmos_hub.backends.kubernetes.quotas import Demands
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.workload import Role, Workload, WorkloadRef
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.kubernetes_backend import script, serving, settings_for

NAMESPACE = "user-ada"
REF = WorkloadRef("ModelService", NAMESPACE, "chat", "u1", "serve")
SETTINGS = settings_for("llmos")
FETCH = script("true")
WANTED = Workload(REF, (Role("replica", 1, serving()),))


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
    return {"kind": "ResourceQuota", "metadata": {"name": "site", "namespace": NAMESPACE}, "spec": {"hard": names}}


@contextlib.asynccontextmanager
async def running(api: KubernetesAPI) -> AsyncIterator[KubernetesBackend]:
    backend = KubernetesBackend(api, SETTINGS)
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


def stated(cluster: FakeKubernetes) -> Any:
    (name,) = cluster.names("deployments", NAMESPACE)
    deployment = cluster.get("deployments", name, NAMESPACE)
    assert deployment is not None
    return deployment["spec"]["template"]["spec"]["containers"][0].get("resources")


@pytest.mark.parametrize(
    ("default", "expected"),
    [({}, {"limits": {"cpu": "1"}, "requests": {"cpu": "100m"}}), ({"cpu": "2"}, None)],
)
async def test_the_namespace_s_own_quota_counts_and_its_defaults_do(tmp_path, default, expected) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        cluster.put("resourcequotas", quota(limits_cpu="8", pods="5"))
        limits = [{"type": "Container", "default": default}]
        site = {"name": "site", "namespace": NAMESPACE}
        cluster.put("limitranges", {"kind": "LimitRange", "metadata": site, "spec": {"limits": limits}})
        async with running(api) as backend:
            await backend.apply(WANTED)
        assert stated(cluster) == expected


async def test_a_new_quota_is_met_at_once_and_a_removed_one_forgotten(tmp_path) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        async with running(api) as backend:
            await backend.apply(WANTED)
            assert stated(cluster) is None
            cluster.put("resourcequotas", quota(limits_cpu="8"))
            await cluster.until(lambda: (stated(cluster) or {}).get("limits") == {"cpu": "1"}, "the limit")
            cluster.remove("resourcequotas", "site", NAMESPACE)
            await cluster.until(lambda: stated(cluster) is None, "no limit")
            await backend.delete(REF)
            assert cluster.names("deployments", NAMESPACE) == []


async def test_a_download_that_no_pod_was_made_for_is_made_again_with_limits(tmp_path) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})

        def container() -> dict[str, Any]:
            for name in cluster.names("jobs", NAMESPACE):
                job = cluster.get("jobs", name, NAMESPACE)
                assert job is not None
                return job["spec"]["template"]["spec"]["containers"][0]
            return {}

        async with running(api) as backend:
            await backend.apply(Workload(REF, (Role("fetch", 1, script("true", completes=True)),)))
            assert "limits" not in container().get("resources", {})
            cluster.put("resourcequotas", quota(limits_cpu="8"))
            await cluster.until(lambda: container().get("resources", {}).get("limits") == {"cpu": "1"}, "the limit")


async def test_a_change_of_a_quotas_status_applies_nothing_again(tmp_path) -> None:
    async with fake_kubernetes(tmp_path) as (_, api):
        told = list[str]()
        demands = Demands(api, told.append)
        reflector = demands.reflectors["ResourceQuota"]
        for version, used in (("1", "0"), ("2", "1")):
            obj = quota(limits_cpu="8") | {"status": {"used": {"limits.cpu": used}}}
            obj["metadata"]["resourceVersion"] = version
            reflector.take(obj)
        assert told == [NAMESPACE]
        assert demands.of(NAMESPACE) == {"limits.cpu"}
        assert demands.of("user-bob") == frozenset()


@pytest.mark.parametrize("kind", ["resourcequotas", "limitranges"])
async def test_a_quota_that_cannot_be_read_is_not_taken_for_none(tmp_path, monkeypatch, kind) -> None:
    """A different answer some minutes later would restart every engine."""
    monkeypatch.setattr(module, "_SYNC", 0.2)
    async with fake_kubernetes(tmp_path) as (cluster, api):
        listed = cluster._list

        def answer(request: Request, plural: str, namespace: str) -> Response:
            if plural == kind:
                return JSONResponse({"reason": "InternalError", "message": "etcd is away"}, status_code=500)
            return listed(request, plural, namespace)

        monkeypatch.setattr(cluster, "_list", answer)
        names = {"resourcequotas": "ResourceQuota", "limitranges": "LimitRange"}
        with pytest.raises(BackendFailed, match=rf"The cluster's objects \({names[kind]}\) can't be listed"):
            async with running(api):
                pass


async def test_two_requests_ask_for_the_quotas_of_all_namespaces(tmp_path, monkeypatch) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        asked = list[str]()
        request = api.request

        async def counted(method: str, path: str, **how: Any) -> Any:
            if "quotas" in path or "limitranges" in path or "secrets" in path:
                asked.append(path)
            return await request(method, path, **how)

        monkeypatch.setattr(api, "request", counted)
        async with running(api) as backend:
            for number in range(5):
                namespace = f"user-{number}"
                cluster.put("namespaces", {"metadata": {"name": namespace}})
                await backend.apply(replace(WANTED, ref=replace(REF, namespace=namespace)))
        assert sorted(asked) == ["/api/v1/limitranges", "/api/v1/resourcequotas"]
