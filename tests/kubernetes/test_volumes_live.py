"""Volumes on a real cluster, with its CSI driver: claims, expansion, snapshots, clones, restore, a pod that mounts one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from llmos.errors import NotFound
from llmos.resources import Resource, Snapshot, Volume
from llmos_hub.kubernetes.connection import KubernetesAPI
from tests.support.cluster import Cluster
from tests.support.kubernetes_backend import IMAGE
from tests.support.live_controllers import LiveRelease, live_release

NEEDS = ("csi",)
GI = 2**30


@pytest.fixture
async def live(cluster: Cluster, api: KubernetesAPI) -> AsyncIterator[LiveRelease]:
    if cluster.directory is None:
        pytest.skip("the names of storage classes are those of our own cluster")
    cluster.addons("csi")
    async with live_release(cluster, api) as release:
        yield release
        for kind in (Volume, Snapshot):
            for left in (await release.store.list(kind, release.namespace)).items:
                await delete(release, kind, left.metadata.name)


def make(live: LiveRelease, kind: type[Resource], name: str, **spec: Any) -> Any:
    return kind.parse(
        {"metadata": {"name": name, "namespace": live.namespace, "finalizers": [kind.finalizer]}, "spec": spec}
    )


async def until(
    live: LiveRelease, kind: type[Any], name: str, holds: Callable[[Any], bool], timeout: float = 180
) -> Any:
    deadline = time.monotonic() + timeout
    while True:
        found = await live.store.get(kind, live.namespace, name)
        if holds(found.status):
            return found
        assert time.monotonic() < deadline, f"{name}: {found.status.phase}: {found.status.message}"
        await asyncio.sleep(0.5)


async def delete(live: LiveRelease, kind: type[Any], name: str, timeout: float = 120) -> None:
    await live.store.delete(kind, live.namespace, name)
    async with asyncio.timeout(timeout):
        while True:
            try:
                await live.store.get(kind, live.namespace, name)
            except NotFound:
                return
            await asyncio.sleep(0.5)


def ready(status: Any) -> bool:
    return status.phase == "Ready"


def in_pod(live: LiveRelease, claim: str, script: str) -> str:
    """Run a script in a pod that has a claim mounted at /data, and return its output."""
    name = f"look-{claim}-{time.monotonic_ns()}"[-60:].lstrip("-")
    container = {
        "name": "look",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", script],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
    live.cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": live.namespace},
            "spec": {"restartPolicy": "Never", "containers": [container], "volumes": [volume]},
        }
    )
    live.cluster.kubectl(
        "wait", f"pod/{name}", "-n", live.namespace, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"
    )
    output = live.cluster.kubectl("logs", name, "-n", live.namespace)
    live.cluster.kubectl("delete", "pod", name, "-n", live.namespace, "--wait=true")
    return output


@pytest.mark.parametrize("storage", ["csi-block", "csi-shared"])
async def test_made_grown_and_deleted(live: LiveRelease, storage: str) -> None:
    mode = "ReadWriteMany" if storage == "csi-shared" else "ReadWriteOnce"
    await live.store.create(make(live, Volume, "data", size="64Mi", storageClass=storage, accessMode=mode))
    volume = await until(live, Volume, "data", ready)
    assert volume.status.capacity == 64 * 2**20
    volume.spec.size = "128Mi"
    await live.store.update(volume)
    await until(live, Volume, "data", lambda s: s.capacity == 128 * 2**20)
    await delete(live, Volume, "data")
    assert not live.cluster.get("pvc", "-n", live.namespace)["items"]


async def test_snapshot_clone_and_restore_hold_what_they_should(live: LiveRelease) -> None:
    await live.store.create(make(live, Volume, "data", size="300Mi", storageClass="csi-block"))
    await until(live, Volume, "data", ready)
    await asyncio.to_thread(in_pod, live, "llmos-volume-data", "echo before > /data/file; sync")
    await live.store.create(make(live, Snapshot, "first", volume="data"))
    snapshot = await until(live, Snapshot, "first", ready)
    assert snapshot.status.size
    small = make(live, Volume, "small", size="64Mi", storageClass="csi-block", source={"snapshot": "first"})
    await live.store.create(small)
    await until(live, Volume, "small", lambda s: (s.message or "").startswith("The storage could not make it so far: "))
    await asyncio.to_thread(in_pod, live, "llmos-volume-data", "echo after > /data/file; sync")
    for name, source, said in (("old", {"snapshot": "first"}, "before"), ("copy", {"volume": "data"}, "after")):
        await live.store.create(make(live, Volume, name, size="300Mi", storageClass="csi-block", source=source))
        await until(live, Volume, name, ready)
        assert await asyncio.to_thread(in_pod, live, f"llmos-volume-{name}", "cat /data/file") == f"{said}\n"
    volume = await live.store.get(Volume, live.namespace, "data")
    volume.spec = type(volume.spec).model_validate(
        {**volume.spec.model_dump(by_alias=True), "restore": {"snapshot": "first", "request": "1"}}
    )
    await live.store.update(volume)
    await until(live, Volume, "data", lambda s: s.restored == "1" and ready(s))
    assert await asyncio.to_thread(in_pod, live, "llmos-volume-data", "cat /data/file") == "before\n"


async def test_a_class_that_can_not_grow_says_so(live: LiveRelease) -> None:
    await live.store.create(make(live, Volume, "data", size="64Mi", storageClass="hostpath"))
    volume = await until(live, Volume, "data", ready)
    volume.spec.size = "128Mi"
    await live.store.update(volume)
    found = await until(live, Volume, "data", lambda s: s.phase == "Degraded")
    assert "The cluster refuses it" in found.status.message
    assert found.status.capacity == 64 * 2**20
