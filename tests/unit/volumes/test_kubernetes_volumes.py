"""Volumes as claims, on a small API server: what is asked for, and what its answers mean."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import Conflict
from llmos_hub.kubernetes.connection import MERGE_PATCH, KubernetesAPI, path_of
from llmos_hub.volumes.base import DataSource, VolumeRef, VolumeState, VolumeWish
from llmos_hub.volumes.kubernetes import KubernetesVolumes, claim_name, make_claim, make_snapshot
from tests.support.fake_kubernetes import fake_kubernetes

GI = 2**30
DATA, SNAP = VolumeRef("user-ada", "data", "uid-data"), VolumeRef("user-ada", "snap", "uid-snap")
CLAIMS = path_of("v1", "persistentvolumeclaims", "user-ada")
SNAPSHOTS = path_of("snapshot.storage.k8s.io/v1", "volumesnapshots", "user-ada")


def test_claims_and_snapshots() -> None:
    claim = make_claim(DATA, VolumeWish(GI, access_mode="ReadWriteMany", storage_class="shared"))
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": str(GI)}},
        "storageClassName": "shared",
    }
    assert claim["metadata"]["name"] == "llmos-volume-data"
    assert claim["metadata"]["labels"]["llmos.ai/uid"] == "uid-data"
    filled = make_claim(DATA, VolumeWish(GI, source=DataSource("snapshot", SNAP)))
    assert filled["spec"]["dataSource"] == {
        "apiGroup": "snapshot.storage.k8s.io",
        "kind": "VolumeSnapshot",
        "name": "llmos-snapshot-snap",
    }
    cloned = make_claim(DATA, VolumeWish(GI, source=DataSource("volume", DATA)))
    assert cloned["spec"]["dataSource"] == {"kind": "PersistentVolumeClaim", "name": "llmos-volume-data"}
    assert make_snapshot(SNAP, DATA)["spec"] == {"source": {"persistentVolumeClaimName": "llmos-volume-data"}}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[KubernetesAPI]:
    async with fake_kubernetes(tmp_path) as (_, api):
        await api.request("POST", path_of("v1", "namespaces"), body={"metadata": {"name": "user-ada"}})
        yield api


@pytest.fixture
def volumes(api: KubernetesAPI) -> KubernetesVolumes:
    return KubernetesVolumes(api)


async def set_status(api: KubernetesAPI, path: str, **status: Any) -> None:
    await api.request("PATCH", f"{path}/status", body={"status": status}, content_type=MERGE_PATCH)


async def test_from_pending_to_grown_to_gone(volumes: KubernetesVolumes, api: KubernetesAPI) -> None:
    path = f"{CLAIMS}/{claim_name(DATA)}"
    assert (await volumes.ensure(DATA, VolumeWish(GI))).state == "Working"
    await set_status(api, path, phase="Bound", capacity={"storage": "1Gi"})
    state = await volumes.ensure(DATA, VolumeWish(GI))
    assert (state.state, state.capacity) == ("Ready", GI)
    state = await volumes.ensure(DATA, VolumeWish(2 * GI, had=GI))
    assert (state.state, state.reason, state.capacity) == ("Working", "Growing", GI)
    assert (await api.request("GET", path))["spec"]["resources"]["requests"]["storage"] == str(2 * GI)
    await set_status(api, path, capacity={"storage": "2Gi"})
    assert (await volumes.ensure(DATA, VolumeWish(2 * GI, had=GI))).capacity == 2 * GI
    while not await volumes.delete(DATA):
        pass
    state = await volumes.ensure(DATA, VolumeWish(2 * GI, had=2 * GI))
    assert (state.state, state.reason) == ("Failed", "Lost")
    assert volumes.source(DATA) == "llmos-volume-data"


async def test_why_the_storage_makes_no_claim_is_said(volumes: KubernetesVolumes, api: KubernetesAPI) -> None:
    wish = VolumeWish(GI, storage_class="fast")
    assert (await volumes.ensure(DATA, wish)).message == "The storage makes it."
    claim = await api.request("GET", f"{CLAIMS}/{claim_name(DATA)}")
    for uid, minute, kind, message in (
        (claim["metadata"]["uid"], "01", "Warning", "it is full"),
        (claim["metadata"]["uid"], "02", "Warning", "the size is less than the snapshot's"),
        (claim["metadata"]["uid"], "03", "Normal", "External provisioner is provisioning"),
        ("another", "04", "Warning", "another's"),
    ):
        event = {
            "metadata": {"name": f"event-{minute}", "namespace": "user-ada"},
            "involvedObject": {"uid": uid, "kind": "PersistentVolumeClaim", "namespace": "user-ada"},
            "type": kind,
            "message": message,
            "lastTimestamp": f"2026-01-01T00:{minute}:00Z",
        }
        await api.request("POST", path_of("v1", "events", "user-ada"), body=event)
    state = await volumes.ensure(DATA, wish)
    assert state.message == "The storage could not make it so far: the size is less than the snapshot's"


async def test_claims_of_others_are_left_alone(volumes: KubernetesVolumes, api: KubernetesAPI) -> None:
    other = VolumeRef("user-ada", "data", "another-uid")
    await volumes.ensure(other, VolumeWish(GI))
    state = await volumes.ensure(DATA, VolumeWish(GI))
    assert (state.state, state.reason) == ("Failed", "Refused")
    assert await volumes.delete(DATA)
    assert await api.request("GET", f"{CLAIMS}/{claim_name(other)}")


async def test_snapshot_and_restore(volumes: KubernetesVolumes, api: KubernetesAPI) -> None:
    await volumes.ensure(DATA, VolumeWish(GI))
    assert (await volumes.snapshot(SNAP, DATA)).state == "Working"
    path = f"{SNAPSHOTS}/llmos-snapshot-snap"
    await set_status(api, path, readyToUse=True, restoreSize="1Gi")
    assert await volumes.snapshot(SNAP, DATA) == VolumeState("Ready", used=GI)
    before = await api.request("GET", f"{CLAIMS}/{claim_name(DATA)}")
    for _ in range(5):
        state = await volumes.restore(DATA, SNAP, "1", VolumeWish(GI))
    claim = await api.request("GET", f"{CLAIMS}/{claim_name(DATA)}")
    assert claim["metadata"]["uid"] != before["metadata"]["uid"]
    assert claim["spec"]["dataSource"]["name"] == "llmos-snapshot-snap"
    assert state.state == "Working"
    await set_status(api, f"{CLAIMS}/{claim_name(DATA)}", phase="Bound", capacity={"storage": "1Gi"})
    assert (await volumes.restore(DATA, SNAP, "1", VolumeWish(GI))).state == "Ready"
    while not await volumes.delete_snapshot(SNAP):
        pass


async def test_who_does_not_lead_writes_nothing(api: KubernetesAPI) -> None:
    with pytest.raises(Conflict):
        await KubernetesVolumes(api, leading=lambda: False).ensure(DATA, VolumeWish(GI))
