"""The contract suite of the unit tests' fake API server on a real one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.cluster import Cluster, wait_for
from tests.support.kubernetes_backend import IMAGE
from tests.support.kubernetes_contract import KubernetesContract


@pytest.fixture
def finished_pod(cluster: Cluster, namespace: str) -> Callable[[str], Awaitable[None]]:
    def make(name: str) -> None:
        container = {"name": "main", "image": IMAGE, "command": ["/bin/sh", "-c", "echo one; echo two"]}
        meta = {"name": name, "namespace": namespace}
        spec = {"containers": [container], "restartPolicy": "Never"}
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
        wait_for(lambda: cluster.get("pod", name, "-n", namespace)["status"]["phase"] == "Succeeded", "the pod's end")

    return lambda name: asyncio.to_thread(make, name)


@pytest.fixture
def too_old() -> str:
    """The server's caches begin at the version of its own start."""
    return "1"


@pytest.fixture
def watch_period() -> int:
    """The server sends a bookmark about two seconds before it ends a watch."""
    return 10


class TestKubernetes(KubernetesContract):
    """The contract on a real API server."""
