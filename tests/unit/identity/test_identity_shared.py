"""Gateways share identities for use while the Hub is unreachable; never longer, and never after a refusal."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis

from llmos.errors import Unauthorized, Unavailable
from llmos_hub.identity import HubIdentity
from llmos_hub.identity import shared as shared_module
from llmos_hub.identity.shared import SharedIdentities
from llmos_hub.policy import Caller
from llmos_hub.valkey.database import Database
from tests.support.clock import Clock
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

__all__ = ["fake_hub"]

TOKEN = "a" * 32


@pytest.fixture
async def gateway(fake_hub: FakeHub, redis_url: str, clock: Clock) -> AsyncIterator[Callable[..., HubIdentity]]:
    """Makes the identity of a gateway that has just started."""
    made = []

    def make(secret: str = "") -> HubIdentity:
        shared = SharedIdentities(Database(redis_url), secret or fake_hub.service_token, clock=clock)
        identity = HubIdentity(fake_hub.url, fake_hub.service_token, clock=clock, shared=shared)
        made.append(identity)
        return identity

    yield make
    for identity in made:
        await identity.close()


async def written(identity: HubIdentity) -> None:
    """Wait until all pending writes are done."""
    shared = identity._shared
    assert shared is not None
    await asyncio.gather(*shared._writing.values())
    if shared._forgetting is not None:
        await shared._forgetting


async def test_a_gateway_that_has_not_seen_a_token_goes_by_one_that_has(
    fake_hub: FakeHub, gateway: Callable[..., HubIdentity], clock: Clock
) -> None:
    fake_hub.add_user("ada", admin=True, groups=("vision",))
    fake_hub.add_token("ada", TOKEN)
    one, other = gateway(), gateway()
    known = await one.authenticate(TOKEN)
    await written(one)
    fake_hub.failing = 503
    assert await other.authenticate(TOKEN) == known
    with pytest.raises(Unavailable):
        await other.authenticate("b" * 32)
    clock.now += 3599
    assert await other.authenticate(TOKEN) == known
    assert await gateway().authenticate(TOKEN) == known
    clock.now += 2  # an hour after the Hub's own word, whoever passed it on
    for identity in (one, other, gateway()):
        with pytest.raises(Unavailable):
            await identity.authenticate(TOKEN)


async def test_what_was_told_counts_for_nothing_while_the_hub_answers(
    fake_hub: FakeHub, gateway: Callable[..., HubIdentity]
) -> None:
    fake_hub.add_token("ada", TOKEN)
    one, other = gateway(), gateway()
    await one.authenticate(TOKEN)
    await written(one)
    fake_hub.revoke(TOKEN)
    with pytest.raises(Unauthorized):
        await other.authenticate(TOKEN)


async def test_a_refusal_takes_it_away_for_all(
    fake_hub: FakeHub, gateway: Callable[..., HubIdentity], clock: Clock
) -> None:
    fake_hub.add_token("ada", TOKEN)
    one, other = gateway(), gateway()
    await one.authenticate(TOKEN)
    await written(one)
    fake_hub.revoke(TOKEN)
    clock.now += 11
    with pytest.raises(Unauthorized):
        await one.authenticate(TOKEN)
    await written(one)
    fake_hub.failing = 503
    for identity in (one, other):
        clock.now += 11
        with pytest.raises(Unavailable):
            await identity.authenticate(TOKEN)


@pytest.fixture
async def refusing(redis_url: str, valkey_server: ValkeyServer) -> AsyncIterator[Callable[[bool], None]]:
    """Make the database refuse writes, as with a full disk, or accept them again."""
    client: redis.Redis = valkey_server.client()

    def refuse(yes: bool) -> None:
        client.config_set("min-replicas-to-write", int(yes))

    yield refuse
    refuse(False)
    client.close()


async def test_a_refusal_is_told_until_the_database_has_heard_it(
    redis_url: str, clock: Clock, refusing: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_module, "_PAUSE", 0.01)
    one, other = (SharedIdentities(Database(redis_url), "s", clock=clock) for _ in range(2))
    refused = 0
    run = one._database.run

    async def count_refusals(*command: Any, **options: Any) -> Any:
        nonlocal refused
        try:
            return await run(*command, **options)
        except Unavailable:
            refused += 1
            raise

    monkeypatch.setattr(one._database, "run", count_refusals)
    tokens = [f"{n:032}" for n in range(200)]  # more than are written at once
    for number in range(0, len(tokens), 50):
        for token in tokens[number : number + 50]:
            one.share(token, Caller("ada"))
        await asyncio.gather(*one._writing.values())
    refusing(True)
    for token in tokens:
        one.forget(token)
    assert await one.find(tokens[0]) is None
    assert one._forgetting is not None
    await eventually(lambda: refused >= 3, "several attempts")
    assert not one._forgetting.done()
    assert await one.find(tokens[0]) is None
    assert await other.find(tokens[0]) is not None
    refusing(False)
    await one._forgetting
    assert [await other.find(token) for token in (tokens[0], tokens[-1])] == [None, None]
    one.share(tokens[0], Caller("ada"))  # the Hub knows it again
    await asyncio.gather(*one._writing.values())
    assert await other.find(tokens[0]) is not None
    for shared in (one, other):
        await shared.close()


async def test_a_refusal_overtakes_no_good_answer_that_is_on_its_way(redis_url: str, clock: Clock) -> None:
    shared = SharedIdentities(Database(redis_url), "s", clock=clock)
    shared.share(TOKEN, Caller("ada"))
    shared.forget(TOKEN)
    assert shared._forgetting is not None
    await shared._forgetting
    assert await shared.find(TOKEN) is None
    shared.share(TOKEN, Caller("ada"))  # not taken for written already
    await asyncio.gather(*shared._writing.values())
    assert await shared.find(TOKEN) is not None
    await shared.close()


async def test_what_could_not_be_told_is_told_with_the_next_good_answer(
    redis_url: str, clock: Clock, refusing: Callable[[bool], None]
) -> None:
    shared = SharedIdentities(Database(redis_url), "s", clock=clock)
    for yes in (True, False):
        refusing(yes)
        shared.share(TOKEN, Caller("ada"))
        await asyncio.gather(*shared._writing.values())
        assert (await shared.find(TOKEN) is None) is yes
    await shared.close()


async def test_more_refusals_than_are_remembered_make_nobody_known(
    redis_url: str, clock: Clock, refusing: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos_hub.identity.shared._REMEMBERED", 3)
    shared = SharedIdentities(Database(redis_url), "s", clock=clock)
    shared.share(TOKEN, Caller("ada"))
    await asyncio.gather(*shared._writing.values())
    refusing(True)
    shared.forget(TOKEN)
    for number in range(3):
        shared.forget(str(number))
    assert await shared.find(TOKEN) is None
    refusing(False)
    await shared.close()


async def test_the_database_holds_no_token_and_makes_no_admin(
    fake_hub: FakeHub, gateway: Callable[..., HubIdentity], valkey_server: ValkeyServer, clock: Clock
) -> None:
    fake_hub.add_token("ada", TOKEN)
    one = gateway()
    await one.authenticate(TOKEN)
    await written(one)
    fake_hub.failing = 503
    client: redis.Redis = valkey_server.client()
    try:
        (key,) = client.keys("*:verdicts:*")
        value = client.get(key)
        assert isinstance(value, bytes)
        assert TOKEN.encode() not in key + value
        assert 0 < client.ttl(key) <= 3600
        data = json.loads(value[32:])
        client.set(key, value[:32] + json.dumps({**data, "admin": True}).encode())
        with pytest.raises(Unavailable):
            await gateway().authenticate(TOKEN)
        client.set(key, value)
        assert (await gateway().authenticate(TOKEN)).caller.name == "ada"
        with pytest.raises(Unavailable):  # another platform's, on the same database
            await gateway("another secret").authenticate(TOKEN)
    finally:
        client.close()


async def test_the_same_is_told_once_in_five_minutes(
    fake_hub: FakeHub, gateway: Callable[..., HubIdentity], valkey_server: ValkeyServer, clock: Clock
) -> None:
    fake_hub.add_token("ada", TOKEN)
    one = gateway()
    client: redis.Redis = valkey_server.client()

    def writes() -> int:
        return int(client.info("commandstats").get("cmdstat_set", {}).get("calls", 0))

    try:
        await one.authenticate(TOKEN)
        await written(one)
        before = writes()
        for _ in range(20):
            clock.now += 11
            await one.authenticate(TOKEN)
            await written(one)
        assert writes() == before
        clock.now += 100
        await one.authenticate(TOKEN)
        await written(one)
        assert writes() == before + 1
    finally:
        client.close()


async def test_without_a_database_everything_goes_on(fake_hub: FakeHub, clock: Clock) -> None:
    shared = SharedIdentities(Database("unix:///nowhere/valkey.sock"), "s", clock=clock)
    identity = HubIdentity(fake_hub.url, fake_hub.service_token, clock=clock, shared=shared)
    fake_hub.add_token("ada", TOKEN)
    assert (await identity.authenticate(TOKEN)).caller.name == "ada"
    fake_hub.failing = 503
    with pytest.raises(Unavailable, match="Hub does not answer"):
        await identity.authenticate("b" * 32)
    clock.now += 60
    assert (await identity.authenticate(TOKEN)).caller.name == "ada"
    await identity.close()
