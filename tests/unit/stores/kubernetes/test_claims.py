"""Claims of names in a cluster: which requests they take, and writers in several processes, of which one dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import AlreadyExists, Unavailable
from llmos.resources import Credential, ModelService, Resource
from llmos.resources.credential import CredentialSpec
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.managers.resources import ResourceManager
from llmos_hub.managers.settings import PlatformSettings
from llmos_hub.stores import open_store
from llmos_hub.stores.base import NamespaceQuota
from llmos_hub.stores.kubernetes.claims import ClaimLeases
from llmos_hub.stores.kubernetes.objects import CUSTOM
from llmos_hub.stores.kubernetes.store import KubernetesStore
from llmos_hub.stores.routed import RoutedStore
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.store_contract import ADA, GRACE, Claims, Quotas, model

QUOTA = NamespaceQuota(100, 1_000_000)


@dataclass
class Bench:
    cluster: FakeKubernetes
    api: KubernetesAPI

    def store(self, **leases: float) -> KubernetesStore:
        """Return the store of one process."""
        return KubernetesStore(self.api, claims=ClaimLeases(self.api, **leases))

    async def sent(self, write: Any) -> dict[str, int]:
        """Return the number of requests by method that a write took."""
        before = dict(self.api.calls)
        await write
        return {method: n - before.get(method, 0) for method, n in self.api.calls.items() if n != before.get(method, 0)}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        for name in (ADA, GRACE):
            cluster.put("namespaces", {"metadata": {"name": name}})
        yield Bench(cluster, api)


async def test_of_two_processes_one_has_the_name(bench: Bench, redis_url: str) -> None:
    database = open_store(redis_url)
    stores = [RoutedStore(bench.store(), database) for _ in range(2)]
    managers = [ResourceManager(store, PlatformSettings(store, {})) for store in stores]
    for number in range(50):
        resources = [model(f"m{number}-{n}", aliases=[f"a{number}"]) for n in range(2)]
        writes = [m.create(resource) for m, resource in zip(managers, resources, strict=True)]
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(result) for result in done} == {ModelService, AlreadyExists}
    await database.close()
    assert bench.cluster.names("leases", ADA) == []


async def test_names_of_a_resource_that_was_written_with_kubectl_are_taken(bench: Bench) -> None:
    bench.cluster.put("modelservices", CUSTOM.write(model("one", aliases=["a"])))
    with pytest.raises(AlreadyExists, match="is a name of one"):
        await bench.store().create(model("a"))
    assert bench.cluster.names("leases", ADA) == []


async def test_a_killed_writer_blocks_others_for_the_duration_of_its_lease(bench: Bench) -> None:
    killed, others = bench.store(duration=1, margin=0.1), bench.store(duration=1, margin=0.1)
    listing, wait = asyncio.Event(), asyncio.Event()
    pages = killed._others

    async def stalled(resource: Resource) -> Any:
        listing.set()
        await wait.wait()
        return await pages(resource)

    killed._others = stalled  # type: ignore[method-assign]
    writer = asyncio.create_task(killed.create(model("one", aliases=["a"])))
    await listing.wait()
    writer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await writer
    assert bench.cluster.names("leases", ADA) == ["llmos-modelservices"]
    await others.create(model("one", GRACE, aliases=["a"]))
    assert bench.cluster.writes["POST leases"] == 2, "another namespace is not blocked"
    await others.create(model("two", aliases=["a"]))
    assert bench.cluster.writes["POST leases"] > 3, "it waited"
    assert bench.cluster.names("leases", ADA) == []


async def test_a_writer_that_is_too_late_writes_nothing(bench: Bench) -> None:
    late = bench.store(duration=1, margin=1)
    one = await bench.store().create(model("one"))
    with pytest.raises(Unavailable, match="Nothing was written"):
        await late.create(model("two"))
    one.spec.aliases = ["a"]
    with pytest.raises(Unavailable):
        await late.update(one)
    assert bench.cluster.names("modelservices", ADA) == ["one"]
    assert (await late.get(ModelService, ADA, "one")).spec.aliases == []


async def test_a_lease_that_another_has_taken_over_is_not_given_back(bench: Bench) -> None:
    leases = ClaimLeases(bench.api)
    async with leases.holding(ModelService, ADA):
        bench.cluster.remove("leases", "llmos-modelservices", ADA)
        bench.cluster.put("leases", {"metadata": {"name": "llmos-modelservices", "namespace": ADA}, "spec": {}})
    assert bench.cluster.names("leases", ADA) == ["llmos-modelservices"]


async def test_only_a_write_that_claims_or_grows_reads_others(bench: Bench) -> None:
    store = bench.store()
    for number in range(3):
        await store.create(model(f"m{number}"), quota=QUOTA)
    # the lease, one page of the others, the resource, the lease given back
    one = model("one", aliases=["a", "b"])
    assert await bench.sent(store.create(one, quota=QUOTA)) == {"POST": 2, "GET": 1, "DELETE": 1}
    one = await store.get(ModelService, ADA, "one")
    one.spec.aliases = ["a", "c"]
    assert await bench.sent(store.update(one, quota=QUOTA)) == {"POST": 1, "GET": 2, "PATCH": 1, "DELETE": 1}
    one = await store.get(ModelService, ADA, "one")
    one.spec.aliases = ["c"]
    one.spec.replicas = 2
    assert await bench.sent(store.update(one, quota=QUOTA)) == {"GET": 1, "PATCH": 1}
    one = await store.get(ModelService, ADA, "one")
    one.metadata.annotations = {"a": "x" * 100}
    assert await bench.sent(store.update(one, quota=QUOTA)) == {"GET": 2, "PATCH": 1}
    one = await store.get(ModelService, ADA, "one")
    one.status.message = "x" * 1000
    assert await bench.sent(store.patch_status(one)) == {"PATCH": 1}
    metadata = {"name": "hub", "namespace": ADA}
    hub = Credential.parse({"metadata": metadata, "spec": CredentialSpec(data={"A": "x"}).model_dump()})
    assert await bench.sent(store.create(hub, quota=QUOTA)) == {"POST": 1, "GET": 1}


class TestContract(Claims, Quotas):
    """The parts of the contract that are decided in this process; the rest is tested with a real server."""

    @pytest.fixture
    async def store(self, bench: Bench) -> KubernetesStore:
        return bench.store()
