"""Two releases in one cluster, and resources where no release serves."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from subprocess import CompletedProcess

import pytest

from llmos.resources import ModelService
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.stores.kubernetes.store import KubernetesStore
from tests.support.cluster import Cluster, wait_for
from tests.support.helm import render
from tests.support.live_controllers import live_release, stand_in

ALONE = "sees and marks namespaces that are nobody's"
NEEDS = ("metrics",)


async def test_each_release_serves_its_own_namespaces(cluster: Cluster, api: KubernetesAPI) -> None:
    async with live_release(cluster, api) as first, live_release(cluster, api) as second:
        releases = (first, second)
        for release in releases:
            await release.store.create(stand_in("chat", release.namespace))
        for release in releases:
            await release.until("chat", lambda status: status.phase == "Ready")
        for release in releases:
            assert {ref.namespace for ref in await release.backend.refs()} == {release.namespace}
            (deployment,) = cluster.get("deployments", "-n", release.namespace)["items"]
            assert deployment["metadata"]["labels"]["app.kubernetes.io/part-of"] == release.namespace


async def test_where_no_release_serves_a_model_says_so_and_goes_on_when_one_does(
    cluster: Cluster, api: KubernetesAPI
) -> None:
    orphaned = cluster.namespace("orphan")
    async with live_release(cluster, api) as first, live_release(cluster, api) as second:
        await first.store.create(stand_in("chat", orphaned))
        seen = await first.until("chat", lambda status: status.phase == "Failed", namespace=orphaned)
        assert "serves only namespaces that it has made" in seen.message
        line = cluster.kubectl("get", "modelservice", "chat", "-n", orphaned)
        assert "Failed" in line
        version = (await first.store.get(ModelService, orphaned, "chat")).metadata.resource_version
        await asyncio.sleep(3)
        again = await first.store.get(ModelService, orphaned, "chat")
        assert again.metadata.resource_version == version, "the two write against each other"
        labels = ("app.kubernetes.io/managed-by=llmos", f"app.kubernetes.io/instance={second.namespace}")
        cluster.kubectl("label", "namespace", orphaned, *labels)
        await second.until("chat", lambda status: status.phase == "Ready", namespace=orphaned)
        assert {ref.namespace for ref in await first.backend.refs()} == set()
        await second.gone("chat", orphaned)
        assert cluster.get("deployments,pods", "-n", orphaned)["items"] == []


@dataclass
class Rights:
    """The rights and settings that the chart gives the controllers of a release that isn't running."""

    cluster: Cluster
    release: str

    def as_controllers(self, *words: str, stdin: str | None = None) -> CompletedProcess[str]:
        account = f"system:serviceaccount:{self.release}:llmos-controllers"
        groups = ("--as-group=system:serviceaccounts", "--as-group=system:authenticated")
        return self.cluster.attempt("kubectl", *words, f"--as={account}", *groups, stdin=stdin)


@pytest.fixture
def rights(cluster: Cluster) -> Iterator[Rights]:
    release = cluster.namespace("rights")
    objects = [
        obj
        for obj in render({}, namespace=release)
        if obj["kind"].startswith("ValidatingAdmissionPolicy")
        or (obj["kind"] in ("ClusterRole", "ClusterRoleBinding") and obj["metadata"]["name"].endswith("-controllers"))
    ]
    assert len(objects) == 6
    cluster.apply(*objects)
    try:
        yield Rights(cluster, release)
    finally:
        names = [f"{obj['kind'].lower()}/{obj['metadata']['name']}" for obj in objects]
        cluster.attempt("kubectl", "delete", "--ignore-not-found", "--wait=false", *names)


async def test_the_chart_lets_controllers_say_so_and_nothing_more(
    cluster: Cluster, api: KubernetesAPI, rights: Rights
) -> None:
    store = KubernetesStore(api)
    orphaned, others = cluster.namespace("orphan"), cluster.namespace("others")
    elsewhere = f"app.kubernetes.io/instance={uuid.uuid4().hex[:8]}"
    cluster.kubectl("label", "namespace", others, "app.kubernetes.io/managed-by=llmos", elsewhere)
    for namespace in (orphaned, others):
        await store.create(stand_in("chat", namespace))

    def patch(namespace: str, body: dict[str, object], *words: str) -> CompletedProcess[str]:
        command = ("patch", "modelservice", "chat", "-n", namespace, "--type=merge", "-p", json.dumps(body), *words)
        return rights.as_controllers(*command)

    said = {"status": {"phase": "Failed", "message": "not served"}}
    wait_for(lambda: patch(others, {"spec": {"replicas": 2}}).returncode, "the policy in force", timeout=30, pause=0.5)
    done = patch(orphaned, said, "--subresource=status")
    assert done.returncode == 0, done.stderr
    assert (await store.get(ModelService, orphaned, "chat")).status.message == "not served"
    for refused in (
        patch(others, said, "--subresource=status"),
        patch(others, {"spec": {"replicas": 2}}),
        patch(orphaned, {"spec": {"replicas": 2}}),
        patch(orphaned, {"metadata": {"finalizers": ["llmos.ai/workloads"]}}),
    ):
        assert refused.returncode
        assert "LLMOS writes only into its own namespace and those it has made" in refused.stderr


def test_the_chart_lets_controllers_read_memory_in_use(cluster: Cluster, rights: Rights) -> None:
    cluster.addons("metrics")
    if cluster.attempt("kubectl", "get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes").returncode:
        pytest.skip("this cluster has no metrics-server")
    read = rights.as_controllers("get", "--raw", "/apis/metrics.k8s.io/v1beta1/pods")
    assert read.returncode == 0, read.stderr
    assert json.loads(read.stdout)["kind"] == "PodMetricsList"
    nodes = rights.as_controllers("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes")
    assert nodes.returncode, "nothing but pods is needed"
