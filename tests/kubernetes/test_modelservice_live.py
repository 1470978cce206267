"""A ModelService on a real cluster, with the controllers at work: memory in use, kubectl scale, autoscalers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmos.resources import ModelService
from llmos_hub.kubernetes.connection import KubernetesAPI
from tests.support.cluster import Cluster
from tests.support.live_controllers import LiveRelease, live_release, stand_in

NEEDS = ("metrics",)


@pytest.fixture
async def live(cluster: Cluster, api: KubernetesAPI) -> AsyncIterator[LiveRelease]:
    async with live_release(cluster, api) as release:
        yield release


@pytest.fixture
def metrics(cluster: Cluster) -> None:
    """The cluster tells how much memory pods use."""
    cluster.addons("metrics")
    if cluster.attempt("kubectl", "get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes").returncode:
        pytest.skip("this cluster has no metrics-server")


async def test_memory_in_use_is_told(live: LiveRelease, metrics: None) -> None:
    await live.store.create(stand_in("chat", live.namespace))
    status = await live.until("chat", lambda s: any(replica.memory for replica in s.replica_statuses), timeout=120)
    (replica,) = status.replica_statuses
    assert replica.memory is not None
    assert 3 * 2**20 <= replica.memory <= 32 * 2**20
    assert replica.memory_limit == 32 * 2**20


async def test_kubectl_scales_it(live: LiveRelease) -> None:
    await live.store.create(stand_in("chat", live.namespace))
    status = await live.until("chat", lambda s: s.phase == "Ready")
    live.cluster.kubectl("scale", "modelservice/chat", "--replicas=2", "-n", live.namespace)
    service = await live.store.get(ModelService, live.namespace, "chat")
    assert service.spec.replicas == 2
    status = await live.until("chat", lambda s: s.phase == "Ready" and s.ready_replicas == 2)
    assert status.replicas == 2
    pods = live.cluster.get("pods", "-n", live.namespace, "-l", status.selector)["items"]
    assert {pod["metadata"]["name"] for pod in pods} == {replica.id for replica in status.replica_statuses}
    path = f"/apis/llmos.ai/v1alpha1/namespaces/{live.namespace}/modelservices/chat/scale"
    scale = live.cluster.kubectl("get", "--raw", path)
    assert f'"selector":"{status.selector}"' in scale


async def test_an_autoscaler_scales_it(live: LiveRelease, metrics: None) -> None:
    """Kubernetes' own: it reads how many there are, finds their pods, and asks for more."""
    await live.store.create(stand_in("chat", live.namespace))
    await live.until("chat", lambda s: s.phase == "Ready")
    cpu = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 90}}}
    target = {"apiVersion": "llmos.ai/v1alpha1", "kind": "ModelService", "name": "chat"}
    live.cluster.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "chat", "namespace": live.namespace},
            "spec": {"scaleTargetRef": target, "minReplicas": 2, "maxReplicas": 3, "metrics": [cpu]},
        }
    )

    def conditions() -> dict[str, Any]:
        obj = live.cluster.get("hpa", "chat", "-n", live.namespace)
        return {c["type"]: c for c in obj.get("status", {}).get("conditions") or ()}

    await live.until("chat", lambda s: s.phase == "Ready" and s.ready_replicas == 2, timeout=90)
    async with asyncio.timeout(90):
        while conditions().get("ScalingActive", {}).get("status") != "True":
            assert conditions().get("ScalingActive", {}).get("reason") != "InvalidSelector", conditions()
            await asyncio.sleep(1)
    assert conditions()["AbleToScale"]["status"] == "True"
    status = live.cluster.get("hpa", "chat", "-n", live.namespace)["status"]
    assert status["currentReplicas"] == 2
    assert "current" in status["currentMetrics"][0]["resource"], "it read the pods' CPUs by the selector"
