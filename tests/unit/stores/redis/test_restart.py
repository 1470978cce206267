"""Restarts of the database under writers and watches."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

import pytest

from llmos.errors import Conflict, NotFound, Unavailable
from llmos.resources import ModelService
from llmos_hub.stores import open_store
from llmos_hub.stores.base import ADDED, BOOKMARK, MODIFIED, Store
from llmos_hub.stores.redis import tail
from llmos_hub.stores.redis.sealing import Sealer
from llmos_hub.stores.redis.store import RedisStore
from llmos_hub.valkey.database import Database
from tests.support.store_contract import ADA, follow, model
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE, eventually


class Writer:
    """A writer that counts up in its own resource and records acknowledged values."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name
        self.acknowledged = 0
        self.refused = 0
        self.versions: list[int] = []

    async def write(self, number: int) -> None:
        wanted = model(self.name)
        wanted.spec.env = {"N": str(number)}
        try:
            async with asyncio.timeout(PATIENCE):
                stored = await self.store.apply(wanted)
        except Unavailable:
            self.refused += 1
            await asyncio.sleep(0.01)
        else:
            self.acknowledged = number
            self.versions.append(int(stored.metadata.resource_version or 0))

    async def run(self, stop: asyncio.Event) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await self.write(number)


async def further(count: Callable[[], int], more: int = 5) -> None:
    """Wait until a number has grown."""
    before = count()
    await eventually(lambda: count() >= before + more)


async def test_nothing_acknowledged_is_lost_by_kill_9(valkey_factory: ValkeyServer) -> None:
    store = open_store(valkey_factory.url)
    watching = open_store(valkey_factory.url)
    stop = asyncio.Event()
    writers = [Writer(store, f"w{n}") for n in range(6)]
    start = (await watching.list(ModelService)).resource_version
    seen: dict[str, int] = {}
    told: list[int] = []

    async def watch() -> None:
        async with watching.watch(ModelService, resource_version=start) as events:
            async for event in events:
                told.append(int(event.resource_version))
                if event.resource is not None:
                    seen[event.resource.metadata.name] = int(event.resource.spec.env["N"])

    watcher = asyncio.create_task(watch())
    running = [asyncio.create_task(w.run(stop)) for w in writers]
    for _ in range(3):
        await asyncio.gather(*(further(lambda w=w: len(w.versions)) for w in writers))
        await asyncio.to_thread(valkey_factory.restart)
    await asyncio.gather(*(further(lambda w=w: len(w.versions)) for w in writers))
    stop.set()
    await asyncio.gather(*running)

    for writer in writers:
        stored = await store.get(ModelService, ADA, writer.name)
        # a write without an answer may be stored as well, but never less than was acknowledged
        assert int(stored.spec.env["N"]) >= writer.acknowledged > 0
        assert writer.versions == sorted(set(writer.versions))
        await eventually(lambda w=writer: seen.get(w.name, 0) >= w.acknowledged)
    assert not watcher.done(), "the watch survives restarts"
    every = {v for w in writers for v in w.versions}
    assert every <= set(told), "and has told of every acknowledged change"
    assert told == sorted(told)
    watcher.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watcher
    await store.close()
    await watching.close()


async def test_a_stopped_database_is_unavailable_soon_and_back_at_once(valkey_factory: ValkeyServer) -> None:
    store = open_store(valkey_factory.url)
    created = await store.create(model())
    await asyncio.gather(*(store.get(ModelService, ADA, "chat") for _ in range(10)))
    await asyncio.to_thread(valkey_factory.kill)
    async with asyncio.timeout(PATIENCE):
        answers = await asyncio.gather(
            store.get(ModelService, ADA, "chat"),
            store.list(ModelService),
            store.apply(model(replicas=2)),
            store.delete(ModelService, ADA, "chat"),
            return_exceptions=True,
        )
    assert [type(a) for a in answers] == [Unavailable] * 4
    assert not await store.healthy()
    await asyncio.to_thread(valkey_factory.start)
    assert await store.get(ModelService, ADA, "chat") == created
    answers = await asyncio.gather(*(store.create(model(f"m{n}")) for n in range(10)))
    assert len(answers) == 10
    await store.close()


async def test_a_restart_passes_unnoticed_by_reads(valkey_factory: ValkeyServer) -> None:
    store = open_store(valkey_factory.url)
    await store.create(model())
    stop = asyncio.Event()
    counts = [0] * 4

    async def read(number: int) -> None:
        while not stop.is_set():
            await store.get(ModelService, ADA, "chat")
            counts[number] += 1

    readers = [asyncio.create_task(read(number)) for number in range(4)]
    await further(lambda: min(counts))
    await asyncio.to_thread(valkey_factory.restart)
    await further(lambda: min(counts))
    stop.set()
    await asyncio.gather(*readers)
    await store.close()


async def test_watches_wait_for_the_database_and_then_give_up(
    valkey_factory: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "BLOCK", 0.2)
    database = Database(valkey_factory.url, patience=0.1)
    store = RedisStore(database, Sealer(), watch_patience=0.6, bookmark_interval=0.1)
    version = (await store.list(ModelService)).resource_version
    async with store.watch(ModelService, resource_version=version) as events:
        assert (await anext(events)).type == BOOKMARK
        await asyncio.to_thread(valkey_factory.kill)
        start = time.monotonic()

        async def only_bookmarks() -> None:
            async for event in events:
                assert event.type == BOOKMARK

        with pytest.raises(Unavailable, match="can't be reached"):
            async with asyncio.timeout(PATIENCE):
                await only_bookmarks()
        assert time.monotonic() - start > 0.5
    await asyncio.to_thread(valkey_factory.start)
    async with store.watch(ModelService, resource_version=version) as events:
        await store.create(model())
        assert await follow(events, 1) == [(ADDED, "chat")]
    await store.close()


async def test_an_interrupted_update_is_never_half_done(valkey_factory: ValkeyServer) -> None:
    """Read-modify-write with a version, through kills: the sum is what was acknowledged, or one more per doubt."""
    store = open_store(valkey_factory.url)
    start = (await store.create(model())).metadata.resource_version
    stop = asyncio.Event()
    acknowledged = doubtful = 0

    async def count_up() -> None:
        nonlocal acknowledged, doubtful
        while not stop.is_set():
            try:
                current = await store.get(ModelService, ADA, "chat")
                current.spec.env["N"] = str(int(current.spec.env.get("N", "0")) + 1)
                await store.update(current)
                acknowledged += 1
            except Conflict:
                continue
            except NotFound:
                raise
            except Unavailable:
                doubtful += 1

    running = [asyncio.create_task(count_up()) for _ in range(4)]
    for _ in range(2):
        await further(lambda: acknowledged)
        await asyncio.to_thread(valkey_factory.restart)
    await further(lambda: acknowledged)
    stop.set()
    await asyncio.gather(*running)
    final = await store.get(ModelService, ADA, "chat")
    count = int(final.spec.env["N"])
    assert acknowledged <= count <= acknowledged + doubtful
    async with store.watch(ModelService, resource_version=str(start)) as events:
        told = [await anext(events) for _ in range(count)]
    assert [e.type for e in told] == [MODIFIED] * count
    assert [e.resource.spec.env["N"] for e in told if e.resource] == [str(n) for n in range(1, count + 1)]
    await store.close()
