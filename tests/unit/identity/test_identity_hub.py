"""Identities of tokens: asking the Hub, caching, expiry, and use while the Hub is unreachable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmos.errors import Forbidden, TooManyRequests, Unauthorized, Unavailable
from llmos_hub.identity import HubIdentity
from llmos_hub.names import SCOPE_INVOKE, SCOPE_MANAGE
from tests.support.clock import Clock
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.waiting import eventually

__all__ = ["fake_hub"]

TOKEN = "a" * 32


@pytest.fixture
async def identity(fake_hub: FakeHub, clock: Clock) -> AsyncIterator[HubIdentity]:
    made = HubIdentity(fake_hub.url, fake_hub.service_token, clock=clock)
    yield made
    await made.close()


async def test_a_token_is_its_owners(fake_hub: FakeHub, identity: HubIdentity) -> None:
    fake_hub.add_user("ada", admin=True, groups=("vision",))
    fake_hub.add_token("ada", TOKEN)
    caller = (await identity.authenticate(TOKEN)).caller
    assert (caller.name, caller.admin, caller.groups) == ("ada", True, {"vision"})
    assert caller.scopes == {SCOPE_MANAGE, SCOPE_INVOKE}


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ((SCOPE_INVOKE,), {SCOPE_INVOKE}),
        (("custom:llmos:invoke!user=ada",), {SCOPE_INVOKE}),
        (("custom:llmos:invoke!user=grace",), set()),
        (("custom:llmos:invoke!server=ada/",), set()),
        (("custom:llmos:invokes", "admin:users", "custom:other:manage"), set()),
        ((), set()),
    ],
)
async def test_only_our_scopes_count(
    fake_hub: FakeHub, identity: HubIdentity, reported: tuple[str, ...], expected: set[str]
) -> None:
    fake_hub.add_token("ada", TOKEN, scopes=reported)
    assert (await identity.authenticate(TOKEN)).caller.scopes == expected


async def test_what_the_hub_leaves_out_is_asked_with_our_own_token(fake_hub: FakeHub, identity: HubIdentity) -> None:
    fake_hub.terse = True
    fake_hub.add_user("ada", admin=True, groups=("vision",))
    fake_hub.add_token("ada", TOKEN)
    caller = (await identity.authenticate(TOKEN)).caller
    assert (caller.admin, caller.groups) == (True, {"vision"})


async def test_unknown_tokens_and_things_that_are_no_tokens(fake_hub: FakeHub, identity: HubIdentity) -> None:
    with pytest.raises(Unauthorized, match="token page"):
        await identity.authenticate(TOKEN)
    for nonsense in ("", "short", "x" * 513, "a" * 20 + " b", "a" * 20 + "\n", "ä" * 20):
        with pytest.raises(Unauthorized):
            await identity.authenticate(nonsense)
    assert sum(fake_hub.asked.values()) == 1


async def test_services_are_not_people(fake_hub: FakeHub, identity: HubIdentity) -> None:
    fake_hub.add_service_token("culler", TOKEN)
    with pytest.raises(Forbidden, match='service "culler"'):
        await identity.authenticate(TOKEN)


async def test_an_answer_is_believed_for_ten_seconds(fake_hub: FakeHub, identity: HubIdentity, clock: Clock) -> None:
    fake_hub.add_token("ada", TOKEN)
    for _ in range(5):
        await identity.authenticate(TOKEN)
    assert fake_hub.asked[TOKEN] == 1
    fake_hub.revoke(TOKEN)
    clock.now += 9
    await identity.authenticate(TOKEN)
    clock.now += 2
    with pytest.raises(Unauthorized):
        await identity.authenticate(TOKEN)


async def test_a_refusal_is_believed_for_less(fake_hub: FakeHub, identity: HubIdentity, clock: Clock) -> None:
    for _ in range(5):
        with pytest.raises(Unauthorized):
            await identity.authenticate(TOKEN)
    assert fake_hub.asked[TOKEN] == 1
    fake_hub.add_token("ada", TOKEN)
    clock.now += 4
    assert (await identity.authenticate(TOKEN)).caller.name == "ada"


async def test_the_token_itself_is_kept_nowhere(fake_hub: FakeHub, identity: HubIdentity) -> None:
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    assert TOKEN not in repr(vars(identity._cache))


@pytest.mark.parametrize("status", [500, 502, 503, 404])
async def test_a_broken_hub_is_gone_on_without(
    fake_hub: FakeHub, identity: HubIdentity, clock: Clock, status: int
) -> None:
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    fake_hub.failing = status
    clock.now += 3000
    assert (await identity.authenticate(TOKEN)).caller.name == "ada"
    clock.now += 601
    with pytest.raises(Unavailable, match="Hub does not answer"):
        await identity.authenticate(TOKEN)


async def test_a_hub_that_is_gone_is_gone_on_without(fake_hub: FakeHub, clock: Clock) -> None:
    async with FakeHub().running() as other:
        other.add_token("ada", TOKEN)
        identity = HubIdentity(other.url, "service-token", clock=clock)
        await identity.authenticate(TOKEN)
    clock.now += 11
    assert (await identity.authenticate(TOKEN)).caller.name == "ada"
    with pytest.raises(Unavailable):
        await identity.authenticate("b" * 32)
    await identity.close()


async def test_no_stale_answer_after_a_refusal(fake_hub: FakeHub, identity: HubIdentity, clock: Clock) -> None:
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    fake_hub.revoke(TOKEN)
    clock.now += 11
    with pytest.raises(Unauthorized):
        await identity.authenticate(TOKEN)
    fake_hub.failing = 503
    clock.now += 11
    with pytest.raises(Unavailable):
        await identity.authenticate(TOKEN)


async def test_a_hub_that_does_not_answer_is_asked_now_and_then_by_one(
    fake_hub: FakeHub, identity: HubIdentity, clock: Clock
) -> None:
    tokens = [fake_hub.add_token("ada", f"token-number-{n}") for n in range(20)]
    await asyncio.gather(*(identity.authenticate(t) for t in tokens))
    fake_hub.failing = 503
    clock.now += 11
    await identity.authenticate(tokens[0])
    clock.now += 3
    before = sum(fake_hub.asked.values())
    await asyncio.gather(*(identity.authenticate(t) for t in tokens))
    assert sum(fake_hub.asked.values()) == before + 1
    fake_hub.failing = None
    clock.now += 6
    await identity.authenticate(tokens[0])
    fake_hub.revoke(tokens[1])
    with pytest.raises(Unauthorized):
        await identity.authenticate(tokens[1])


async def test_a_hundred_requests_with_one_new_token_ask_once(fake_hub: FakeHub, identity: HubIdentity) -> None:
    fake_hub.add_token("ada", TOKEN)
    fake_hub.answering.clear()
    flights = [asyncio.create_task(identity.authenticate(TOKEN)) for _ in range(100)]
    await eventually(lambda: fake_hub.at_once)
    flights[0].cancel()
    fake_hub.answering.set()
    results = await asyncio.gather(*flights, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert {r.caller.name for r in results[1:]} == {"ada"}
    assert fake_hub.asked[TOKEN] == 1


async def test_random_tokens_neither_flood_the_hub_nor_keep_others_out(
    fake_hub: FakeHub, identity: HubIdentity, clock: Clock
) -> None:
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    clock.now += 11
    fake_hub.answering.clear()
    attack = [asyncio.create_task(identity.authenticate(f"random-token-{n}")) for n in range(400)]
    await eventually(lambda: fake_hub.at_once >= 8)
    genuine = asyncio.create_task(identity.authenticate(TOKEN))
    await eventually(lambda: fake_hub.asked[TOKEN] >= 2)
    fake_hub.answering.set()
    assert (await genuine).caller.name == "ada"
    refusals = await asyncio.gather(*attack, return_exceptions=True)
    assert sum(isinstance(r, TooManyRequests) for r in refusals) == 400 - 256
    assert all(isinstance(r, TooManyRequests | Unauthorized) for r in refusals)
    assert fake_hub.most_at_once <= 9


async def test_what_is_remembered_is_bounded(fake_hub: FakeHub, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmos_hub.identity.hub._REMEMBERED", 10)
    identity = HubIdentity(fake_hub.url, fake_hub.service_token, clock=clock)
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    for n in range(30):
        with pytest.raises(Unauthorized):
            await identity.authenticate(f"random-token-{n}")
    assert len(identity._cache) == 11
    await identity.authenticate(TOKEN)
    assert fake_hub.asked[TOKEN] == 1
    await identity.close()


async def test_a_hub_that_says_nothing_is_not_waited_for_long(
    fake_hub: FakeHub, identity: HubIdentity, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmos_hub.identity.hub._TIMEOUT", 0.1)
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    fake_hub.answering.clear()
    clock.now += 11
    async with asyncio.timeout(30):
        assert (await identity.authenticate(TOKEN)).caller.name == "ada"
        with pytest.raises(Unavailable):
            await identity.authenticate("b" * 32)
    assert not fake_hub.answering.is_set()


@pytest.mark.parametrize("noted", [False, True], ids=["refuses all", "takes its own"])
async def test_a_hub_that_can_not_write_refuses_nobody_for_good(
    fake_hub: FakeHub, identity: HubIdentity, clock: Clock, noted: bool
) -> None:
    """With a full disk JupyterHub refuses each token whose use it would have to record, perhaps except the platform's."""
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    fake_hub.unwritable = True
    if noted:
        fake_hub.recorded.add(fake_hub.service_token)
    for _ in range(5):
        clock.now += 60
        assert (await identity.authenticate(TOKEN)).caller.name == "ada"
    new = fake_hub.add_token("grace", "g" * 32)
    # nobody knows, and nobody says that it is wrong; while the Hub takes ours, one never seen is refused, for seconds
    with pytest.raises(Unauthorized if noted else Unavailable):
        await identity.authenticate(new)
    fake_hub.unwritable = False
    clock.now += 60
    assert (await identity.authenticate(new)).caller.name == "grace"


async def test_a_refusal_counts_at_once_where_the_hub_knows_what_it_says(
    fake_hub: FakeHub, identity: HubIdentity, clock: Clock
) -> None:
    fake_hub.add_token("ada", TOKEN)
    await identity.authenticate(TOKEN)
    fake_hub.revoke(TOKEN)
    clock.now += 11
    with pytest.raises(Unauthorized):
        await identity.authenticate(TOKEN)
    fake_hub.failing = 503
    clock.now += 60
    with pytest.raises(Unavailable):  # and nothing of before counts any more
        await identity.authenticate(TOKEN)
