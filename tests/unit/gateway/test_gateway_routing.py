"""Resolution of names to services, and the choice of replicas."""

from __future__ import annotations

import datetime as dt
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.errors import ModelNotFound
from llmos.resources import ModelService
from llmos_hub.gateway.balancers import LeastOutstanding
from llmos_hub.gateway.metrics import BUCKETS, GatewayMetrics, Histogram
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.routing import RoutingTable
from llmos_hub.gateway.upstream import UpstreamReplica, Upstreams
from llmos_hub.names import SCOPE_INVOKE
from llmos_hub.policy import Caller, Rights
from tests.support.gateway import service

ADA = Rights(Caller("ada", scopes=frozenset({SCOPE_INVOKE})))
NOON = dt.datetime(2026, 11, 1, 12, tzinfo=dt.UTC)


def aged(made: ModelService, uid: str, minutes: int = 0) -> ModelService:
    meta = {"uid": uid, "creation_timestamp": NOON + dt.timedelta(minutes=minutes)}
    return made.model_copy(update={"metadata": made.metadata.model_copy(update=meta)})


@pytest.fixture
async def table():
    upstreams = Upstreams(GatewayOptions())
    yield RoutingTable(upstreams, GatewayMetrics())
    upstreams.close()


async def test_the_own_namespace_comes_before_public(table: RoutingTable) -> None:
    table.replace([aged(service("chat", namespace="public"), "1"), aged(service("chat"), "2")])
    assert table.resolve(ADA, "chat").key == "user-ada/chat"
    assert table.resolve(ADA, "public/chat").key == "public/chat"
    table.remove(service("chat"))
    assert table.resolve(ADA, "chat").key == "public/chat"


async def test_names_made_to_be_compared_slowly_hold_nobody_up(table: RoutingTable) -> None:
    shuffled = random.Random(7)

    def name() -> str:
        return "".join(shuffled.sample("ab" * 64, 128))

    table.replace([aged(service(f"m{n}", aliases=[name() for _ in range(20)]), str(n)) for n in range(100)])
    began = time.thread_time()
    with pytest.raises(ModelNotFound):
        table.resolve(ADA, name())
    assert time.thread_time() - began < 0.5


async def test_a_name_beats_an_alias_and_the_older_beats_the_newer(table: RoutingTable) -> None:
    table.put(aged(service("a", aliases=["c", "x"]), "1", 2))
    table.put(aged(service("b", aliases=["x"]), "2", 1))
    table.put(aged(service("c"), "3", 3))
    assert table.resolve(ADA, "c").name == "c"
    assert table.resolve(ADA, "x").name == "b"
    table.remove(service("b"))
    assert table.resolve(ADA, "x").name == "a"
    table.remove(service("c"))
    assert table.resolve(ADA, "c").name == "a"


async def test_an_alias_can_not_stand_for_another_namespaces_model(table: RoutingTable) -> None:
    table.replace(
        [
            aged(service("fake", namespace="public", aliases=["user-ada/chat"]), "1"),
            aged(service("chat"), "2"),
        ]
    )
    assert table.resolve(ADA, "user-ada/chat").uid == "2"


async def test_an_alias_does_not_stand_in_for_another_namespaces_model_that_is_gone(table: RoutingTable) -> None:
    table.put(aged(service("mine", namespace="group-vision", aliases=["public/chat", "user-grace/chat"]), "1"))
    ada = Rights(Caller("ada", groups=frozenset({"vision"}), scopes=frozenset({SCOPE_INVOKE})))
    for name in ("public/chat", "user-grace/chat"):
        with pytest.raises(ModelNotFound):
            table.resolve(ada, name)


async def test_what_all_may_use_comes_before_a_groups(table: RoutingTable) -> None:
    """Any member can create a model in the group's namespace, which would shadow the admins'."""
    ada = Rights(Caller("ada", groups=frozenset({"vision"}), scopes=frozenset({SCOPE_INVOKE})))
    table.replace(
        [aged(service("chat", namespace="group-vision"), "1"), aged(service("chat", namespace="public"), "2")]
    )
    assert table.resolve(ada, "chat").key == "public/chat"
    assert table.resolve(ada, "group-vision/chat").key == "group-vision/chat"
    table.remove(service("chat", namespace="public"))
    assert table.resolve(ada, "chat").key == "group-vision/chat"


async def test_no_group_goes_before_another(table: RoutingTable) -> None:
    ada = Rights(Caller("ada", groups=frozenset({"nlp", "vision"}), scopes=frozenset({SCOPE_INVOKE})))
    table.replace(
        [aged(service("chat", namespace="group-vision"), "1"), aged(service("chat", namespace="group-nlp"), "2")]
    )
    with pytest.raises(ModelNotFound, match=r"Say which: group-nlp/chat or group-vision/chat\."):
        table.resolve(ada, "chat")
    assert table.resolve(ada, "group-vision/chat").key == "group-vision/chat"


async def test_an_alias_may_have_slashes(table: RoutingTable) -> None:
    table.put(aged(service("chat", servedModelName="Qwen/Qwen3-4B"), "1"))
    assert table.resolve(ADA, "Qwen/Qwen3-4B").name == "chat"
    assert table.resolve(ADA, "user-ada/Qwen/Qwen3-4B").name == "chat"


async def test_a_changed_name_is_found_and_the_old_one_is_not(table: RoutingTable) -> None:
    table.put(aged(service("chat", aliases=["old"]), "1"))
    table.put(aged(service("chat", aliases=["new"]), "1"))
    assert table.resolve(ADA, "new").name == "chat"
    with pytest.raises(ModelNotFound):
        table.resolve(ADA, "old")


async def test_a_change_of_status_keeps_counts_and_connections(table: RoutingTable) -> None:
    table.put(aged(service("chat", "unix:///a", "unix:///b"), "1"))
    before = table.resolve(ADA, "chat")
    table.put(aged(service("chat", "unix:///b", "unix:///c", message="rolling"), "1"))
    after = table.resolve(ADA, "chat")
    assert after.message == "rolling"
    assert (after.metrics, after.balancer) == (before.metrics, before.balancer)
    assert [r.url for r in after.replicas] == ["unix:///b", "unix:///c"]


async def test_many_names_are_shortened(table: RoutingTable) -> None:
    table.replace([aged(service(f"m{i:03}"), str(i)) for i in range(50)])
    with pytest.raises(ModelNotFound, match="m019 and 30 more"):
        table.resolve(ADA, "zzz")


@st.composite
def loads(draw: st.DrawFn) -> list[tuple[int, bool, bool]]:
    one = st.tuples(st.integers(0, 3), st.booleans(), st.booleans())
    return draw(st.lists(one, min_size=1, max_size=6))


@given(loads())
def test_no_replica_is_better_than_the_one_chosen(state: list[tuple[int, bool, bool]]) -> None:
    replicas, tried = [], []
    for outstanding, aside, was_tried in state:
        replica = UpstreamReplica.__new__(UpstreamReplica)
        replica.outstanding, replica.aside_until = outstanding, 10.0 if aside else 0.0
        replicas.append(replica)
        if was_tried:
            tried.append(replica)
    chosen = LeastOutstanding().choose(replicas, tried, 5.0)
    left = [r for r in replicas if r not in tried]
    if not left:
        assert chosen is None
    else:
        assert chosen in left
        assert (chosen.aside_until, chosen.outstanding) == min((r.aside_until, r.outstanding) for r in left)


def test_equals_take_turns() -> None:
    replicas = [UpstreamReplica.__new__(UpstreamReplica) for _ in range(3)]
    for replica in replicas:
        replica.outstanding, replica.aside_until = 0, 0.0
    balancer = LeastOutstanding()
    chosen = [replicas.index(balancer.choose(replicas, (), 0.0)) for _ in range(6)]
    assert chosen == [0, 1, 2, 0, 1, 2]


def test_the_least_busy_replica_is_chosen_whatever_the_affinity() -> None:
    replicas = [UpstreamReplica.__new__(UpstreamReplica) for _ in range(2)]
    for replica, outstanding in zip(replicas, (1, 0), strict=True):
        replica.outstanding, replica.aside_until = outstanding, 0.0
    assert {LeastOutstanding().choose(replicas, (), 0.0, key) for key in (None, "a", "b", "c")} == {replicas[1]}


def test_a_histogram_counts_what_is_not_above_a_bound() -> None:
    histogram = Histogram()
    for seconds in (0.005, 0.006, 1e6):
        histogram.observe(seconds)
    counts = dict(histogram.cumulated())
    assert (counts["0.005"], counts["0.01"], counts[str(BUCKETS[-1])], counts["+Inf"]) == (1, 2, 2, 3)
