"""The contract of stores: one suite that all implementations run.

A test module runs it by a subclass, with a fixture `store` that provides an empty store::

    class TestRedisStore(StoreContract):
        pass

If namespaces must exist first (on a cluster), the fixture creates `ADA` and `GRACE`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

import pytest

from llmos.errors import AlreadyExists, BadRequest, Conflict, Insufficient, Invalid, NotFound
from llmos.resources import Condition, Credential, ModelService, Resource, Setting
from llmos_hub.stores.base import ADDED, BOOKMARK, DELETED, MODIFIED, NamespaceQuota, Page, Store, WatchEvent

__all__ = ["ADA", "GRACE", "Claims", "Quotas", "StoreContract", "follow", "model", "next_change", "setting"]

ADA = "user-ada"
GRACE = "user-grace"
HOLD = "llmos.ai/hold"
R = TypeVar("R", bound=Resource)


def model(
    name: str = "chat", namespace: str = ADA, *, replicas: int = 1, aliases: Sequence[str] = (), **metadata: Any
) -> ModelService:
    """Return a service as a user sends it."""
    return ModelService.parse(
        {
            "kind": "ModelService",
            "metadata": {"name": name, "namespace": namespace, **metadata},
            "spec": {"model": "demo://tiny", "replicas": replicas, "aliases": list(aliases)},
        }
    )


def setting(name: str = "banner", value: str = "hello") -> Setting:
    """Return a cluster-scoped resource."""
    return Setting.parse({"kind": "Setting", "metadata": {"name": name}, "spec": {"value": value}})


async def next_change(events: AsyncIterator[WatchEvent[R]], timeout: float = 10.0) -> WatchEvent[R]:
    """Return the next event that isn't a bookmark."""
    async with asyncio.timeout(timeout):
        while True:
            event = await anext(events)
            if event.type != BOOKMARK:
                return event


async def follow(events: AsyncIterator[WatchEvent[R]], count: int) -> list[tuple[str, str]]:
    """Return type and name of the next changes."""
    seen = []
    for _ in range(count):
        event = await next_change(events)
        assert event.resource is not None
        seen.append((event.type, event.resource.metadata.name))
    return seen


def revision(resource: Resource) -> int:
    assert resource.metadata.resource_version
    return int(resource.metadata.resource_version)


async def change(store: Store, resource: ModelService, edit: Callable[[ModelService], None]) -> ModelService:
    """Read, edit and update a resource."""
    current = await store.get(ModelService, resource.metadata.namespace, resource.metadata.name)
    edit(current)
    return await store.update(current)


class _Creating:
    async def test_create_sets_what_belongs_to_the_store(self, store: Store) -> None:
        sent = model(labels={"team": "blue"}, annotations={"note": "ä\n\"'"}, finalizers=[HOLD])
        created = await store.create(sent)
        meta = created.metadata
        assert meta.uid
        assert meta.resource_version
        assert meta.generation == 1
        assert meta.creation_timestamp is not None
        assert meta.deletion_timestamp is None
        assert (meta.labels, meta.annotations, meta.finalizers) == (
            {"team": "blue"},
            {"note": "ä\n\"'"},
            [HOLD],
        )
        assert created.spec == sent.spec
        assert await store.get(ModelService, ADA, "chat") == created

    async def test_create_ignores_what_the_caller_made_up(self, store: Store) -> None:
        sent = model(
            uid="mine",
            generation=7,
            creationTimestamp="2001-01-01T00:00:00Z",
            deletionTimestamp="2001-01-01T00:00:00Z",
        )
        sent.status.phase = "Ready"
        created = await store.create(sent)
        assert created.metadata.uid != "mine"
        assert created.metadata.generation == 1
        assert created.metadata.creation_timestamp is not None
        assert created.metadata.creation_timestamp.year > 2001
        assert created.metadata.deletion_timestamp is None
        assert created.status.phase == "Pending", "status is written by patch_status alone"

    async def test_create_refuses_a_taken_name(self, store: Store) -> None:
        first = await store.create(model())
        with pytest.raises(AlreadyExists, match="user-ada/chat"):
            await store.create(model(replicas=3))
        assert await store.get(ModelService, ADA, "chat") == first

    async def test_a_name_is_free_in_another_namespace_and_kind(self, store: Store) -> None:
        await store.create(model())
        await store.create(model(namespace=GRACE, replicas=2))
        await store.create(Credential.parse({"metadata": {"name": "chat", "namespace": ADA}}))
        assert (await store.get(ModelService, ADA, "chat")).spec.replicas == 1
        assert (await store.get(ModelService, GRACE, "chat")).spec.replicas == 2

    async def test_a_name_made_anew_has_another_uid(self, store: Store) -> None:
        first = await store.create(model())
        await store.delete(ModelService, ADA, "chat")
        second = await store.create(model())
        assert second.metadata.uid != first.metadata.uid
        assert revision(second) > revision(first)

    async def test_kinds_of_the_whole_platform_have_no_namespace(self, store: Store) -> None:
        await store.create(setting())
        assert (await store.get(Setting, None, "banner")).spec.value == "hello"
        with pytest.raises(Invalid, match=r"metadata\.namespace"):
            await store.get(Setting, ADA, "banner")
        unplaced = model()
        unplaced.metadata.namespace = None
        with pytest.raises(Invalid, match=r"metadata\.namespace"):
            await store.create(unplaced)

    async def test_what_cannot_be_read_back_is_not_stored(self, store: Store) -> None:
        broken = model()
        broken.spec.replicas = -1
        with pytest.raises(Invalid, match="replicas"):
            await store.create(broken)
        with pytest.raises(NotFound):
            await store.get(ModelService, ADA, "chat")

    async def test_results_are_independent_of_what_was_sent(self, store: Store) -> None:
        sent = model()
        created = await store.create(sent)
        sent.spec.replicas = 9
        created.metadata.labels["x"] = "y"
        stored = await store.get(ModelService, ADA, "chat")
        assert created.spec.replicas == stored.spec.replicas == 1
        assert stored.metadata.labels == {}

    async def test_get_names_what_is_missing(self, store: Store) -> None:
        with pytest.raises(NotFound, match='ModelService "user-ada/nothing"'):
            await store.get(ModelService, ADA, "nothing")

    async def test_write_only_fields_come_back_to_the_platform(self, store: Store) -> None:
        secret = Credential.parse(
            {"metadata": {"name": "hub", "namespace": ADA}, "spec": {"data": {"HF_TOKEN": "hf_öäü"}}}
        )
        created = await store.create(secret)
        assert created.spec.data == {"HF_TOKEN": "hf_öäü"}
        assert (await store.list(Credential, ADA)).items[0].spec.data == {"HF_TOKEN": "hf_öäü"}
        secret.spec.data = {"OTHER": "x"}
        applied = await store.apply(secret)
        assert applied.metadata.generation == 2
        applied.status.keys = ["OTHER"]
        await store.patch_status(applied)
        again = await store.get(Credential, ADA, "hub")
        assert (again.spec.data, again.status.keys) == ({"OTHER": "x"}, ["OTHER"])


class _Updating:
    async def test_update_replaces_all_but_status(self, store: Store) -> None:
        created = await store.create(model(labels={"a": "1"}, annotations={"x": "1"}))
        created.status.phase = "Ready"
        with_status = await store.patch_status(created)
        edited = with_status.model_copy(deep=True)
        edited.spec.replicas = 2
        edited.metadata.labels = {"b": "2"}
        edited.metadata.annotations = {}
        edited.metadata.finalizers = [HOLD]
        edited.status.phase = "Failed"
        updated = await store.update(edited)
        assert updated.spec.replicas == 2
        assert updated.metadata.labels == {"b": "2"}
        assert updated.metadata.annotations == {}
        assert updated.metadata.finalizers == [HOLD]
        assert updated.status.phase == "Ready"
        assert updated.metadata.uid == created.metadata.uid
        assert updated.metadata.creation_timestamp == created.metadata.creation_timestamp
        assert revision(updated) > revision(with_status)
        assert await store.get(ModelService, ADA, "chat") == updated

    async def test_generation_counts_changes_of_spec_alone(self, store: Store) -> None:
        resource = await store.create(model())
        resource.metadata.labels = {"a": "1"}
        resource = await store.update(resource)
        assert resource.metadata.generation == 1
        resource.status.phase = "Ready"
        resource = await store.patch_status(resource)
        assert resource.metadata.generation == 1
        resource.spec.replicas = 2
        resource = await store.update(resource)
        assert resource.metadata.generation == 2
        resource.spec.replicas = 3
        assert (await store.apply(resource)).metadata.generation == 3

    async def test_update_that_changes_nothing_writes_nothing(self, store: Store) -> None:
        created = await store.create(model(labels={"a": "1"}))
        assert await store.update(created) == created
        assert await store.apply(model()) == created
        assert await store.patch_status(created) == created
        async with store.watch(ModelService, resource_version=str(created.metadata.resource_version)) as events:
            await store.create(model("later"))
            assert await follow(events, 1) == [(ADDED, "later")]

    async def test_update_of_what_changed_since_is_refused(self, store: Store) -> None:
        stale = await store.create(model())
        await change(store, stale, lambda r: setattr(r.spec, "replicas", 2))
        stale.spec.replicas = 3
        for write in (store.update, store.apply, store.patch_status):
            with pytest.raises(Conflict, match="changed since"):
                await write(stale)
        assert (await store.get(ModelService, ADA, "chat")).spec.replicas == 2

    async def test_update_without_resource_version_overwrites(self, store: Store) -> None:
        created = await store.create(model())
        await change(store, created, lambda r: setattr(r.spec, "replicas", 2))
        created.metadata.resource_version = None
        created.spec.replicas = 3
        assert (await store.update(created)).spec.replicas == 3

    async def test_update_of_a_name_made_anew_is_refused(self, store: Store) -> None:
        old = await store.create(model())
        await store.delete(ModelService, ADA, "chat")
        await store.create(model())
        old.metadata.resource_version = None
        old.spec.replicas = 5
        for write in (store.update, store.apply, store.patch_status):
            with pytest.raises(Conflict):
                await write(old)

    async def test_update_needs_something_to_update(self, store: Store) -> None:
        for write in (store.update, store.patch_status):
            with pytest.raises(NotFound, match="user-ada/chat"):
                await write(model())

    async def test_patch_status_leaves_the_rest_alone(self, store: Store) -> None:
        created = await store.create(model(labels={"a": "1"}))
        created.spec.replicas = 9
        created.metadata.labels = {}
        created.status.phase = "Ready"
        created.status.conditions = [Condition(type="Ready", status="True", reason="Loaded")]
        patched = await store.patch_status(created)
        assert patched.status == created.status
        assert patched.spec.replicas == 1
        assert patched.metadata.labels == {"a": "1"}
        assert patched.metadata.generation == 1

    async def test_concurrent_writers_lose_nothing(self, store: Store) -> None:
        await store.create(model())

        async def count_up() -> None:
            while True:
                current = await store.get(ModelService, ADA, "chat")
                current.spec.env["N"] = str(int(current.spec.env.get("N", "0")) + 1)
                try:
                    await store.update(current)
                except Conflict:
                    continue
                return

        async with asyncio.TaskGroup() as tasks:
            for _ in range(12):
                tasks.create_task(count_up())
        final = await store.get(ModelService, ADA, "chat")
        assert final.spec.env == {"N": "12"}
        assert final.metadata.generation == 13

    async def test_one_of_many_creators_wins(self, store: Store) -> None:
        results = await asyncio.gather(*(store.create(model(replicas=n)) for n in range(1, 9)), return_exceptions=True)
        won = [r for r in results if isinstance(r, ModelService)]
        assert len(won) == 1
        assert sum(isinstance(r, AlreadyExists) for r in results) == 7
        assert await store.get(ModelService, ADA, "chat") == won[0]


class _Applying:
    async def test_apply_creates(self, store: Store) -> None:
        applied = await store.apply(model(labels={"a": "1"}))
        assert applied.metadata.generation == 1
        assert await store.get(ModelService, ADA, "chat") == applied

    async def test_apply_replaces_spec_whole_and_merges_the_rest(self, store: Store) -> None:
        first = model(labels={"a": "1", "b": "1"}, annotations={"x": "1"}, finalizers=[HOLD])
        first.spec.env = {"GONE": "1"}
        await store.create(first)
        applied = await store.apply(model(replicas=2, labels={"b": "2"}, annotations={"y": "2"}))
        assert applied.spec.env == {}
        assert applied.spec.replicas == 2
        assert applied.metadata.labels == {"a": "1", "b": "2"}
        assert applied.metadata.annotations == {"x": "1", "y": "2"}
        assert applied.metadata.finalizers == [HOLD]

    async def test_apply_to_what_is_being_deleted_is_refused(self, store: Store) -> None:
        await store.create(model(finalizers=[HOLD]))
        await store.delete(ModelService, ADA, "chat")
        with pytest.raises(Conflict, match="being deleted"):
            await store.apply(model(replicas=2))

    async def test_apply_of_what_was_deleted_since_is_refused(self, store: Store) -> None:
        read = await store.create(model())
        await store.delete(ModelService, ADA, "chat")
        with pytest.raises(Conflict):
            await store.apply(read)
        assert (await store.list(ModelService)).items == []

    async def test_concurrent_applies_all_succeed(self, store: Store) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(1, 9):
                tasks.create_task(store.apply(model(replicas=number, labels={f"l{number}": "x"})))
        final = await store.get(ModelService, ADA, "chat")
        assert final.metadata.labels == {f"l{n}": "x" for n in range(1, 9)}


class _Deleting:
    async def test_delete_removes(self, store: Store) -> None:
        created = await store.create(model())
        gone = await store.delete(ModelService, ADA, "chat")
        assert gone.metadata.uid == created.metadata.uid
        with pytest.raises(NotFound):
            await store.get(ModelService, ADA, "chat")
        with pytest.raises(NotFound):
            await store.delete(ModelService, ADA, "chat")

    async def test_delete_of_a_uid_spares_its_successor(self, store: Store) -> None:
        old = await store.create(model())
        await store.delete(ModelService, ADA, "chat", uid=old.metadata.uid)
        new = await store.create(model())
        with pytest.raises(Conflict):
            await store.delete(ModelService, ADA, "chat", uid=old.metadata.uid)
        assert await store.get(ModelService, ADA, "chat") == new

    async def test_finalizers_hold_a_resource(self, store: Store) -> None:
        await store.create(model(finalizers=[HOLD, "llmos.ai/second"]))
        marked = await store.delete(ModelService, ADA, "chat")
        assert marked.metadata.deletion_timestamp is not None
        again = await store.delete(ModelService, ADA, "chat")
        assert again == marked, "a second delete changes nothing"

        marked.metadata.finalizers = ["llmos.ai/second"]
        left = await store.update(marked)
        assert left.metadata.deletion_timestamp == marked.metadata.deletion_timestamp
        left.metadata.finalizers = []
        await store.update(left)
        with pytest.raises(NotFound):
            await store.get(ModelService, ADA, "chat")

    async def test_no_finalizer_is_added_while_deleting(self, store: Store) -> None:
        await store.create(model(finalizers=[HOLD]))
        marked = await store.delete(ModelService, ADA, "chat")
        marked.metadata.finalizers = [HOLD, "llmos.ai/late"]
        with pytest.raises(Invalid, match=r"metadata\.finalizers"):
            await store.update(marked)

    async def test_deletion_cannot_be_taken_back(self, store: Store) -> None:
        await store.create(model(finalizers=[HOLD]))
        marked = await store.delete(ModelService, ADA, "chat")
        deleted_at = marked.metadata.deletion_timestamp
        marked.metadata.deletion_timestamp = None
        marked.metadata.labels = {"a": "1"}
        assert (await store.update(marked)).metadata.deletion_timestamp == deleted_at

    async def test_status_is_written_while_deleting(self, store: Store) -> None:
        await store.create(model(finalizers=[HOLD]))
        marked = await store.delete(ModelService, ADA, "chat")
        marked.status.phase = "Deleting"
        assert (await store.patch_status(marked)).status.phase == "Deleting"

    async def test_without_deletion_finalizers_come_and_go(self, store: Store) -> None:
        resource = await store.create(model(finalizers=[HOLD]))
        resource.metadata.finalizers = []
        resource = await store.update(resource)
        assert resource.metadata.finalizers == []
        assert await store.get(ModelService, ADA, "chat") == resource


class _Listing:
    async def test_list_is_ordered_and_within_its_bounds(self, store: Store) -> None:
        for namespace, name in ((GRACE, "b"), (ADA, "z"), (GRACE, "a"), (ADA, "m")):
            await store.create(model(name, namespace))
        everything = await store.list(ModelService)
        assert [r.key for r in everything.items] == ["user-ada/m", "user-ada/z", "user-grace/a", "user-grace/b"]
        assert [r.key for r in (await store.list(ModelService, GRACE)).items] == ["user-grace/a", "user-grace/b"]
        assert (await store.list(ModelService, "user-nobody")).items == []
        assert (await store.list(Setting)).items == []

    async def test_list_selects_by_labels(self, store: Store) -> None:
        await store.create(model("a", labels={"team": "blue", "tier": "1"}))
        await store.create(model("b", labels={"team": "blue"}))
        await store.create(model("c"))
        found = await store.list(ModelService, labels={"team": "blue"})
        assert [r.metadata.name for r in found.items] == ["a", "b"]
        found = await store.list(ModelService, ADA, labels={"team": "blue", "tier": "1"})
        assert [r.metadata.name for r in found.items] == ["a"]
        assert (await store.list(ModelService, labels={"team": "red"})).items == []

    async def test_list_and_watch_leave_no_hole(self, store: Store) -> None:
        async def write() -> None:
            for number in range(30):
                await store.create(model(f"m{number:02}"))

        writer = asyncio.create_task(write())
        names: list[str] = []
        while len(names) < 5:
            listing = await store.list(ModelService)
            names = [r.metadata.name for r in listing.items]
        async with store.watch(ModelService, resource_version=listing.resource_version) as events:
            while len(names) < 30:
                event = await next_change(events)
                assert event.type == ADDED
                assert event.resource is not None
                names.append(event.resource.metadata.name)
        await writer
        assert names == [f"m{n:02}" for n in range(30)]


class _Paging:
    async def _pages(self, store: Store, limit: int, **query: Any) -> list[Page[ModelService]]:
        pages = [await store.page(ModelService, limit=limit, **query)]
        while pages[-1].token:
            assert len(pages) < 1000, "there is no end of pages"
            pages.append(await store.page(ModelService, limit=limit, token=pages[-1].token, **query))
        return pages

    async def test_pages_are_the_list_in_pieces(self, store: Store) -> None:
        for number in range(7):
            await store.create(model(f"m{number}", GRACE if number % 3 else ADA))
        whole = await store.list(ModelService)
        for limit in (1, 2, 3, 7, 100):
            pages = await self._pages(store, limit)
            assert [r for page in pages for r in page.items] == whole.items
            assert {page.resource_version for page in pages} == {pages[0].resource_version}
            assert all(len(page.items) <= limit for page in pages)
        of_ada = await self._pages(store, 2, namespace=ADA)
        assert [r.metadata.name for page in of_ada for r in page.items] == ["m0", "m3", "m6"]
        assert [len(page.items) for page in await self._pages(store, 5, namespace="user-nobody")] == [0]

    async def test_pages_by_labels(self, store: Store) -> None:
        for number in range(6):
            await store.create(model(f"m{number}", labels={"half": str(number % 2)}))
        pages = await self._pages(store, 2, labels={"half": "1"})
        assert [r.metadata.name for page in pages for r in page.items] == ["m1", "m3", "m5"]

    async def test_a_watch_from_a_page_misses_nothing_that_came_between(self, store: Store) -> None:
        for number in range(4):
            await store.create(model(f"m{number}"))
        first = await store.page(ModelService, limit=2)
        await store.delete(ModelService, ADA, "m0")
        await store.delete(ModelService, ADA, "m3")
        await store.create(model("m9"))
        pages = [first]
        while pages[-1].token:
            pages.append(await store.page(ModelService, limit=10, token=pages[-1].token))
        assert {page.resource_version for page in pages} == {first.resource_version}
        known = {r.metadata.name for page in pages for r in page.items}
        async with store.watch(ModelService, resource_version=first.resource_version) as events:
            for _ in range(3):
                event = await next_change(events)
                assert event.resource is not None
                name = event.resource.metadata.name
                known = known - {name} if event.type == DELETED else known | {name}
        assert known == {"m1", "m2", "m9"}

    @pytest.mark.parametrize("token", ["x", "Ä", "bm9uc2Vuc2U", "WzEsMiwzXQ", "x" * 5000])
    async def test_what_is_no_token_is_refused(self, store: Store, token: str) -> None:
        await store.create(model())
        with pytest.raises(BadRequest):
            await store.page(ModelService, limit=1, token=token)


class Quotas:
    """Limits of the resources in a namespace."""

    async def test_a_full_namespace_takes_no_more(self, store: Store) -> None:
        quota = NamespaceQuota(2, 1_000_000, "Ask ada.")
        await store.create(model("one"), quota=quota)
        await store.apply(model("two"), quota=quota)
        for write in (store.create, store.apply):
            with pytest.raises(Insufficient, match=r"user-ada holds 2 modelservices already, and 2 are.* Ask ada\."):
                await write(model("three"), quota=quota)
        changed = await store.apply(model("one", replicas=2, annotations={"longer": "x" * 100}), quota=quota)
        assert changed.spec.replicas == 2
        await store.create(model("three", GRACE), quota=quota)
        await store.delete(ModelService, ADA, "two")
        await store.create(model("three"), quota=quota)

    async def test_bytes_are_bounded_and_what_shrinks_is_welcome(self, store: Store) -> None:
        quota = NamespaceQuota(100, 40_000)
        for name in ("one", "two", "three"):
            await store.create(model(name, annotations={"a": "x" * 10_000}), quota=quota)
        with pytest.raises(Insufficient, match=r"3 modelservices of together \d+ bytes already, and 40000 bytes"):
            await store.create(model("four", annotations={"a": "x" * 10_000}), quota=quota)
        one = await store.get(ModelService, ADA, "one")
        one.metadata.annotations = {"a": "x" * 25_000}
        for write in (store.update, store.apply):
            with pytest.raises(Insufficient):
                await write(one, quota=quota)
        tight = NamespaceQuota(1, 1_000)
        one.metadata.annotations = {"a": "x" * 9_000}
        one = await store.update(one, quota=tight)
        one.metadata.annotations = {"a": "x" * 9_500}
        await store.update(one)  # the platform's own writes have no quota
        await store.create(model("four"), quota=quota)


class Claims:
    """Names that only one resource of a kind in a namespace can have."""

    async def test_a_name_of_another_is_refused_and_its_field_named(self, store: Store) -> None:
        await store.create(model("one", aliases=["a", "b"]))
        for write in (store.create, store.apply):
            with pytest.raises(AlreadyExists, match=r'metadata\.name: "a" is a name of one already') as error:
                await write(model("a", aliases=["free", "one"]))
            assert [cause.field for cause in error.value.causes] == ["metadata.name", "spec.aliases[1]"]
        two = await store.create(model("two", aliases=["c"]))
        two.spec.aliases = ["c", "b"]
        for write in (store.update, store.apply):
            with pytest.raises(AlreadyExists, match=r'spec\.aliases\[1\]: "b" is a name of one'):
                await write(two)
        assert (await store.get(ModelService, ADA, "two")).spec.aliases == ["c"]
        await store.create(model("a", GRACE, aliases=["b"]))

    async def test_a_name_that_is_given_up_is_free(self, store: Store) -> None:
        one = await store.create(model("one", aliases=["a", "b"]))
        one.spec.aliases = ["b", "c"]
        one = await store.update(one)
        await store.create(model("two", aliases=["a"]))
        with pytest.raises(AlreadyExists):
            await store.create(model("three", aliases=["c"]))
        await store.delete(ModelService, ADA, "one")
        await store.create(model("three", aliases=["one", "b", "c"]))
        await store.apply(model("two", aliases=[]))
        await store.apply(model("three", aliases=["a"]))

    async def test_it_is_held_until_the_last_finalizer_is_removed(self, store: Store) -> None:
        await store.create(model("one", aliases=["a"], finalizers=[HOLD]))
        one = await store.delete(ModelService, ADA, "one")
        with pytest.raises(AlreadyExists):
            await store.create(model("a"))
        one.metadata.finalizers = []
        await store.update(one)
        await store.create(model("a", aliases=["one"]))

    async def test_of_concurrent_writes_one_has_the_name(self, store: Store) -> None:
        for number in range(10):
            writes = [store.create(model(f"m{number}-{n}", aliases=[f"shared{number}"])) for n in range(4)]
            done = await asyncio.gather(*writes, return_exceptions=True)
            assert sorted(type(result).__name__ for result in done) == ["AlreadyExists"] * 3 + ["ModelService"]


class _Watching:
    async def test_watch_tells_every_change_in_order(self, store: Store) -> None:
        start = (await store.list(ModelService)).resource_version
        created = await store.create(model())
        created.spec.replicas = 2
        updated = await store.update(created)
        ready = updated.model_copy(deep=True)
        ready.status.phase = "Ready"
        patched = await store.patch_status(ready)
        await store.delete(ModelService, ADA, "chat")
        async with store.watch(ModelService, resource_version=start) as events:
            seen = [await next_change(events) for _ in range(4)]
        assert [e.type for e in seen] == [ADDED, MODIFIED, MODIFIED, DELETED]
        assert seen[1].resource == updated
        assert seen[2].resource == patched
        last = seen[3].resource
        assert last is not None
        assert (last.spec, last.status) == (patched.spec, patched.status)
        versions = [int(e.resource_version) for e in seen]
        assert versions == sorted(set(versions))
        assert [e.resource and e.resource.metadata.resource_version for e in seen] == [e.resource_version for e in seen]

    async def test_watch_goes_on_where_another_ended(self, store: Store) -> None:
        start = (await store.list(ModelService)).resource_version
        for name in ("a", "b", "c"):
            await store.create(model(name))
        async with store.watch(ModelService, resource_version=start) as events:
            first = await next_change(events)
        async with store.watch(ModelService, resource_version=first.resource_version) as events:
            assert await follow(events, 2) == [(ADDED, "b"), (ADDED, "c")]

    async def test_watch_sees_what_comes_while_it_waits(self, store: Store) -> None:
        start = (await store.list(ModelService)).resource_version
        settings = (await store.list(Setting)).resource_version
        async with (
            store.watch(ModelService, resource_version=start) as events,
            store.watch(Setting, resource_version=settings) as others,
        ):
            waiting = asyncio.create_task(next_change(events))
            await store.create(setting("another-kind"))
            assert (await next_change(others)).type == ADDED
            assert not waiting.done()
            await store.create(model())
            assert (await waiting).type == ADDED

    async def test_a_cancelled_wait_loses_nothing(self, store: Store) -> None:
        start = (await store.list(ModelService)).resource_version
        async with store.watch(ModelService, resource_version=start) as events:
            for number in range(5):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(events), 0.01)
                await store.create(model(f"m{number}"))
                assert await follow(events, 1) == [(ADDED, f"m{number}")]

    async def test_watch_stays_within_kind_and_namespace(self, store: Store) -> None:
        models = (await store.list(ModelService)).resource_version
        settings = (await store.list(Setting)).resource_version
        async with (
            store.watch(ModelService, ADA, resource_version=models) as of_ada,
            store.watch(Setting, resource_version=settings) as of_settings,
        ):
            await store.create(model("g", GRACE))
            await store.create(setting())
            await store.create(model("a", ADA))
            assert await follow(of_ada, 1) == [(ADDED, "a")]
            assert await follow(of_settings, 1) == [(ADDED, "banner")]

    async def test_watch_by_labels_tells_who_enters_and_leaves(self, store: Store) -> None:
        start = (await store.list(ModelService)).resource_version
        async with store.watch(ModelService, resource_version=start, labels={"team": "blue"}) as events:
            other = await store.create(model("other"))
            inside = await store.create(model("inside", labels={"team": "blue"}))
            inside.spec.replicas = 2
            inside = await store.update(inside)
            inside.metadata.labels = {"team": "red"}
            inside = await store.update(inside)
            inside.spec.replicas = 3
            await store.update(inside)
            await store.apply(model("other", labels={"team": "blue"}))
            await store.delete(ModelService, ADA, "inside")
            await store.delete(ModelService, ADA, "other")
            assert await follow(events, 5) == [
                (ADDED, "inside"),
                (MODIFIED, "inside"),
                (DELETED, "inside"),
                (ADDED, "other"),
                (DELETED, "other"),
            ]
        assert other.metadata.uid

    async def test_many_watches_see_the_same(self, store: Store) -> None:
        start = (await store.list(ModelService)).resource_version

        async def names() -> list[tuple[str, str]]:
            async with store.watch(ModelService, resource_version=start) as events:
                return await follow(events, 20)

        watching = [asyncio.create_task(names()) for _ in range(20)]
        for number in range(20):
            await store.create(model(f"m{number}"))
        expected = [(ADDED, f"m{n}") for n in range(20)]
        for seen in await asyncio.gather(*watching):
            assert seen == expected

    async def test_deletion_with_finalizers_is_told_as_change_and_removal(self, store: Store) -> None:
        created = await store.create(model(finalizers=[HOLD]))
        async with store.watch(ModelService, resource_version=str(created.metadata.resource_version)) as events:
            marked = await store.delete(ModelService, ADA, "chat")
            told = await next_change(events)
            assert (told.type, told.resource) == (MODIFIED, marked)
            marked.metadata.finalizers = []
            await store.update(marked)
            assert (await next_change(events)).type == DELETED


class _Recording:
    async def test_events_are_kept_in_order_and_counted(self, store: Store) -> None:
        resource = await store.create(model())
        await store.record(resource, "Normal", "Started", "Replica 1 started.")
        for _ in range(3):
            await store.record(resource, "Warning", "Crashed", 'Replica 1 crashed: ä "quoted" {}')
        await store.record(resource, "Normal", "Started", "Replica 1 started.")
        events = await store.events(ModelService, ADA, "chat")
        assert [(e.type, e.reason, e.count) for e in events] == [
            ("Normal", "Started", 1),
            ("Warning", "Crashed", 3),
            ("Normal", "Started", 1),
        ]
        assert events[1].message == 'Replica 1 crashed: ä "quoted" {}'
        assert events[1].first <= events[1].last <= events[2].first

    async def test_the_newest_hundred_events_are_kept(self, store: Store) -> None:
        resource = await store.create(model())
        for number in range(105):
            await store.record(resource, "Normal", "Step", f"step {number}")
        events = await store.events(ModelService, ADA, "chat")
        assert [e.message for e in events] == [f"step {n}" for n in range(5, 105)]

    async def test_events_go_with_their_resource(self, store: Store) -> None:
        old = await store.create(model())
        await store.record(old, "Normal", "Started", "hello")
        await store.delete(ModelService, ADA, "chat")
        assert await store.events(ModelService, ADA, "chat") == []
        await store.create(model())
        await store.record(old, "Warning", "Late", "from before")
        assert await store.events(ModelService, ADA, "chat") == []

    async def test_events_change_no_resource_version(self, store: Store) -> None:
        created = await store.create(model())
        await store.record(created, "Normal", "Started", "hello")
        assert await store.get(ModelService, ADA, "chat") == created

    async def test_healthy(self, store: Store) -> None:
        assert await store.healthy()


class StoreContract(
    _Creating, _Updating, _Applying, _Deleting, _Listing, _Paging, Quotas, Claims, _Watching, _Recording
):
    """The complete suite; see the module's docstring."""
