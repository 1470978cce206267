"""Roles that are started after others, with an API server that runs nothing: the tests tell it what is ready."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace

import pytest

from llmos.errors import Unsupported
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.workload import Role, Workload, WorkloadRef
from tests.support.backend_contract import until
from tests.support.fake_kubernetes import fake_kubernetes
from tests.support.kubernetes_backend import HEAD, WORKER, script, settings_for

REF = WorkloadRef("MLCluster", "user-ada", "ray", "u1")
NAMES = (f"{REF.id}-head", f"{REF.id}-worker", f"{REF.id}-client")
CLIENT = script("sleep 60")
WANTED = Workload(
    REF, (Role("client", 1, CLIENT, ("worker",)), Role("worker", 2, WORKER, ("head",)), Role("head", 1, HEAD))
)


@pytest.fixture
async def started(tmp_path):
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "user-ada"}})
        backend = KubernetesBackend(api, settings_for("llmos"))
        await backend.start()
        yield cluster, backend, api
        await backend.close()


def deployments(cluster) -> list[str]:
    return cluster.names("deployments", "user-ada")


def set_ready(cluster, name: str, count: int) -> None:
    deployment = copy.deepcopy(cluster.get("deployments", name, "user-ada"))
    status = {"readyReplicas": count, "replicas": count, "updatedReplicas": count, "observedGeneration": 1}
    cluster.put("deployments", {**deployment, "status": status})


async def all_started(cluster, backend) -> None:
    await backend.apply(WANTED)
    for name, count in zip(NAMES, (1, 2, 1), strict=True):
        await cluster.until(lambda name=name: name in deployments(cluster), name)
        set_ready(cluster, name, count)


async def test_each_role_is_made_when_those_before_it_are_ready(started):
    head, worker, client = NAMES
    cluster, backend, _ = started
    await backend.apply(WANTED)
    assert deployments(cluster) == [head]
    seen = await backend.observe(REF)
    assert [(r.role, r.phase, r.reason) for r in seen.replicas] == [
        ("client", "Waiting", "Dependency"),
        ("worker", "Waiting", "Dependency"),
        ("worker", "Waiting", "Dependency"),
    ]
    assert seen.replicas[0].message == "ray: client is started as soon as worker is ready."
    await backend.apply(WANTED)
    assert deployments(cluster) == [head], "the same again starts nothing"
    set_ready(cluster, head, 1)
    await cluster.until(lambda: worker in deployments(cluster))
    set_ready(cluster, worker, 1)
    await until(backend, REF, lambda o: [r.role for r in o.replicas] == ["client"])
    assert client not in deployments(cluster), "one of two is not enough"
    set_ready(cluster, worker, 2)
    await cluster.until(lambda: client in deployments(cluster))


async def test_a_head_that_restarts_stops_nothing(started):
    cluster, backend, _ = started
    await all_started(cluster, backend)
    await cluster.until(lambda: deployments(cluster) == sorted(NAMES))
    set_ready(cluster, NAMES[0], 0)
    await backend.apply(replace(WANTED, labels={"news": "1"}))
    assert deployments(cluster) == sorted(NAMES)


async def test_the_next_controllers_stop_in_the_reverse_order(started):
    cluster, backend, api = started
    await all_started(cluster, backend)
    await cluster.until(lambda: deployments(cluster) == sorted(NAMES))
    await backend.close()
    successor = KubernetesBackend(api, settings_for("llmos"))
    await successor.start()
    before = len(cluster.history)
    async with asyncio.timeout(10):
        await successor.delete(REF)
    await successor.close()
    gone = [(plural, name) for _, (plural, _, name), _, new in cluster.history[before:] if new is None]
    assert gone[:2] == [("deployments", NAMES[2]), ("deployments", NAMES[1])]
    assert {plural for plural, _ in gone[2:]} == {"deployments", "services", "networkpolicies", "poddisruptionbudgets"}
    assert cluster.names("services", "user-ada") == []


async def test_an_operator_is_not_supported_yet(started):
    cluster, backend, _ = started
    with pytest.raises(Unsupported, match="the ray operator"):
        await backend.apply(replace(WANTED, operator="ray"))
    assert deployments(cluster) == []
    assert await backend.refs() == ()
