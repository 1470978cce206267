"""Two releases in one cluster: each sees only resources in its own namespaces, also in those handed over to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from llmos.errors import Expired, Forbidden, NotFound
from llmos.resources import Credential, ModelService
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.stores.base import Store, WatchEvent
from llmos_hub.stores.kubernetes.namespaces import Ownership, ReleaseNamespaces
from llmos_hub.stores.kubernetes.release import ReleaseStore
from llmos_hub.stores.kubernetes.store import KubernetesStore
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.store_contract import ADA, GRACE, StoreContract, follow, model, next_change
from tests.support.waiting import eventually

OURS, OTHERS = "a-llmos", "b-llmos"


class AllOurs:
    """Owners of namespaces: every namespace is the release's."""

    def subscribe(self, listener: Any) -> None:
        pass

    async def ownership(self, namespace: str) -> Ownership:
        del namespace
        return "ours"

    async def ours(self) -> list[str]:
        return [ADA, GRACE, "user-nobody"]

    async def close(self) -> None:
        pass


class TestReleaseStore(StoreContract):
    """The contract for the release's own resources."""

    @pytest.fixture
    async def store(self, store: Store) -> Store:
        return ReleaseStore(store, cast("ReleaseNamespaces", AllOurs()))


@dataclass
class Bench:
    cluster: FakeKubernetes
    api: KubernetesAPI
    namespaces: ReleaseNamespaces
    everything: KubernetesStore
    store: ReleaseStore

    def namespace(self, name: str, release: str | None) -> None:
        """Create or hand over a namespace; None for no release."""
        labels = {"app.kubernetes.io/managed-by": "llmos", "app.kubernetes.io/instance": release} if release else {}
        self.cluster.put("namespaces", {"metadata": {"name": name, "labels": labels}})

    async def names(self) -> list[str]:
        return [item.metadata.name for item in (await self.store.list(ModelService)).items]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        namespaces = ReleaseNamespaces(api, OURS)
        everything = KubernetesStore(api, bookmark_interval=0.5)
        bench = Bench(cluster, api, namespaces, everything, ReleaseStore(everything, namespaces))
        bench.namespace("user-ada", OURS)
        bench.namespace("user-grace", OTHERS)
        bench.namespace("default", None)
        for name, namespace in (("ada", "user-ada"), ("grace", "user-grace"), ("apply", "default")):
            await everything.create(model(name, namespace))
        yield bench
        await bench.store.close()


@contextlib.asynccontextmanager
async def watching(bench: Bench) -> AsyncIterator[AsyncIterator[WatchEvent[ModelService]]]:
    version = (await bench.store.list(ModelService)).resource_version
    async with bench.store.watch(ModelService, resource_version=version) as events:
        yield events


async def test_only_what_is_the_releases_is_listed_and_read(bench: Bench) -> None:
    assert await bench.names() == ["ada"]
    assert [i.metadata.name for i in (await bench.everything.list(ModelService)).items] == ["apply", "ada", "grace"]
    assert (await bench.store.get(ModelService, "user-ada", "ada")).metadata.name == "ada"
    for namespace, name in (("user-grace", "grace"), ("default", "apply"), ("nowhere", "x")):
        assert (await bench.store.list(ModelService, namespace)).items == []
        with pytest.raises(NotFound):
            await bench.store.get(ModelService, namespace, name)


async def test_nothing_of_anothers_is_written(bench: Bench) -> None:
    grace = await bench.everything.get(ModelService, "user-grace", "grace")
    before = bench.cluster.revision
    for write in (bench.store.update, bench.store.patch_status):
        with pytest.raises(NotFound):
            await write(grace)
    with pytest.raises(NotFound):
        await bench.store.delete(ModelService, "user-grace", "grace")
    with pytest.raises(Forbidden, match="serves only namespaces that it has made, and user-grace is none"):
        await bench.store.create(model("new", "user-grace"))
    with pytest.raises(Forbidden):
        await bench.store.apply(model("grace", "user-grace", replicas=3))
    await bench.store.record(grace, "Normal", "Seen", "…")
    assert bench.cluster.revision == before
    assert (await bench.store.create(model("new", "user-ada"))).metadata.uid


async def test_credentials_of_another_release_are_not_read(bench: Bench) -> None:
    meta = {"name": "hub", "namespace": "user-grace"}
    await bench.everything.create(Credential.parse({"metadata": meta, "spec": {"data": {"HF_TOKEN": "secret"}}}))
    assert (await bench.store.list(Credential)).items == []
    with pytest.raises(NotFound):
        await bench.store.get(Credential, "user-grace", "hub")


def hub(namespace: str, value: str = "x") -> Credential:
    return Credential.parse({"metadata": {"name": "hub", "namespace": namespace}, "spec": {"data": {"K": value}}})


async def test_credentials_are_read_namespace_by_namespace_with_no_right_to_all(bench: Bench) -> None:
    bench.namespace("user-ben", OURS)
    bench.namespace("user-new", OURS)
    bench.cluster.readers = {"user-ada", "user-ben"}  # the controllers have not come to user-new yet
    with pytest.raises(Forbidden):
        await bench.everything.list(Credential)
    for namespace in ("user-ben", "user-ada"):
        await bench.store.create(hub(namespace))
    listing = await bench.store.list(Credential)
    assert [item.metadata.namespace for item in listing.items] == ["user-ada", "user-ben"]
    async with bench.store.watch(Credential, resource_version=listing.resource_version) as events:
        await bench.store.apply(hub("user-ben", "y"))
        event = await next_change(events)
        assert event.resource is not None
        assert (event.resource.metadata.namespace, event.resource.spec.data) == ("user-ben", {"K": "y"})
        bench.namespace("user-cleo", OURS)
        bench.cluster.readers |= {"user-cleo", "user-new"}
        for namespace in ("user-cleo", "user-new"):
            await bench.store.create(hub(namespace))
        found = [(await next_change(events)).resource for _ in range(2)]
        assert {one.metadata.namespace for one in found if one is not None} == {"user-cleo", "user-new"}


async def test_where_nothing_can_be_read_there_is_still_a_version_to_watch_from(bench: Bench) -> None:
    bench.cluster.readers = set()
    listing = await bench.store.list(Credential)
    assert listing.items == []
    async with bench.store.watch(Credential, resource_version=listing.resource_version) as events:
        bench.cluster.readers |= {"user-ada"}
        await bench.store.create(hub("user-ada"))
        assert (await next_change(events)).type == "ADDED"


async def test_changes_of_others_are_bookmarks(bench: Bench) -> None:
    async with watching(bench) as events:
        await bench.everything.create(model("second", "user-grace"))
        await bench.everything.create(model("second", "user-ada"))
        event = await next_change(events)
        assert event.resource is not None
        assert event.resource.metadata.namespace == "user-ada"


async def test_what_goes_of_others_is_a_bookmark_too(bench: Bench) -> None:
    async with watching(bench) as events:
        await bench.everything.delete(ModelService, "user-grace", "grace")
        await bench.everything.create(model("second", "user-ada"))
        assert await follow(events, 1) == [("ADDED", "second")]


async def test_a_resource_may_be_heard_of_before_its_namespace(bench: Bench) -> None:
    """Namespaces and models are watched separately, so a new person's first model may be reported before the namespace."""
    async with watching(bench) as events:
        bench.namespace("user-new", OURS)
        bench.namespaces._reflector.objects.pop(("", "user-new"), None)
        await bench.everything.create(model("first", "user-new"))
        assert await follow(events, 1) == [("ADDED", "first")]


async def test_a_new_persons_namespace_makes_nobody_list_again(bench: Bench) -> None:
    async with watching(bench) as events:
        for n in range(5):
            bench.namespace(f"user-{n}", OURS)
            await bench.everything.create(model(f"m{n}", f"user-{n}"))
        assert await follow(events, 5) == [("ADDED", f"m{n}") for n in range(5)]


async def test_a_namespace_that_comes_after_what_is_in_it(bench: Bench) -> None:
    """After a hand-over, resources that were passed over before are seen, also by watches."""
    async with watching(bench) as events:
        waiting = asyncio.create_task(next_change(events))
        bench.namespace("default", OURS)
        with pytest.raises(Expired, match="List again"):
            await asyncio.wait_for(waiting, 30)
    assert await bench.names() == ["apply", "ada"]
    async with watching(bench) as events:
        await bench.everything.delete(ModelService, "default", "apply")
        assert await follow(events, 1) == [("DELETED", "apply")]


async def test_a_namespace_that_is_handed_to_another_release(bench: Bench) -> None:
    async with watching(bench) as events:
        bench.namespace("user-ada", OTHERS)
        with pytest.raises(Expired):
            await next_change(events)
    assert await bench.names() == []


async def test_who_was_not_connected_at_the_hand_over_lists_again_too(bench: Bench) -> None:
    before = (await bench.store.list(ModelService)).resource_version
    bench.namespace("default", OURS)
    await _until(bench, "default", "ours")
    with pytest.raises(Expired):
        async with bench.store.watch(ModelService, resource_version=before):
            pass
    after = (await bench.store.list(ModelService)).resource_version
    with pytest.raises(Expired):  # another watcher of the same process, who has not listed
        async with bench.store.watch(ModelService, resource_version=str(int(before) - 1)):
            pass
    async with bench.store.watch(ModelService, resource_version=after) as events:
        await bench.everything.create(model("later", "default"))
        assert await follow(events, 1) == [("ADDED", "later")]


async def test_what_goes_with_its_namespace_is_told(bench: Bench) -> None:
    """Otherwise it would stay in the gateway's table."""
    async with watching(bench) as events:
        bench.cluster.edit(
            "namespaces", "user-ada", "", lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
        )
        bench.cluster.remove("namespaces", "user-ada")
        assert await follow(events, 1) == [("DELETED", "ada")]


async def test_a_wait_that_is_given_up_loses_nothing(bench: Bench) -> None:
    async with watching(bench) as events:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        await bench.everything.create(model("second", "user-ada"))
        assert await follow(events, 1) == [("ADDED", "second")]


async def test_whose_namespaces_are_is_asked_once(bench: Bench) -> None:
    await bench.store.list(ModelService)
    before = dict(bench.api.calls)
    for _ in range(10):
        await bench.store.list(ModelService)
    assert bench.api.calls["GET"] - before["GET"] == 10, "one request for each list, none for namespaces"


async def _until(bench: Bench, namespace: str, ownership: Ownership) -> None:
    async def is_so() -> bool:
        return await bench.namespaces.ownership(namespace) == ownership

    await eventually(is_so)
