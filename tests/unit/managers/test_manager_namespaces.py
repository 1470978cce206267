"""Creation of namespaces, only by the people who need them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmos.errors import Conflict, Forbidden, NotFound, Unavailable
from llmos.names import KEY_PREPARED, user_namespace
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.managers.namespace_objects import make_namespace
from llmos_hub.managers.namespace_options import NamespaceOptions
from llmos_hub.managers.namespaces import KubernetesNamespaces, LocalNamespaces
from llmos_hub.names import SCOPE_INVOKE, SCOPE_MANAGE
from llmos_hub.policy import Caller, NamespaceOwner, Rights
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.fake_people import FakePeople

BOTH = frozenset({SCOPE_MANAGE, SCOPE_INVOKE})
ADA = Rights(Caller("ada", groups=frozenset({"vision"}), scopes=BOTH))
GRACE = Rights(Caller("grace", scopes=BOTH))
ROOT = Rights(Caller("root", admin=True, scopes=BOTH))
OPTIONS = NamespaceOptions()


@dataclass
class Bench:
    cluster: FakeKubernetes
    api: KubernetesAPI
    people: FakePeople
    namespaces: KubernetesNamespaces


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    people = FakePeople({"ada": "2026-01-01T00:00:00Z", "grace": "2026-02-02T00:00:00Z"})
    async with fake_kubernetes(tmp_path) as (cluster, api):
        yield Bench(cluster, api, people, KubernetesNamespaces(api, OPTIONS, people, patience=1.0))


async def test_the_first_who_needs_it_has_it_made(bench: Bench) -> None:
    state = await bench.namespaces.ensure(ADA, "user-ada")
    assert (state.created, state.prepared, state.service_account) == (True, False, "llmos")
    assert state.owner == NamespaceOwner("user", "ada", "2026-01-01T00:00:00Z")
    stored = bench.cluster.get("namespaces", "user-ada")
    assert stored is not None
    assert stored["metadata"]["annotations"]["llmos.ai/owner-created"] == "2026-01-01T00:00:00Z"
    assert stored["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "llmos"
    again = await bench.namespaces.ensure(ADA, "user-ada")
    assert (again.created, again.owner) == (False, state.owner)
    assert bench.cluster.writes == {"POST namespaces": 1}


async def test_storing_many_resources_asks_the_cluster_once(bench: Bench) -> None:
    for _ in range(20):
        await bench.namespaces.needed(ADA, "user-ada")
    assert bench.api.calls == {"GET": 1, "POST": 1}


async def test_two_at_once_make_one(bench: Bench) -> None:
    states = await asyncio.gather(*(bench.namespaces.ensure(ADA, "user-ada") for _ in range(5)))
    assert sum(state.created for state in states) >= 1
    assert bench.cluster.names("namespaces") == ["user-ada"]


async def test_prepared_is_waited_for(bench: Bench) -> None:
    waiting = asyncio.create_task(bench.namespaces.ensure(ADA, "user-ada", prepared=True))
    await bench.cluster.until(lambda: bench.cluster.names("namespaces"))
    assert not waiting.done()
    bench.cluster.edit(
        "namespaces", "user-ada", "", lambda obj: obj["metadata"]["annotations"].update({KEY_PREPARED: "x"})
    )
    assert (await waiting).prepared
    with pytest.raises(Unavailable, match=r"not in it after 1 s. Do the controllers run\?"):
        await bench.namespaces.ensure(GRACE, "user-grace", prepared=True)


async def test_a_namespace_of_another_release_is_left_alone(bench: Bench) -> None:
    others = OPTIONS.model_copy(update={"instance": "team-llmos"})
    bench.cluster.put("namespaces", make_namespace("user-ada", NamespaceOwner("user", "ada"), others))
    with pytest.raises(Conflict, match=r'belongs to another LLMOS of this cluster, "team-llmos"') as caught:
        await bench.namespaces.ensure(ADA, "user-ada")
    assert "kubectl label --overwrite namespace user-ada app.kubernetes.io/instance=llmos" in caught.value.message
    with pytest.raises(Conflict):
        await bench.namespaces.needed(ADA, "user-ada")
    assert bench.cluster.writes == {}


def test_whose_it_is() -> None:
    assert ADA.owner_of("user-ada") == NamespaceOwner("user", "ada")
    assert ADA.owner_of("group-vision") == NamespaceOwner("group", "vision")
    assert ROOT.owner_of("user-ada") == NamespaceOwner("user", "ada")
    assert ROOT.owner_of("group-vision") == NamespaceOwner("group", "vision")
    assert ROOT.owner_of("public") == NamespaceOwner("platform", "public")
    for namespace in ("user-grace", "group-nlp", "public", "kube-system"):
        with pytest.raises(Forbidden, match="Yours is user-ada"):
            ADA.owner_of(namespace)
    for namespace in ("kube-system", user_namespace("Ada.L@example.org"), "user-"):
        with pytest.raises(NotFound, match="does not tell whose it would be"):
            ROOT.owner_of(namespace)
    with pytest.raises(Forbidden, match="lacks the scope"):
        Rights(Caller("ada", scopes=frozenset({SCOPE_INVOKE}))).owner_of("user-ada")


async def test_nothing_is_made_for_others(bench: Bench) -> None:
    for namespace in ("user-grace", "kube-system", "group-nlp"):
        with pytest.raises(Forbidden):
            await bench.namespaces.ensure(ADA, namespace)
    await bench.namespaces.needed(ROOT, user_namespace("Ada.L@example.org"))  # the store says that there is none
    assert bench.cluster.names("namespaces") == []


async def test_an_admin_may_have_look_after_what_is_there(bench: Bench) -> None:
    odd = "Ada.L@example.org"
    bench.cluster.put("namespaces", make_namespace(user_namespace(odd), NamespaceOwner("user", odd, "2020"), OPTIONS))
    state = await bench.namespaces.ensure(ROOT, user_namespace(odd))
    assert state.owner == NamespaceOwner("user", odd, "2020")


async def test_a_namespace_of_the_clusters_own_is_left_alone(bench: Bench) -> None:
    bench.cluster.put("namespaces", {"metadata": {"name": "user-ada"}})
    with pytest.raises(Conflict, match=r"kubectl label namespace user-ada app\.kubernetes\.io/managed-by=llmos"):
        await bench.namespaces.ensure(ADA, "user-ada")
    assert bench.cluster.writes == {}


async def test_one_that_is_going_is_not_used(bench: Bench) -> None:
    obj = make_namespace("user-ada", NamespaceOwner("user", "ada"), OPTIONS)
    obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    bench.cluster.put("namespaces", obj)
    with pytest.raises(Conflict, match="being deleted"):
        await bench.namespaces.ensure(ADA, "user-ada")


async def test_who_gets_an_old_name_does_not_get_what_the_other_left(bench: Bench) -> None:
    await bench.namespaces.ensure(ADA, "user-ada")
    bench.people.users["ada"] = "2026-11-11T00:00:00Z"
    with pytest.raises(Conflict, match=r'earlier account "ada", made on 2026-01-01.*llmos.ai/owner-created-'):
        await bench.namespaces.ensure(ADA, "user-ada")
    bench.cluster.edit(
        "namespaces", "user-ada", "", lambda obj: obj["metadata"]["annotations"].pop("llmos.ai/owner-created")
    )
    assert (await bench.namespaces.ensure(ADA, "user-ada")).owner.name == "ada"


async def test_without_the_hub_it_goes_on(bench: Bench) -> None:
    bench.people.away = True
    assert (await bench.namespaces.ensure(ADA, "user-ada")).created


async def test_without_the_cluster_it_says_so(bench: Bench) -> None:
    bench.cluster.down = True
    namespaces = KubernetesNamespaces(bench.api, OPTIONS, bench.people)
    bench.api.timeout = 0.2
    with pytest.raises(Unavailable):
        await namespaces.needed(ADA, "user-ada")
    bench.cluster.down = False
    await namespaces.needed(ADA, "user-ada")
    assert bench.cluster.names("namespaces") == ["user-ada"]


async def test_on_a_workstation_all_are_there() -> None:
    state = await LocalNamespaces().ensure(ADA, "user-ada", prepared=True)
    assert (state.prepared, state.created, state.owner.name) == (True, False, "ada")
    with pytest.raises(Forbidden):
        await LocalNamespaces().ensure(ADA, "user-grace")
