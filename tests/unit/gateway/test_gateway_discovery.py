"""The routing table follows the store, and stays while the store is unavailable."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from llmos.errors import Expired, Unavailable
from llmos.resources import ModelService
from llmos_hub.gateway.discovery import make_discovery
from llmos_hub.gateway.metrics import GatewayMetrics
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.routing import RoutingTable
from llmos_hub.gateway.upstream import Upstreams
from llmos_hub.stores import open_store
from llmos_hub.stores.base import BOOKMARK, DELETED, MODIFIED, Listing, Store, WatchEvent
from llmos_hub.stores.redis.keys import ResourceKeys
from tests.support.fake_upstream import MakeUpstream
from tests.support.gateway import RunningGateway, running_gateway, service
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually


async def until_status(gateway: RunningGateway, status: int) -> None:
    async def answers() -> bool:
        return (await gateway.chat()).status_code == status

    await eventually(answers)


async def test_a_models_life(gateway: RunningGateway, upstreams: MakeUpstream, store: Store) -> None:
    upstream = await upstreams()
    assert (await gateway.chat()).status_code == 404
    await gateway.add(service("chat", phase="Downloading"))
    assert (await gateway.chat()).status_code == 503
    await gateway.change(service("chat", upstream))
    assert (await gateway.chat()).status_code == 200
    await gateway.change(service("chat", phase="Paused"))
    assert (await gateway.chat()).status_code == 503
    await store.delete(ModelService, "user-ada", "chat")
    await until_status(gateway, 404)


async def test_what_cannot_be_read_any_more_is_served_by_its_last_status(
    store: Store, upstreams: MakeUpstream, valkey_server: ValkeyServer
) -> None:
    """This holds for a gateway that starts afterwards, too."""
    upstream = await upstreams()
    async with running_gateway(store, None, [service("chat", upstream)]):
        with contextlib.closing(valkey_server.client()) as raw:
            key = ResourceKeys().objects("modelservices", "user-ada")
            raw.hset(key, "chat", raw.hget(key, "chat").replace(b'"spec":{', b'"spec":{"fromTheFuture":1,'))
        assert (await store.get(ModelService, "user-ada", "chat")).unread
        async with running_gateway(store, None, []) as another:
            assert (await another.chat()).status_code == 200


async def test_models_are_served_while_the_store_is_away(
    valkey_factory: ValkeyServer, upstreams: MakeUpstream, encryption_key: str
) -> None:
    upstream = await upstreams()
    store = open_store(valkey_factory.url, encryption_key)
    async with (
        contextlib.aclosing(_Closing(store)),
        running_gateway(store, None, [service("chat", upstream)]) as gateway,
    ):
        valkey_factory.kill()
        assert not await store.healthy()
        for _ in range(20):
            assert (await gateway.chat()).status_code == 200
        assert (await gateway.http.get("/ready")).status_code == 200
        valkey_factory.start()
        stored = await store.get(ModelService, "user-ada", "chat")
        paused = service("chat", phase="Paused").status
        await store.patch_status(stored.model_copy(update={"status": paused}))
        await until_status(gateway, 503)  # what happened since is known soon


class _Closing:
    def __init__(self, store: Store) -> None:
        self.store = store

    async def aclose(self) -> None:
        await self.store.close()


async def test_not_ready_before_the_first_list(valkey_factory: ValkeyServer, encryption_key: str) -> None:
    valkey_factory.kill()
    store = open_store(valkey_factory.url, encryption_key)
    async with contextlib.aclosing(_Closing(store)), running_gateway(store, until_ready=False) as gateway:
        assert (await gateway.http.get("/health")).status_code == 200
        ready = await gateway.http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "starting")
        for answer in (await gateway.chat(), await gateway.get("/v1/models")):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "does not know the models yet" in answer.json()["error"]["message"]
        valkey_factory.start()
        await until_status(gateway, 404)
        assert (await gateway.http.get("/ready")).status_code == 200


class Script:
    """A store that follows a script: a real one does these things seldom, and not when a test needs them."""

    def __init__(self, *steps: Any) -> None:
        self.steps = list(steps)
        self.calls: list[str] = []
        self.done = asyncio.Event()

    def _next(self) -> Any:
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Exception):
            raise step
        return step

    async def list(self, kind: type, namespace: Any = None, **_: Any) -> Any:
        self.calls.append("list")
        return self._next()

    @contextlib.asynccontextmanager
    async def watch(self, kind: type, namespace: Any = None, *, resource_version: str, **_: Any) -> AsyncIterator[Any]:
        self.calls.append(f"watch {resource_version}")

        async def events() -> AsyncIterator[Any]:
            while (event := self._next()) is not None:
                yield event
            self.done.set()
            await asyncio.Event().wait()

        yield events()


def event(kind: Any, resource: ModelService | None, version: str) -> WatchEvent[ModelService]:
    return WatchEvent(kind, resource, version)


@pytest.mark.parametrize("failure", [Expired("too old"), RuntimeError("a bug")], ids=["expired", "bug"])
async def test_an_expired_watch_lists_again(failure: Exception) -> None:
    a, b = service("a"), service("b")
    script = Script(Listing([a], "1"), event(BOOKMARK, None, "2"), failure, Listing([b], "9"))
    names = await _follow(script)
    assert script.calls == ["list", "watch 1", "list", "watch 9"]
    assert names == {"b"}


async def test_a_broken_watch_goes_on_where_it_was() -> None:
    a, b = service("a"), service("b")
    script = Script(
        Unavailable("away"),
        Listing([a], "1"),
        event(MODIFIED, b, "4"),
        Unavailable("away"),
        Unavailable("still away"),
        event(DELETED, a, "5"),
    )
    names = await _follow(script)
    assert script.calls == ["list", "list", "watch 1", "watch 4", "watch 4"]
    assert names == {"b"}


async def _follow(script: Script) -> set[str]:
    upstreams = Upstreams(GatewayOptions())
    table = RoutingTable(upstreams, GatewayMetrics())
    task = asyncio.create_task(make_discovery(script, table).run())  # type: ignore[arg-type]
    try:
        await asyncio.wait_for(script.done.wait(), 30)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        upstreams.close()
    return {model.name for model in table._models.values()}
