"""Fixtures of the tests on a cluster: the cluster, and namespaces of a test's own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path

import pytest

from llmos_hub.kubernetes.connection import KubernetesAPI
from tests.support.cluster import Cluster, ClusterMissing, build_cluster, start_cluster
from tests.support.turns import Turn

NODES = int(os.environ.get("LLMOS_TEST_NODES", "3"))
ADDONS = ("csi", "netpol", "metrics", "kuberay", "lws")
SHARED = "LLMOS_TEST_TURNS"  # a directory for those who run tests on one cluster side by side

CLUSTER = pytest.StashKey[Cluster]()
TURN = pytest.StashKey[Turn]()


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Name the directory of the locks, and start the cluster where workers will share it."""
    config = session.config
    if _is_worker(config):
        return
    os.environ[SHARED] = tempfile.mkdtemp(prefix="llmos-turns-")
    if config.getoption("numprocesses", None) and not config.option.collectonly:
        _start(config)


def _start(config: pytest.Config) -> Cluster:
    """Start the cluster unless it runs; without one there are no tests."""
    try:
        build_cluster()
        cluster = config.stash[CLUSTER] = start_cluster(NODES)
    except (ClusterMissing, AssertionError) as error:
        pytest.exit(str(error), returncode=1)
    return cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest of the modules that run side by side; those that run alone follow, one after the other.

    The module whose tests may take longest counts as the longest.
    """
    limits: dict[Path, float] = {}
    for item in items:
        mark = item.get_closest_marker("timeout")
        limits[item.path] = max(limits.get(item.path, 0.0), float(mark.args[0]) if mark else 0.0)
    items.sort(key=lambda item: (_alone(item), -limits[item.path]))


def _alone(item: pytest.Item) -> bool:
    """Return whether a module needs the cluster to itself; its ``ALONE`` says why."""
    return hasattr(getattr(item, "module", None), "ALONE")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Wait for the module's turn before its first test, where no time-out runs yet; it ends after its last one."""
    turn = item.config.stash.get(TURN, None)
    if turn is None:
        return (yield)
    if not turn.held:
        turn.begin(alone=_alone(item))
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            turn.end()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build before the first test what they need: it takes a quarter of an hour, and no test has so much time.

    What a module needs of our own cluster beside its nodes stands in its ``NEEDS``: addons and images.
    """
    items = [item for item in session.items if "cluster" in getattr(item, "fixturenames", ())]
    if session.config.option.collectonly or not items:
        return
    needs = sorted({name for item in items for name in getattr(getattr(item, "module", None), "NEEDS", ())})
    capture = session.config.pluginmanager.getplugin("capturemanager")
    turn = session.config.stash[TURN] = Turn(Path(os.environ[SHARED]))
    turn.begin(alone=True)  # of several workers one brings it
    try:
        with capture.global_and_fixture_disabled():
            _bring(_start(session.config), needs)
    finally:
        turn.end()


def _bring(cluster: Cluster, needs: Sequence[str]) -> None:
    addons = [name for name in needs if name in ADDONS]
    images = [name for name in needs if name not in ADDONS]
    if cluster.directory is None:
        return
    for kind, names, bring in (("addons", addons, cluster.addons), ("images", images, cluster.images)):
        if names:
            print(f"\n{kind}: {', '.join(names)} …", file=sys.__stderr__, flush=True)  # a worker's stdout is nobody's
            bring(*names)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it also where no test has used it."""
    if cluster := config.stash.get(CLUSTER, None):
        cluster.stop()
    if not _is_worker(config) and (directory := os.environ.pop(SHARED, None)):
        shutil.rmtree(directory)


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
