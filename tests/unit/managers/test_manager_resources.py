"""The resource manager: concurrent writes, and removal of secrets from results."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from llmos.errors import AlreadyExists, Conflict, Forbidden, Insufficient, Invalid, NotFound, Unavailable
from llmos.resources import Credential, ModelService, ObjectMeta, Setting
from llmos.resources.credential import CredentialSpec
from llmos.resources.modelservice import ModelServiceSpec
from llmos.resources.setting import SettingSpec
from llmos_hub.managers.kind_rules import KindRules
from llmos_hub.managers.resources import ResourceManager
from llmos_hub.managers.settings import DEFINITIONS, MAX_RESOURCES, MAX_STREAMS, PlatformSettings
from llmos_hub.stores import open_store
from llmos_hub.stores.base import Store
from llmos_hub.stores.locks import KeyedLocks


def service(name: str = "chat", **spec: Any) -> ModelService:
    return ModelService(
        metadata=ObjectMeta(name=name, namespace="user-ada"), spec=ModelServiceSpec(model="demo://tiny", **spec)
    )


@pytest.fixture
def manager(store: Store) -> ResourceManager:
    return ResourceManager(store, PlatformSettings(store, {}, remembered_for=0))


async def test_a_change_that_was_overtaken_is_made_anew(
    store: Store, manager: ResourceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.create(service())
    update, overtaken = store.update, 0

    async def overtake(resource: ModelService, **more: Any) -> ModelService:
        nonlocal overtaken
        if overtaken < 3:
            overtaken += 1
            other = await store.get(ModelService, "user-ada", "chat")
            other.metadata.annotations[f"n{overtaken}"] = "x"
            await update(other)
        return await update(resource, **more)

    monkeypatch.setattr(store, "update", overtake)
    patched = await manager.merge(ModelService, "user-ada", "chat", {"spec": {"replicas": 4}})
    assert patched.spec.replicas == 4
    assert set(patched.metadata.annotations) == {"n1", "n2", "n3"}


@pytest.mark.parametrize("args", [["my-server"], ["my-server", "{port}", "{socket}"]])
async def test_a_command_that_does_not_say_where_it_listens_is_refused_at_once(
    store: Store, manager: ResourceManager, args: list[str]
) -> None:
    wrong = service(engine="custom", args=args)
    with pytest.raises(Invalid, match=r"spec\.args: .*\{port\}"):
        await manager.create(wrong)
    await manager.create(service(engine="custom", args=["my-server", "--port", "{port}"]))
    with pytest.raises(Invalid, match=r"spec\.args"):
        await manager.merge(ModelService, "user-ada", "chat", {"spec": {"args": args}})
    # a resource stored before the check can still be changed otherwise, stopped and deleted
    await store.create(wrong.model_copy(update={"metadata": ObjectMeta(name="old", namespace="user-ada")}))
    assert (await manager.merge(ModelService, "user-ada", "old", {"spec": {"paused": True}})).spec.paused


async def test_a_change_that_is_always_overtaken_gives_up(
    store: Store, manager: ResourceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    await manager.create(service())
    tries = 0

    async def always(resource: ModelService, **_: Any) -> ModelService:
        nonlocal tries
        tries += 1
        raise Conflict("changed since")

    monkeypatch.setattr(store, "update", always)
    with pytest.raises(Conflict):
        await manager.merge(ModelService, "user-ada", "chat", {"spec": {"replicas": 4}})
    assert tries == 5
    with pytest.raises(Conflict):
        await manager.merge(
            ModelService,
            "user-ada",
            "chat",
            {
                "metadata": {
                    "resourceVersion": (await manager.get(ModelService, "user-ada", "chat")).metadata.resource_version
                }
            },
        )
    assert tries == 6


async def test_a_controllers_finalizer_survives_a_users_update(store: Store, manager: ResourceManager) -> None:
    made = await manager.create(service())
    stored = await store.get(ModelService, "user-ada", "chat")
    stored.metadata.finalizers.append("llmos.ai/volumes")
    await store.update(stored)
    changed = service(replicas=2)
    changed.metadata.finalizers = []
    assert (await manager.update(changed)).metadata.finalizers == [*made.metadata.finalizers, "llmos.ai/volumes"]


async def test_what_leaves_has_no_secrets(store: Store, manager: ResourceManager) -> None:
    credential = Credential(
        metadata=ObjectMeta(name="hub", namespace="user-ada"), spec=CredentialSpec(data={"A": "secret"})
    )
    shown = [
        await manager.create(credential),
        await manager.get(Credential, "user-ada", "hub"),
        *(await manager.page(Credential, "user-ada")).items,
        (await manager.apply(credential))[0],
        await manager.update(credential),
    ]
    listing = await manager.page(Credential, None)
    async with manager.watch(Credential, None, resource_version=listing.resource_version) as events:
        await manager.merge(Credential, "user-ada", "hub", {"spec": {"data": {"B": "secret"}}})
        event = await anext(events)
        assert event.resource is not None
        shown.append(event.resource)
    shown.append(await manager.delete(Credential, "user-ada", "hub"))
    assert all(c.spec.data == {} for c in shown)
    assert shown[-1].status.keys == ["A", "B"]


async def test_two_namespaces_do_not_wait_for_each_other() -> None:
    locks = KeyedLocks()
    async with locks.holding("a"):
        async with asyncio.timeout(30), locks.holding("b"):
            pass
        waiting = asyncio.create_task(locks.holding("a").__aenter__())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
    assert len(locks._locks) == 1


async def test_of_two_processes_one_has_the_name(redis_url: str, encryption_key: str) -> None:
    stores = [open_store(redis_url, encryption_key) for _ in range(2)]
    managers = [ResourceManager(store, PlatformSettings(store, {})) for store in stores]
    for number in range(50):
        writes = [m.create(service(f"m{number}-{n}", aliases=[f"a{number}"])) for n, m in enumerate(managers)]
        done = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(result) for result in done} == {ModelService, AlreadyExists}
    for store in stores:
        await store.close()


@pytest.mark.parametrize("how", ["apply", "update"])
async def test_what_is_stored_was_permitted_and_admitted_whatever_another_process_writes(
    store: Store, manager: ResourceManager, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A shared cache may stay if an admin set it, but not come back after an admin took it out."""
    await store.create(service(prompt_cache="shared"))
    read, overtaken = store.get, False

    async def overtake(kind: type[ModelService], *place: str) -> ModelService:
        nonlocal overtaken
        found = await read(kind, *place)
        if not overtaken:
            overtaken = True
            await store.update(service())
        return found

    monkeypatch.setattr(store, "get", overtake)
    shared = service(prompt_cache="shared", replicas=2)
    with pytest.raises(Forbidden):
        await getattr(manager, how)(shared, permit=manager.restrict)
    assert (await read(ModelService, "user-ada", "chat")).spec.replicas == 1


async def test_applies_at_once_are_one_creation(store: Store) -> None:
    managers = [ResourceManager(store, PlatformSettings(store, {})) for _ in range(3)]
    done = await asyncio.gather(*(m.apply(service(replicas=n)) for n, m in enumerate(managers)))
    assert sorted(created for _, created in done) == [False, False, True]


async def test_a_rule_can_ask_for_other_resources(
    store: Store, manager: ResourceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NeedsItsCredential(KindRules[ModelService]):
        async def admit(self, new: ModelService, old: ModelService | None, reader: Store) -> None:
            try:
                await reader.get(Credential, new.metadata.namespace, new.spec.credential_ref or "")
            except NotFound as error:
                raise Invalid(error.message) from None

    monkeypatch.setitem(manager._rules, ModelService, NeedsItsCredential(manager._settings))
    with pytest.raises(Invalid, match="hub"):
        await manager.create(service(credential_ref="hub"))
    metadata = ObjectMeta(name="hub", namespace="user-ada")
    await store.create(Credential(metadata=metadata, spec=CredentialSpec(data={"A": "x"})))
    await manager.create(service(credential_ref="hub"))


async def test_a_write_reads_no_more_than_its_resource(
    store: Store, manager: ResourceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PlatformSettings(store, {})
    await settings.value(MAX_STREAMS)  # the settings in effect are known for some seconds
    manager = ResourceManager(store, settings)
    calls: list[str] = []

    def counting(name: str) -> Any:
        call = getattr(store, name)

        def counted(*args: Any, **more: Any) -> Any:
            calls.append(name)
            return call(*args, **more)

        return counted

    for name in ("get", "list", "page", "create", "update", "apply"):
        monkeypatch.setattr(store, name, counting(name))

    async def made(call: Awaitable[Any]) -> list[str]:
        calls.clear()
        await call
        return calls.copy()

    assert await made(manager.create(service(aliases=["a"]))) == ["create"]
    assert await made(manager.update(service(aliases=["b"]))) == ["get", "update"]
    assert await made(manager.merge(ModelService, "user-ada", "chat", {"spec": {"replicas": 9}})) == ["get", "update"]
    assert await made(manager.apply(service(aliases=["c"]))) == ["get", "apply"]
    assert await made(manager.apply(service("new"))) == ["get", "create"]


async def test_names_are_checked_over_all_that_is_there(manager: ResourceManager) -> None:
    await manager.create(service("one", aliases=["a", "b"]))
    with pytest.raises(AlreadyExists, match=r'metadata\.name: "a" is a name of one already'):
        await manager.create(service("a"))
    with pytest.raises(AlreadyExists):
        await manager.apply(service("two", aliases=["b"]))
    with pytest.raises(AlreadyExists):
        await manager.create(service("two", served_model_name="b"), dry_run=True)
    # its own names don't conflict
    assert (await manager.update(service("one", aliases=["b", "c"]))).spec.aliases == ["b", "c"]


async def test_every_setting_can_be_read_and_explains_itself(manager: ResourceManager, store: Store) -> None:
    settings = PlatformSettings(store, {})
    for definition in DEFINITIONS.values():
        assert await settings.value(definition) == definition.parse(str(definition.default)) == definition.default
        assert len(definition.description) > 60
        shown = await manager.get(Setting, None, definition.name)
        assert definition.variable in shown.status.description


async def test_a_setting_counts_and_the_last_one_known_counts_without_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PlatformSettings(store, {}, remembered_for=0)
    manager = ResourceManager(store, settings)
    await manager.apply(Setting(metadata=ObjectMeta(name=MAX_STREAMS.name), spec=SettingSpec(value="7")))
    assert await settings.value(MAX_STREAMS) == 7

    async def away(*args: object, **kwargs: object) -> None:
        raise Unavailable("gone")

    monkeypatch.setattr(store, "list", away)
    assert await settings.value(MAX_STREAMS) == 7


async def test_the_limit_is_told(manager: ResourceManager, store: Store) -> None:
    limited = ResourceManager(store, PlatformSettings(store, {MAX_RESOURCES.variable: "1"}, remembered_for=0))
    await limited.create(service())
    with pytest.raises(Insufficient, match="1 are allowed"):
        await limited.create(service("more"))
    with pytest.raises(Insufficient):
        await limited.apply(service("more"))
    assert (await limited.apply(service()))[1] is False


async def test_names_made_to_be_compared_slowly_hold_nobody_up(manager: ResourceManager, store: Store) -> None:
    shuffled = random.Random(7)

    def name() -> str:
        return "".join(shuffled.sample("ab" * 31, 62))

    for _ in range(400):
        await store.create(service(name()))
    wanted = name()
    began = time.process_time()
    with pytest.raises(NotFound):
        await manager.get(ModelService, "user-ada", wanted)
    assert time.process_time() - began < 0.2
