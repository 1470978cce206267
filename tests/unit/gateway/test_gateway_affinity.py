"""The key by which a balancer can send related requests to the same replica."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest

from llmos_hub.gateway import stages
from llmos_hub.gateway.stages import ModelRequest
from llmos_hub.gateway.upstream import UpstreamReplica
from tests.support.fake_upstream import MakeUpstream
from tests.support.gateway import RunningGateway, service


class ByKey:
    """A balancer that has one replica for each key."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def choose(
        self,
        replicas: Sequence[UpstreamReplica],
        tried: Collection[UpstreamReplica],
        now: float,
        affinity: str | None = None,
    ) -> UpstreamReplica | None:
        self.seen.append(affinity)
        left = [replica for replica in replicas if replica not in tried]
        return left[int(affinity or 0) % len(left)] if left else None


async def test_a_balancer_sees_the_affinity_of_a_request(
    gateway: RunningGateway, upstreams: MakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = await upstreams("dead")
    await gateway.add(service("chat", await upstreams("a"), await upstreams("b"), dead))
    await dead.stop()
    balancer = ByKey()
    gateway.gateway.context.table._models["user-ada", "chat"].balancer = balancer

    async def speaker() -> str:
        answer = await gateway.chat()
        return str(answer.json()["choices"][0]["message"]["content"]).split()[0]

    assert await speaker() == "a"
    assert balancer.seen == [None]  # no request has a key yet
    key = ""

    original = stages.rewrite

    async def rewrite(call: ModelRequest) -> None:
        await original(call)
        call.outgoing.affinity = key

    monkeypatch.setattr(stages, "rewrite", rewrite)
    for key, name in (("1", "b"), ("0", "a"), ("1", "b"), ("2", "a")):  # noqa: B007 - rewrite uses the key
        assert await speaker() == name
    assert balancer.seen == [None, "1", "0", "1", "2", "2"]  # the next attempt has the same key
