"""What the tests on a cluster share: the cluster, and namespaces of a test's own."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from llmos_hub.kubernetes.connection import KubernetesAPI
from tests.support.cluster import Cluster, ClusterMissing, build_cluster, start_cluster

NODES = int(os.environ.get("LLMOS_TEST_NODES", "3"))
ADDONS = ("csi", "netpol", "metrics", "kuberay", "lws")


CLUSTER = pytest.StashKey[Cluster]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test what they need: it takes a quarter of an hour, and no test has so much time.

    What a module needs of our own cluster beside its nodes stands in its ``NEEDS``: addons and images.
    """
    items = [item for item in session.items if "cluster" in getattr(item, "fixturenames", ())]
    if session.config.option.collectonly or not items:
        return
    needs = sorted({name for item in items for name in getattr(getattr(item, "module", None), "NEEDS", ())})
    capture = session.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            build_cluster()
            cluster = session.config.stash[CLUSTER] = start_cluster(NODES)
            _bring(cluster, needs)
    except (ClusterMissing, AssertionError) as error:
        pytest.exit(str(error), returncode=1)


def _bring(cluster: Cluster, needs: Sequence[str]) -> None:
    addons = [name for name in needs if name in ADDONS]
    images = [name for name in needs if name not in ADDONS]
    if cluster.directory is None:
        return
    for kind, names, bring in (("addons", addons, cluster.addons), ("images", images, cluster.images)):
        if names:
            print(f"\n{kind}: {', '.join(names)} …", flush=True)
            bring(*names)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it also where no test has used it."""
    if cluster := config.stash.get(CLUSTER, None):
        cluster.stop()


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A real cluster, with our custom resource definitions; stopped at the end if it was started here."""
    found = pytestconfig.stash[CLUSTER]
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
