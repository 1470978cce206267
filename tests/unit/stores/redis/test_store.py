"""The store on Valkey: bounds of the stream, secrets at rest, other versions' data, failures."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography.fernet import Fernet

from llmos.errors import (
    AlreadyExists,
    Conflict,
    Expired,
    Forbidden,
    Insufficient,
    Internal,
    Invalid,
    PayloadTooLarge,
    Unavailable,
    UsageError,
)
from llmos.resources import Credential, ModelService
from llmos_hub.stores import open_store
from llmos_hub.stores.base import ADDED, BOOKMARK, MODIFIED, PAGE_BYTES, NamespaceQuota
from llmos_hub.stores.redis import store as store_module
from llmos_hub.stores.redis import tail
from llmos_hub.stores.redis.keys import ResourceKeys
from llmos_hub.stores.redis.sealing import Sealer
from llmos_hub.stores.redis.store import RedisStore
from llmos_hub.valkey.database import Database
from llmos_hub.valkey.schema import SCHEMA_VERSION
from tests.support.store_contract import ADA, HOLD, follow, model, next_change
from tests.support.valkey import ValkeyServer

KEYS = ResourceKeys()
Make = Callable[..., RedisStore]


@pytest.fixture
async def make(redis_url: str, encryption_key: str) -> AsyncIterator[Make]:
    """Return a function that makes stores on one database with given settings; they are closed at the end."""
    opened: list[RedisStore] = []

    def _make(*, key: str = encryption_key, url: str = redis_url, database: dict[str, Any] | None = None, **more: Any):
        made = RedisStore(Database(url, **(database or {})), Sealer(key), **more)
        opened.append(made)
        return made

    yield _make
    for made in opened:
        await made.close()


@pytest.fixture
def raw(redis_url: str, valkey_server: ValkeyServer):
    """Return a client that reads the database directly."""
    with contextlib.closing(valkey_server.client()) as client:
        yield client


async def version(store: RedisStore) -> str:
    return (await store.list(ModelService)).resource_version


class TestExpired:
    async def test_a_watch_from_before_the_trimmed_part_expires(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        start = await version(store)
        versions = [start] + [(await store.create(model(f"m{n}"))).metadata.resource_version for n in range(10)]
        raw.xtrim(KEYS.changes, maxlen=4, approximate=False)
        # entries 7..10 are left, so that a watch from the sixth misses nothing, and one from the fifth does
        async with store.watch(ModelService, resource_version=versions[6]) as events:
            assert await follow(events, 4) == [(ADDED, f"m{n}") for n in (6, 7, 8, 9)]
        with pytest.raises(Expired):
            async with store.watch(ModelService, resource_version=versions[5]):
                pass

    async def test_an_empty_stream_serves_the_newest_revision_alone(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        start = await version(store)
        newest = (await store.create(model())).metadata.resource_version
        raw.delete(KEYS.changes)
        with pytest.raises(Expired):
            async with store.watch(ModelService, resource_version=start):
                pass
        async with store.watch(ModelService, resource_version=newest) as events:
            await store.create(model("later"))
            assert await follow(events, 1) == [(ADDED, "later")]

    async def test_the_stream_stays_bounded(
        self, make: Make, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "KEEP_CHANGES", 100)
        store = make()
        start = await version(store)
        resource = await store.create(model())
        for number in range(400):
            resource.status.message = str(number)
            resource = await store.patch_status(resource)
        assert raw.xlen(KEYS.changes) < 300  # trimmed by whole nodes of the server's choice
        with pytest.raises(Expired):
            async with store.watch(ModelService, resource_version=start):
                pass

    async def test_the_stream_is_bounded_in_bytes_too(
        self, make: Make, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(store_module, "KEEP_BYTES", 300_000)
        store = make()
        start = await version(store)
        made = [await store.create(model(f"m{n}", annotations={"a": "x" * 20_000})) for n in range(40)]
        assert 10 <= raw.xlen(KEYS.changes) <= 15
        assert raw.memory_usage(KEYS.changes, samples=0) < 600_000
        with pytest.raises(Expired):
            async with store.watch(ModelService, resource_version=start):
                pass
        async with store.watch(ModelService, resource_version=str(made[-6].metadata.resource_version)) as events:
            assert await follow(events, 5) == [(ADDED, f"m{n}") for n in range(35, 40)]

    async def test_changes_that_an_older_program_did_not_count_go_first(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        await store.create(model())
        now = int(await version(store))
        raw.set(KEYS.revision, now + 1)
        raw.xadd(KEYS.changes, {"t": "ADDED", "k": "others", "n": "", "m": "x", "o": "x" * 100_000}, id=f"{now + 1}-0")
        await store.create(model("two"))
        await store.create(model("three"))
        assert raw.xlen(KEYS.changes) == 4  # it goes when it is the oldest
        raw.xtrim(KEYS.changes, maxlen=3, approximate=False)
        await store.create(model("four"))
        assert [fields[b"m"] for _, fields in raw.xrange(KEYS.changes)] == [b"two", b"three", b"four"]

    async def test_who_starts_while_nothing_is_saved_reads_all_the_same(
        self, make: Make, valkey_factory: ValkeyServer
    ) -> None:
        before = make(url=valkey_factory.url)
        await before.create(model())
        with contextlib.closing(valkey_factory.client()) as raw:
            raw.config_set("min-replicas-to-write", 1)
            store = make(url=valkey_factory.url)
            assert [r.metadata.name for r in (await store.list(ModelService)).items] == ["chat"]
            assert (await store.get(ModelService, ADA, "chat")).spec == model().spec
            with pytest.raises(Unavailable, match="saves nothing at the moment: its disk is nearly full"):
                await store.create(model("other"))
            raw.config_set("min-replicas-to-write", 0)
        await store.create(model("other"))

    async def test_a_list_that_takes_too_long_expires(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        for number in range(4):
            await store.create(model(f"m{number}"))
        page = await store.page(ModelService, limit=2)
        assert (await store.page(ModelService, limit=2, token=page.token)).items
        await store.create(model("m9"))
        raw.xtrim(KEYS.changes, maxlen=0)
        with pytest.raises(Expired):
            await store.page(ModelService, limit=2, token=page.token)

    async def test_a_revision_from_the_future_expires(self, make: Make) -> None:
        store = make()
        future = str(int(await version(store)) + 1)
        with pytest.raises(Expired):
            async with store.watch(ModelService, resource_version=future):
                pass

    @pytest.mark.parametrize("text", ["", "abc", "-1", "1.5", "٣"])
    async def test_what_is_no_version_is_refused(self, make: Make, text: str) -> None:
        with pytest.raises(Invalid, match="resourceVersion"):
            async with make().watch(ModelService, resource_version=text):
                pass

    async def test_versions_of_a_lost_database_expire(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        await store.create(model())
        before = await version(store)
        raw.flushall()
        after = await store.create(model("new"))
        assert int(after.metadata.resource_version or 0) > int(before)
        for number in range(3):
            await store.create(model(f"n{number}"))
        with pytest.raises(Expired):
            async with store.watch(ModelService, resource_version=before):
                pass

    async def test_a_database_that_another_part_initialized_is_prepared_too(
        self, make: Make, redis_url: str, raw: redis.Redis
    ) -> None:
        store = make()
        await store.create(model())
        raw.flushall()
        other = Database(redis_url)  # it writes id and layout alone
        await other.epoch()
        await other.close()
        created = await store.create(model("new"))
        async with store.watch(ModelService, resource_version=created.metadata.resource_version or "") as events:
            await store.create(model("more"))
            assert await follow(events, 1) == [(ADDED, "more")]

    async def test_a_watch_under_way_expires_when_the_database_is_lost(
        self, make: Make, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "BLOCK", 0.1)
        store = make()
        async with store.watch(ModelService, resource_version=await version(store)) as events:
            await store.create(model())
            assert await follow(events, 1) == [(ADDED, "chat")]
            raw.flushall()
            with pytest.raises(Expired):
                await next_change(events)
        # and the store continues with the new database
        async with store.watch(ModelService, resource_version=await version(store)) as events:
            await store.create(model())
            assert await follow(events, 1) == [(ADDED, "chat")]

    async def test_a_watch_under_way_expires_when_trimmed_under_it(
        self, make: Make, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "QUEUE", 2)
        store = make()
        start = await version(store)
        async with (
            store.watch(ModelService, resource_version=start) as events,
            store.watch(ModelService, resource_version=start) as quick,
        ):
            waiting = asyncio.create_task(anext(events))
            told = asyncio.create_task(follow(quick, 20))
            for number in range(20):
                await store.create(model(f"m{number}"))
            assert (await waiting).resource.metadata.name == "m0"
            assert len(await told) == 20  # so all was read, and most of it did not fit into the other's queue
            raw.xtrim(KEYS.changes, maxlen=2, approximate=False)
            with pytest.raises(Expired):
                await follow(events, 20)

    async def test_a_change_that_was_trimmed_before_it_was_read_is_missed_by_nobody(
        self, make: Make, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tail, "BLOCK", 0.1)
        store = make()
        async with store.watch(ModelService, resource_version=await version(store)) as events:
            await store.create(model())
            assert await follow(events, 1) == [(ADDED, "chat")]
            waiting = asyncio.create_task(next_change(events))
            await asyncio.sleep(0)
            newest = int(raw.get(KEYS.revision)) + 1
            with raw.pipeline(transaction=True) as step:
                step.incr(KEYS.revision)
                step.xadd(KEYS.changes, {"k": "modelservices"}, id=f"{newest}-0")
                step.xtrim(KEYS.changes, maxlen=0, approximate=False)
                step.execute()
            # nothing more is written: the watch must detect it by itself
            with pytest.raises(Expired):
                await waiting


class TestSlowWatches:
    async def test_a_slow_watch_catches_up_from_the_stream(self, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tail, "QUEUE", 4)
        monkeypatch.setattr(tail, "PAGE", 7)
        store = make()
        start = await version(store)
        async with (
            store.watch(ModelService, resource_version=start) as slow,
            store.watch(ModelService, resource_version=start) as quick,
        ):
            first = asyncio.create_task(anext(slow))
            told = asyncio.create_task(follow(quick, 50))
            for number in range(50):
                await store.create(model(f"m{number}"))
            assert len(await told) == 50
            assert len(slow.queue) <= 4  # type: ignore[attr-defined]
            assert (await first).resource.metadata.name == "m0"
            assert await follow(slow, 49) == [(ADDED, f"m{n}") for n in range(1, 50)]
            await store.create(model("last"))
            assert await follow(slow, 1) == [(ADDED, "last")]

    async def test_bookmarks_follow_other_kinds(self, make: Make) -> None:
        store = make(bookmark_interval=0.05)
        start = await version(store)
        async with store.watch(Credential, resource_version=start) as events:
            mark = await asyncio.wait_for(anext(events), 10)
            assert (mark.type, mark.resource, mark.resource_version) == (BOOKMARK, None, start)
            newest = (await store.create(model())).metadata.resource_version
            async with asyncio.timeout(10):
                while (mark := await anext(events)).resource_version != newest:
                    assert mark.type == BOOKMARK

    async def test_all_watches_share_one_connection(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        start = await version(store)
        async with contextlib.AsyncExitStack() as stack:
            watches = [
                await stack.enter_async_context(store.watch(ModelService, resource_version=start)) for _ in range(50)
            ]
            waiting = [asyncio.create_task(next_change(w)) for w in watches]
            await store.create(model())
            assert {(await w).type for w in waiting} == {ADDED}
            blocked = raw.info("clients")["blocked_clients"]
            assert blocked <= 1
            assert raw.info("clients")["connected_clients"] < 10


class TestSecrets:
    SECRET = "hf_very-secret-value"

    def credential(self) -> Credential:
        return Credential.parse(
            {"metadata": {"name": "hub", "namespace": ADA}, "spec": {"data": {"HF_TOKEN": self.SECRET}}}
        )

    def everything(self, raw: redis.Redis) -> bytes:
        parts = [repr(raw.xrange(KEYS.changes)).encode()]
        parts += [repr(raw.hgetall(k)).encode() for k in raw.keys("*") if raw.type(k) == b"hash"]
        return b"".join(parts)

    async def test_secrets_lie_encrypted(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        start = await version(store)
        created = await store.create(self.credential())
        created.metadata.labels = {"a": "1"}
        await store.update(created)
        await store.delete(Credential, ADA, "hub")
        again = await store.create(self.credential())
        everything = self.everything(raw)
        assert b"user-ada" in everything
        assert self.SECRET.encode() not in everything
        assert b"HF_TOKEN" not in everything
        async with store.watch(Credential, resource_version=start) as events:
            for _ in range(4):
                event = await next_change(events)
                assert event.resource is not None
                assert event.resource.spec.data == {"HF_TOKEN": self.SECRET}
        assert again.spec.data == {"HF_TOKEN": self.SECRET}

    async def test_without_a_key_secrets_are_empty_and_stay_as_they_are(self, make: Make) -> None:
        keyed, keyless = make(), make(key="")
        created = await keyed.create(self.credential())
        read = await keyless.get(Credential, ADA, "hub")
        assert read.spec.data == {}
        assert (await keyless.list(Credential)).items[0].spec.data == {}
        read.status.keys = ["HF_TOKEN"]
        read = await keyless.patch_status(read)
        read.metadata.labels = {"seen": "yes"}
        read = await keyless.update(read)
        assert read.metadata.generation == 1
        now = await keyed.get(Credential, ADA, "hub")
        assert now.spec == created.spec
        assert (now.status.keys, now.metadata.labels) == (["HF_TOKEN"], {"seen": "yes"})
        read.spec.data = {"HF_TOKEN": "other"}
        with pytest.raises(Forbidden, match="no key"):
            await keyless.update(read)
        with pytest.raises(Forbidden, match="no key"):
            await keyless.create(Credential.parse({"metadata": {"name": "b", "namespace": ADA}}))

    async def test_keys_rotate(self, make: Make) -> None:
        old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
        await make(key=old).create(self.credential())
        both = make(key=f"{new},{old}")
        read = await both.get(Credential, ADA, "hub")
        read.spec.data["MORE"] = "x"
        await both.update(read)
        assert (await make(key=new).get(Credential, ADA, "hub")).spec.data == {"HF_TOKEN": self.SECRET, "MORE": "x"}

    async def test_another_key_hides_the_credential_but_nothing_else(
        self, make: Make, caplog: pytest.LogCaptureFixture
    ) -> None:
        await make().create(self.credential())
        other = make(key=Fernet.generate_key().decode())
        mine = await other.create(Credential.parse({"metadata": {"name": "mine", "namespace": ADA}}))
        hub, listed = (await other.list(Credential)).items
        assert listed == mine
        assert "a key that is not here" in hub.unread
        assert hub.spec.data == {}
        assert other.unreadable == 1
        assert "Credential user-ada/hub" in caplog.text
        await other.delete(Credential, ADA, "hub", uid=hub.metadata.uid)
        assert (await other.list(Credential)).items == [mine]

    async def test_a_ciphertext_opens_in_its_own_place_alone(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        await store.create(self.credential())
        await store.create(
            Credential.parse({"metadata": {"name": "thief", "namespace": "user-eve"}, "spec": {"data": {"A": "b"}}})
        )
        stolen = raw.hget(KEYS.objects("credentials", ADA), "hub").partition(b'"sealed":')[2]
        head = raw.hget(KEYS.objects("credentials", "user-eve"), "thief").partition(b'"sealed":')[0]
        raw.hset(KEYS.objects("credentials", "user-eve"), "thief", head + b'"sealed":' + stolen)
        found = await store.get(Credential, "user-eve", "thief")
        assert "another field" in found.unread
        assert found.spec.data == {}

    def test_a_bad_key_is_refused_at_once(self, redis_url: str) -> None:
        with pytest.raises(UsageError, match="Fernet"):
            open_store(redis_url, "not-a-key")


class TestOtherVersions:
    NEWER = b'17 uid-1\n{"apiVersion":"llmos.ai/v1alpha1","kind":"ModelService","metadata":{"name":"new","namespace":"user-ada","uid":"uid-1"},"spec":{"model":"demo://tiny","fromTheFuture":1}}'

    DEEP = b"12 u\n" + b"[" * 100_000
    ANOTHERS = NEWER.replace(b'"name":"new"', b'"name":"chat"').replace(b',"fromTheFuture":1', b"")

    @pytest.mark.parametrize(
        "value", [NEWER, b"", b"no json", b"12 u\nnull", b'12 u\n{"metadata":3}', b"\xff\n\xfe", DEEP, ANOTHERS]
    )
    async def test_what_cannot_be_read_is_seen_and_deleted(
        self, make: Make, raw: redis.Redis, caplog: pytest.LogCaptureFixture, value: bytes
    ) -> None:
        store = make()
        good = await store.create(model())
        raw.hset(KEYS.objects("modelservices", ADA), "new", value)
        listed, new = (await store.list(ModelService)).items
        assert listed == good
        assert (new.metadata.name, new.metadata.namespace) == ("new", ADA)
        assert new.unread
        await store.list(ModelService)
        assert store.unreadable == 2
        logged = [r for r in caplog.records if "user-ada/new" in r.getMessage()]
        assert len(logged) == 1, "reported once, not at each list"
        assert logged[0].levelno == logging.ERROR
        await store.delete(ModelService, ADA, "new")
        assert (await store.list(ModelService)).items == [good]

    async def test_a_newer_programs_field_is_never_written_away(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        await store.create(model())
        raw.hset(KEYS.objects("modelservices", ADA), "new", self.NEWER)
        with pytest.raises(Internal, match="newer"):
            await store.update(model("new", replicas=2))
        found = await store.get(ModelService, ADA, "new")
        found.status.phase = "Failed"
        found = await store.patch_status(found)
        found.metadata.finalizers = [HOLD]
        found = await store.update(found)
        assert b'"fromTheFuture": 1' in raw.hget(KEYS.objects("modelservices", ADA), "new").replace(b":1", b": 1")
        assert (found.status.phase, found.metadata.finalizers) == ("Failed", [HOLD])
        assert "fromTheFuture" in found.unread
        replaced = await store.apply(model("new", replicas=2))
        assert not replaced.unread, "who applies all of it says what it shall be"
        with pytest.raises(Conflict):
            await store.update(found)

    async def test_a_damaged_one_is_left_as_it_is_until_it_is_deleted(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        raw.hset(KEYS.objects("modelservices", ADA), "new", b"12 u\n{")
        raw.sadd(KEYS.namespaces("modelservices"), ADA)
        found = await store.get(ModelService, ADA, "new")
        with pytest.raises(Internal, match="delete it"):
            await store.patch_status(
                found.model_copy(update={"status": model().status.model_copy(update={"phase": "Failed"})})
            )
        assert raw.hget(KEYS.objects("modelservices", ADA), "new") == b"12 u\n{"

    async def test_watches_tell_of_what_they_cannot_read_whole(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        start = await version(store)
        async with store.watch(ModelService, resource_version=start) as events:
            await store.create(model("a"))
            revision = raw.incr(KEYS.revision)
            fields = {"t": "ADDED", "k": "modelservices", "n": ADA, "m": "new", "l": "{}", "p": "", "o": self.NEWER[9:]}
            raw.xadd(KEYS.changes, fields, id=f"{revision}-0")
            revision = raw.incr(KEYS.revision)
            raw.xadd(KEYS.changes, {"unknown": "layout"}, id=f"{revision}-0")
            await store.create(model("b"))
            assert await follow(events, 3) == [(ADDED, "a"), (ADDED, "new"), (ADDED, "b")]

    async def test_a_newer_layout_is_not_touched(self, make: Make, raw: redis.Redis) -> None:
        await make().create(model())
        raw.set(KEYS.schema, SCHEMA_VERSION + 1)
        with pytest.raises(Unavailable, match="newer LLMOS"):
            await make().list(ModelService)

    async def test_a_layout_without_a_way_on_is_refused(self, make: Make, raw: redis.Redis) -> None:
        await make().create(model())
        raw.set(KEYS.schema, SCHEMA_VERSION - 1)
        with pytest.raises(Internal, match="knows no way"):
            await make().list(ModelService)


class TestQuota:
    async def test_two_processes_together_never_exceed_it(self, make: Make) -> None:
        stores, quota = [make(), make()], NamespaceQuota(10, 10_000_000)
        writes = [stores[n % 2].create(model(f"m{n}"), quota=quota) for n in range(60)]
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert sum(isinstance(result, ModelService) for result in done) == 10
        assert {type(result) for result in done} == {ModelService, Insufficient}
        assert len((await stores[0].list(ModelService)).items) == 10

    async def test_nor_its_bytes(self, make: Make, raw: redis.Redis) -> None:
        stores, quota = [make(), make()], NamespaceQuota(1000, 100_000)
        writes = [stores[n % 2].create(model(f"m{n}", annotations={"a": "x" * 9_000}), quota=quota) for n in range(60)]
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(result) for result in done} == {ModelService, Insufficient}
        stored = raw.hvals(KEYS.objects("modelservices", ADA))
        assert 90_000 < sum(map(len, stored)) <= 100_000
        assert int(raw.hget(KEYS.sizes("modelservices"), ADA)) == sum(map(len, stored))

    async def test_bytes_are_counted_through_every_change(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        for number in range(5):
            await store.create(model(f"m{number}", annotations={"a": "x" * 100 * number}))
        changed = await store.get(ModelService, ADA, "m3")
        changed.metadata.annotations = {}
        changed.status.message = "y" * 1000
        await store.patch_status(await store.update(changed))
        await store.delete(ModelService, ADA, "m4")
        counted = sum(map(len, raw.hvals(KEYS.objects("modelservices", ADA))))
        assert int(raw.hget(KEYS.sizes("modelservices"), ADA)) == counted
        # data written by an older version is counted by the first write after the start of a newer one
        raw.hset(KEYS.sizes("modelservices"), ADA, 7)
        await make().apply(model("m0", replicas=3))
        counted = sum(map(len, raw.hvals(KEYS.objects("modelservices", ADA))))
        assert int(raw.hget(KEYS.sizes("modelservices"), ADA)) == counted
        for number in range(4):
            await store.delete(ModelService, ADA, f"m{number}")
        assert not raw.exists(KEYS.sizes("modelservices"))


class TestClaims:
    async def test_of_two_processes_one_has_the_name(self, make: Make) -> None:
        stores = [make(), make()]
        for number in range(50):
            writes = [s.create(model(f"m{number}-{n}", aliases=[f"a{number}"])) for n, s in enumerate(stores)]
            done = await asyncio.gather(*writes, return_exceptions=True)
            assert {type(result) for result in done} == {ModelService, AlreadyExists}

    async def test_names_stored_by_an_older_version_are_indexed_by_the_first_claim(
        self, make: Make, raw: redis.Redis
    ) -> None:
        store = make()
        for name, alias in (("one", "a"), ("two", "b")):
            await store.create(model(name, aliases=[alias]))
        raw.hset(KEYS.objects("modelservices", ADA), "damaged", b"12 u\n{")
        raw.delete(KEYS.indexed("modelservices"), KEYS.claims("modelservices", ADA))
        await store.delete(ModelService, ADA, "two")
        with pytest.raises(AlreadyExists, match="is a name of one"):
            await store.create(model("a"))
        await store.create(model("b", aliases=["two"]))
        # an older version, which keeps no index, wrote while it ran
        old = raw.hget(KEYS.objects("modelservices", ADA), "one")
        raw.hset(KEYS.objects("modelservices", ADA), "one", old.replace(b'"aliases":["a"]', b'"aliases":["z"]'))
        restarted = make()
        with pytest.raises(AlreadyExists, match="is a name of one"):
            await restarted.create(model("z"))
        await restarted.create(model("a"))

    async def test_two_that_had_one_name_before_keep_it_until_one_gives_it_up(
        self, make: Make, raw: redis.Redis
    ) -> None:
        store = make()
        for name in ("one", "two"):
            await store.create(model(name, aliases=[name[0]]))
        objects = KEYS.objects("modelservices", ADA)
        raw.hset(objects, "two", raw.hget(objects, "two").replace(b'"aliases":["t"]', b'"aliases":["o"]'))
        raw.delete(KEYS.indexed("modelservices"))
        two = await store.get(ModelService, ADA, "two")
        two.spec.aliases = ["o", "new"]
        two = await store.update(two)
        await store.delete(ModelService, ADA, "one")
        with pytest.raises(AlreadyExists):
            await store.create(model("o"))
        two.spec.aliases = []
        await store.update(two)
        await store.create(model("o"))

    async def test_an_index_is_built_although_others_write(
        self, make: Make, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store, other = make(), make()
        await store.create(model("one", aliases=["a"]))
        raw.delete(KEYS.indexed("modelservices"))
        read, changes = store._read_all, iter(("b", "c"))

        async def overtaken(*place: Any) -> Any:
            found = await read(*place)
            if message := next(changes, ""):
                changed = await other.get(ModelService, ADA, "one")
                changed.status.message = message
                await other.patch_status(changed)
            return found

        monkeypatch.setattr(store, "_read_all", overtaken)
        with pytest.raises(AlreadyExists):
            await store.create(model("a"))

    async def test_the_last_one_leaves_no_index(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        for name in ("one", "two"):
            await store.create(model(name, aliases=[f"{name}-a"]))
        for name in ("one", "two"):
            await store.delete(ModelService, ADA, name)
        assert not raw.exists(KEYS.indexed("modelservices"), KEYS.claims("modelservices", ADA))

    async def test_only_a_write_that_changes_names_has_to_do_with_the_index(
        self, make: Make, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make()
        one = await store.create(model("one", aliases=["a"]))
        raw.delete(KEYS.indexed("modelservices"))
        one.spec.replicas = 3
        one.status.message = "x"
        one = await store.patch_status(await store.update(one, quota=NamespaceQuota(10, 100_000)))
        assert not raw.exists(KEYS.indexed("modelservices")), "it would have been built"
        one.spec.aliases = ["b"]
        await store.update(one)
        scripts: list[str] = []
        run = store._database.run

        async def counted(*command: Any, **more: Any) -> Any:
            scripts.append(command[0])
            return await run(*command, **more)

        monkeypatch.setattr(store._database, "run", counted)
        await store.create(model("two", aliases=["c"]), quota=NamespaceQuota(10, 100_000))
        assert scripts == ["EVALSHA"]


class TestLimits:
    async def test_a_page_of_large_resources_is_small(self, make: Make) -> None:
        store = make()
        for number in range(25):
            await store.create(model(f"m{number:02}", annotations={"a": "x" * 100_000}))
        names, token, pages = [], "", 0
        while True:
            page = await store.page(ModelService, limit=500, token=token)
            assert sum(len(r.model_dump_json()) for r in page.items) < PAGE_BYTES + 150_000
            names += [r.metadata.name for r in page.items]
            pages += 1
            if not (token := page.token):
                break
        assert names == [f"m{number:02}" for number in range(25)]
        assert pages == 3

    async def test_a_slow_watch_holds_few_bytes(self, make: Make) -> None:
        store = make()
        start = await version(store)
        async with store.watch(ModelService, resource_version=start) as events:
            await store.create(model("first"))
            assert await follow(events, 1) == [(ADDED, "first")]
            for number in range(40):
                await store.create(model(f"m{number}", annotations={"a": "x" * 100_000}))
            async with store.watch(ModelService, resource_version=start) as other:
                await follow(other, 41)  # the reader has handed everything out
                assert events.queued < tail.QUEUE_BYTES + 200_000
            assert await follow(events, 40) == [(ADDED, f"m{number}") for number in range(40)]
            assert events.queued == 0

    async def test_a_resource_that_no_cluster_would_take_is_refused(self, make: Make) -> None:
        huge = model()
        huge.status.last_log_lines = ["x" * 1_600_000]
        store = make()
        await store.create(model())
        with pytest.raises(PayloadTooLarge, match="limit"):
            await store.patch_status(huge)

    async def test_long_event_messages_are_cut(self, make: Make) -> None:
        store = make()
        created = await store.create(model())
        await store.record(created, "Warning", "Long", "x" * 10_000)
        event = (await store.events(ModelService, ADA, "chat"))[0]
        assert len(event.message) == 4096
        assert event.message.endswith("…")

    async def test_many_operations_share_few_connections(self, make: Make, raw: redis.Redis) -> None:
        store = make(database={"max_connections": 4})
        await asyncio.gather(*(store.create(model(f"m{n}")) for n in range(200)))
        assert len((await store.list(ModelService)).items) == 200
        assert raw.info("clients")["connected_clients"] <= 4 + 3

    async def test_cancelled_operations_leave_the_store_whole(self, make: Make) -> None:
        store = make(database={"max_connections": 2})
        await store.create(model())
        for number in range(60):
            task = asyncio.create_task(store.get(ModelService, ADA, "chat"))
            for _ in range(number % 12):
                await asyncio.sleep(0)
            task.cancel()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        found = await asyncio.gather(*(store.get(ModelService, ADA, "chat") for _ in range(20)))
        assert {r.metadata.name for r in found} == {"chat"}
        assert (await store.events(ModelService, ADA, "chat")) == []


def count_attempts(store: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return a list that the first words of all commands are added to as they are attempted."""
    attempts: list[Any] = []
    once = store._database._once

    async def counted(command: tuple[Any, ...], sent: list[bool]) -> Any:
        attempts.append(command[0])
        return await once(command, sent)

    monkeypatch.setattr(store._database, "_once", counted)
    return attempts


class TestUnavailable:
    async def test_an_address_where_nothing_answers(
        self, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make(url=f"unix://:secret@{tmp_path}/none", database={"patience": 0.3})
        attempts = count_attempts(store, monkeypatch)
        with pytest.raises(Unavailable, match="can't be reached") as caught:
            await store.list(ModelService)
        assert len(attempts) <= 5, "after pauses of 0, 0.02, 0.05 and 0.1 s, one of 0.2 s would be over the 0.3 s"
        assert "secret" not in str(caught.value)
        with pytest.raises(Unavailable):
            await store.create(model())
        assert not await store.healthy()

    async def test_a_wrong_password_is_said_and_not_retried(
        self, make: Make, valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = make(url=f"unix://:wrong@{valkey_server.config.socket}")
        attempts = count_attempts(store, monkeypatch)
        with pytest.raises(Unavailable, match="refuses the log-in"):
            await store.list(ModelService)
        assert len(attempts) == 1

    async def test_a_server_that_hangs_is_given_up_in_time(self, make: Make, raw: redis.Redis) -> None:
        store = make(database={"timeout": 0.3})
        await store.create(model())
        raw.client_pause(100_000, all=False)  # only writes, so that this can be ended
        try:
            with pytest.raises(Unavailable, match=r"within 0\.3 s"):
                await store.update(model(replicas=2))
        finally:
            raw.client_unpause()
        assert (await store.update(model(replicas=3))).spec.replicas == 3

    async def test_a_server_that_refuses_to_write_is_unavailable_in_its_words(
        self, make: Make, raw: redis.Redis
    ) -> None:
        store = make()
        created = await store.create(model())
        before = await version(store)
        limit = raw.config_get("maxmemory")["maxmemory"]
        assert int(limit) == 512 * 1024 * 1024
        assert raw.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        raw.config_set("maxmemory", 1)
        try:
            with pytest.raises(Unavailable, match=r"is full.*maxmemory"):
                await store.update(model(replicas=2), quota=NamespaceQuota(10, 10_000_000))
            with pytest.raises(Unavailable, match="is full"):
                await store.create(model("more"), quota=NamespaceQuota(10, 10_000_000))
            assert await store.get(ModelService, ADA, "chat") == created
            assert await version(store) == before
            # writes that free memory, and the platform's own, succeed
            created.status.phase = "Failed"
            assert (await store.patch_status(created)).status.phase == "Failed"
            await store.record(created, "Warning", "Failed", "this one is not kept")
            await store.delete(ModelService, ADA, "chat")
            assert (await store.list(ModelService)).items == []
        finally:
            raw.config_set("maxmemory", limit)

    async def test_broken_connections_are_replaced_unnoticed(self, make: Make, raw: redis.Redis) -> None:
        store = make()
        async with store.watch(ModelService, resource_version=await version(store)) as events:
            await store.create(model())
            for number in range(2, 8):
                await asyncio.gather(*(store.get(ModelService, ADA, "chat") for _ in range(8)))
                raw.client_kill_filter(_type="normal", skipme=True)
                await asyncio.sleep(0)
                read = await store.get(ModelService, ADA, "chat")
                read.spec.replicas = number
                await store.update(read)
            changes = [(ADDED, "chat")] + [(MODIFIED, "chat")] * 6
            assert await follow(events, 7) == changes

    async def test_closing_ends_watches(self, make: Make) -> None:
        store = make()
        async with store.watch(ModelService, resource_version=await version(store)) as events:
            waiting = asyncio.create_task(anext(events))
            await asyncio.sleep(0)
            await store.close()
            with pytest.raises(Unavailable, match="closed"):
                await waiting
        with pytest.raises(Unavailable, match="closed"):
            await store.get(ModelService, ADA, "chat")
