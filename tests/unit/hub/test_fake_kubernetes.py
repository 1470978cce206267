"""The contract suite on the fake of Kubernetes' API, so that what passes with it passes on a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from llmos_hub.kubernetes.connection import KubernetesAPI
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.kubernetes_contract import Client, KubernetesContract, config, refused


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[FakeKubernetes]:
    async with FakeKubernetes().running() as cluster:
        yield cluster


@pytest.fixture
async def api(cluster: FakeKubernetes, tmp_path: Path) -> AsyncIterator[KubernetesAPI]:
    async with cluster.api(tmp_path) as opened:
        yield opened


@pytest.fixture
def namespace(cluster: FakeKubernetes) -> str:
    for name in ("t-one", "default"):
        cluster.put("namespaces", {"metadata": {"name": name}})
    return "t-one"


@pytest.fixture
def finished_pod(cluster: FakeKubernetes, namespace: str) -> Callable[[str], Awaitable[None]]:
    async def make(name: str) -> None:
        spec = {"containers": [{"name": "main"}]}
        cluster.put("pods", {"kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        cluster.logs[namespace, name] = "one\ntwo\n"

    return make


@pytest.fixture
def too_old(cluster: FakeKubernetes, namespace: str) -> str:
    cluster.forget()
    return "1"


@pytest.fixture
def watch_period() -> int:
    return 1


class TestFakeKubernetes(KubernetesContract):
    """The contract on the fake."""

    async def test_a_page_of_a_list_expires(self, cluster: FakeKubernetes, configs: Client) -> None:
        """A real server answers this some minutes later only."""
        for name in ("a", "b"):
            await configs.create(config(name))
        first = await configs.list(limit="1")
        await configs.create(config("c"))
        cluster.forget()
        with refused(410, "Expired"):
            await configs.list(limit="1", **{"continue": first["metadata"]["continue"]})


async def test_while_it_is_down_nothing_is_done(tmp_path: Path) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.down = True
        with refused(503, "ServiceUnavailable"):
            await Client(api, "t-one", "configmaps").create(config("a"))
        assert (cluster.refused, cluster.names("configmaps", "t-one")) == (1, [])
