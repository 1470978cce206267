"""The Volume reconciler on a real store and a provider that says what the test wants."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from llmos.errors import NotFound
from llmos.resources import Volume
from llmos_hub.controllers.layout import Layout, WorkloadContext
from llmos_hub.controllers.registry import Dependencies
from llmos_hub.controllers.volume.reconciler import VolumeReconciler
from llmos_hub.engines.base import Machine
from llmos_hub.stores.base import Store
from llmos_hub.volumes.base import Changed, VolumeRef, VolumeState, VolumeWish
from tests.support.fake_backend import Behaviour, FakeBackend

GI = 2**30
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Provider:
    def __init__(self) -> None:
        self.state = VolumeState("Ready", GI, 0, look_again=60)
        self.wishes: list[VolumeWish] = []
        self.deleted: list[VolumeRef] = []
        self.done = True
        self.changed: list[Changed] = []

    def subscribe(self, changed: Changed) -> None:
        self.changed.append(changed)

    async def ensure(self, ref: VolumeRef, wish: VolumeWish) -> VolumeState:
        self.wishes.append(wish)
        return self.state

    def source(self, ref: VolumeRef) -> str:
        return f"/volumes/{ref.name}"

    async def hide(self, ref: VolumeRef) -> None: ...

    async def delete(self, ref: VolumeRef) -> bool:
        self.deleted.append(ref)
        return self.done

    async def close(self) -> None: ...


class Bench:
    def __init__(self, store: Store, layout: Layout) -> None:
        self.store, self.volumes, self.now = store, Provider(), NOW
        self.requeued: list[tuple[str | None, str]] = []
        context = WorkloadContext(layout, lambda _: Machine(2, 8 * GI))
        backend = FakeBackend(lambda *_: Behaviour())
        parts = Dependencies(store, backend, context, requeue=self.requeued.append, volumes=self.volumes)
        self.reconciler = VolumeReconciler(parts, clock=lambda: self.now)

    async def create(self, **spec: Any) -> Volume:
        meta = {"name": "data", "namespace": "user-ada", "finalizers": [Volume.finalizer]}
        return await self.store.create(
            Volume.parse({"kind": "Volume", "metadata": meta, "spec": {"size": "1Gi", **spec}})
        )

    async def look(self) -> tuple[Volume, float | None]:
        result = await self.reconciler.reconcile(await self.store.get(Volume, "user-ada", "data"))
        return await self.store.get(Volume, "user-ada", "data"), result.requeue_after


@pytest.fixture
def bench(store: Store, tmp_path: Any) -> Bench:
    return Bench(store, Layout(tmp_path, per_namespace=False))


async def test_ready_with_what_it_holds(bench: Bench) -> None:
    await bench.create()
    volume, after = await bench.look()
    assert (volume.status.phase, volume.status.capacity, volume.status.used, after) == ("Ready", GI, 0, 60)
    assert bench.volumes.wishes == [VolumeWish(GI)]
    version = volume.metadata.resource_version
    again, _ = await bench.look()
    assert again.metadata.resource_version == version  # nothing changed, nothing is written
    assert bench.volumes.wishes[-1] == VolumeWish(GI, had=GI)
    bench.volumes.changed[0](VolumeRef("user-ada", "data", "x"))
    assert bench.requeued == [("user-ada", "data")]


@pytest.mark.parametrize(
    ("state", "phase", "said"),
    [
        (VolumeState("Working", reason="Provisioning", message="The claim waits."), "Pending", "The claim waits."),
        (VolumeState("Failed", reason="InsufficientStorage", message="No room."), "Failed", "No room."),
        (VolumeState("Failed", GI, reason="InsufficientStorage", message="No room."), "Degraded", "No room."),
        (VolumeState("Ready", GI, 2 * GI), "Full", "llmos volume grow data SIZE"),
    ],
)
async def test_phases(bench: Bench, state: VolumeState, phase: str, said: str) -> None:
    await bench.create()
    bench.volumes.state = state
    volume, _ = await bench.look()
    assert volume.status.phase == phase
    assert said in volume.status.message
    assert set(Volume.phases) >= {phase}


async def test_one_that_failed_keeps_the_size_it_had(bench: Bench) -> None:
    await bench.create()
    await bench.look()
    bench.volumes.state = VolumeState("Failed", reason="Lost", message="gone")
    await bench.look()
    await bench.look()
    assert bench.volumes.wishes[-1].had == GI


async def test_a_deleted_one_rests_and_then_goes_with_its_files(bench: Bench) -> None:
    await bench.create(deleteAt=(NOW + timedelta(hours=2)).isoformat())
    volume, after = await bench.look()
    assert (volume.status.phase, after) == ("Deleted", 7200)
    assert "llmos volume undelete data" in volume.status.message
    assert not bench.volumes.wishes
    bench.now += timedelta(hours=2)
    bench.volumes.done = False
    volume, _ = await bench.look()
    assert volume.metadata.deletion_timestamp is not None
    _, after = await bench.look()
    assert after is not None
    bench.volumes.done = True
    with pytest.raises(NotFound):
        await bench.look()
    assert {ref.uid for ref in bench.volumes.deleted} == {volume.metadata.uid}
