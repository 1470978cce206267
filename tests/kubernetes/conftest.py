"""What the tests on a cluster share: the cluster, and namespaces of a test's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from llmos_hub.kubernetes_api import KubernetesAPI
from tests.support.cluster import Cluster, ClusterMissing, build_cluster, start_cluster

NODES = int(os.environ.get("LLMOS_TEST_NODES", "3"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the cluster before the first test: it takes ten minutes, and no test has so much time."""
    if session.config.option.collectonly or not any("cluster" in getattr(i, "fixturenames", ()) for i in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            build_cluster()
    except ClusterMissing as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real cluster, with our custom resource definitions; stopped at the end if it was started here."""
    try:
        found = start_cluster(NODES)
    except ClusterMissing as error:
        pytest.exit(str(error), returncode=1)
    try:
        found.install_crds()
        yield found
    finally:
        found.clean()
        found.stop()


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """A namespace of this test's own."""
    return cluster.namespace()


@pytest.fixture(scope="module")
def lasting(cluster: Cluster) -> str:
    """A namespace for all tests of a module that leave nothing in it."""
    return cluster.namespace()


@pytest.fixture
async def api(cluster: Cluster) -> AsyncIterator[KubernetesAPI]:
    """A connection to the API server."""
    opened = KubernetesAPI(kubeconfig=cluster.kubeconfig)
    try:
        yield opened
    finally:
        await opened.close()
