"""A controller on a real store: every change is reconciled, also after failures of the database."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from llmos.errors import Conflict, Expired, Unavailable
from llmos.resources import Credential, ModelService
from llmos_hub.controllers.metrics import ProcessMetrics
from llmos_hub.controllers.reconciler import Controller, Queueing, Reference, Result, resource_controller
from llmos_hub.stores import follower, open_store
from llmos_hub.stores.base import Store
from llmos_hub.stores.informer import Key
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually

NAMESPACE = "user-ada"
Look = Callable[[ModelService], Awaitable[Result[ModelService]]]


def service(name: str, **spec: Any) -> ModelService:
    return ModelService.parse(
        {
            "kind": "ModelService",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"model": "demo://tiny", **spec},
        }
    )


class Recording:
    """A reconciler that records its calls, and acts as a test says."""

    kind = ModelService

    def __init__(self, look: Look | None = None) -> None:
        self.seen: list[ModelService] = []
        self.lost: list[Key] = []
        self.look = look
        self._changed = asyncio.Event()

    async def reconcile(self, resource: ModelService) -> Result[ModelService]:
        self.seen.append(resource)
        self._changed.set()
        return await self.look(resource) if self.look else Result()

    async def gone(self, key: Key) -> None:
        self.lost.append(key)
        self._changed.set()

    async def until(self, holds: Callable[[], bool], timeout: float = 30.0) -> None:
        async with asyncio.timeout(timeout):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    def names(self) -> list[str]:
        return [resource.metadata.name for resource in self.seen]


class Interfering:
    """A store with faults on demand in front of a real one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.watch_errors: list[Exception] = []
        self.list_errors: list[Exception] = []
        self.lists = 0
        self.watches = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def list(self, *args: Any, **kwargs: Any) -> Any:
        self.lists += 1
        if self.list_errors:
            raise self.list_errors.pop(0)
        return await self._store.list(*args, **kwargs)

    @asynccontextmanager
    async def watch(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.watches += 1
        if self.watch_errors:
            raise self.watch_errors.pop(0)
        async with self._store.watch(*args, **kwargs) as events:
            yield events


async def run(controller: Controller[Any]) -> None:
    """Watch and reconcile until cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(controller.follow())
        group.create_task(controller.work())


@asynccontextmanager
async def running(controller: Controller[Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(run(controller))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_what_is_there_and_what_comes_changes_and_goes_is_looked_at(store: Store) -> None:
    await store.create(service("first"))
    reconciler = Recording()
    async with running(resource_controller(store, reconciler)):
        await reconciler.until(lambda: reconciler.names() == ["first"])
        second = await store.create(service("second"))
        await reconciler.until(lambda: reconciler.names() == ["first", "second"])
        spec = second.spec.model_copy(update={"replicas": 3})
        await store.update(second.model_copy(update={"spec": spec}))
        await reconciler.until(lambda: len(reconciler.seen) == 3)
        assert reconciler.seen[-1].spec.replicas == 3
        await store.delete(ModelService, NAMESPACE, "second")
        await reconciler.until(lambda: reconciler.lost == [(NAMESPACE, "second")])


async def test_its_own_writes_are_not_looked_at_again_and_what_others_write_is(store: Store) -> None:
    async def count(resource: ModelService) -> Result[ModelService]:
        status = resource.status.model_copy(update={"replicas": resource.status.replicas + 1})
        return Result(resource=await store.patch_status(resource.model_copy(update={"status": status})))

    reconciler = Recording(count)
    controller = resource_controller(store, reconciler)
    async with running(controller):
        await store.create(service("chat"))
        await reconciler.until(lambda: len(reconciler.seen) == 1)
        await store.create(service("other"))  # by the time this is seen, the write above has come by
        await reconciler.until(lambda: "other" in reconciler.names())
        await eventually(lambda: controller.queue.idle)
        assert reconciler.names().count("chat") == 1
        there = await store.get(ModelService, NAMESPACE, "chat")
        assert there.status.replicas == 1
        await store.update(there.model_copy(update={"spec": there.spec.model_copy(update={"replicas": 2})}))
        await reconciler.until(lambda: reconciler.names().count("chat") == 2)
        assert reconciler.seen[-1].status.replicas == 1, "it has its own status before its eyes"


async def test_a_slow_write_does_not_hide_what_the_watch_brought_meanwhile(store: Store) -> None:
    """The write's answer comes after the watch has brought a later change of somebody else."""

    async def write_and_dawdle(resource: ModelService) -> Result[ModelService]:
        if len(reconciler.seen) > 1:
            return Result()
        status = resource.status.model_copy(update={"replicas": 1})
        written = await store.patch_status(resource.model_copy(update={"status": status}))
        spec = written.spec.model_copy(update={"replicas": 3})
        await store.update(written.model_copy(update={"spec": spec}))

        def has_come() -> bool:
            known = controller.informer.get((NAMESPACE, "chat"))
            return known is not None and known.spec.replicas == 3

        await eventually(has_come)
        return Result(resource=written)

    reconciler = Recording(write_and_dawdle)
    controller = resource_controller(store, reconciler)
    async with running(controller):
        await store.create(service("chat"))
        await reconciler.until(lambda: len(reconciler.seen) == 2)
        assert reconciler.seen[-1].spec.replicas == 3


def errors_of(metrics: ProcessMetrics) -> dict[str, float]:
    """Return the number of failed reconciles by the error's code."""
    samples = [sample for family in metrics.registry.collect() for sample in family.samples]
    return {s.labels["code"]: s.value for s in samples if s.name == "llmos_reconcile_errors_total"}


async def test_a_failed_look_is_repeated_until_it_goes_well(store: Store) -> None:
    failures: list[Exception] = [
        Conflict("Somebody else was faster."),
        RuntimeError("a mistake of ours"),
        Unavailable("The database does not answer."),
    ]
    metrics = ProcessMetrics()

    async def fail(resource: ModelService) -> Result[ModelService]:
        if failures:
            raise failures.pop(0)
        return Result()

    reconciler = Recording(fail)
    controller = resource_controller(store, reconciler, queueing=Queueing(metrics.of("ModelService")))
    async with running(controller):
        await store.create(service("chat"))
        await reconciler.until(lambda: len(reconciler.seen) == 4)
        await eventually(lambda: controller.queue.idle)
        assert errors_of(metrics) == {"conflict": 1, "internal": 1, "unavailable": 1}
        assert controller.queue.failures((NAMESPACE, "chat")) == 0


async def test_it_comes_back_when_the_reconciler_says_so(store: Store) -> None:
    looks: list[float] = []

    async def soon(resource: ModelService) -> Result[ModelService]:
        looks.append(asyncio.get_running_loop().time())
        return Result(requeue_after=0.05 if len(looks) < 3 else None)

    reconciler = Recording(soon)
    controller = resource_controller(store, reconciler)
    async with running(controller):
        await store.create(service("chat"))
        await reconciler.until(lambda: len(reconciler.seen) == 3)
        assert all(later - earlier >= 0.05 for earlier, later in itertools.pairwise(looks)), "before its time"
        assert set(reconciler.names()) == {"chat"}
        await eventually(lambda: controller.queue.idle)
        assert controller.queue.delayed == 0, "it comes back only as often as it was told to"


async def test_everything_is_looked_at_at_every_resync(store: Store) -> None:
    await store.create(service("chat"))
    reconciler = Recording()
    began = asyncio.get_running_loop().time()
    async with running(resource_controller(store, reconciler, queueing=Queueing(resync=0.1))):
        await reconciler.until(lambda: reconciler.names() == ["chat"] * 3)  # one is the first, by the list
        assert asyncio.get_running_loop().time() - began >= 0.2, "before its time"


async def test_an_expired_watch_lists_again_and_misses_nothing(store: Store) -> None:
    interfering = Interfering(store)
    gone = await store.create(service("gone"))
    reconciler = Recording()
    controller = resource_controller(interfering, reconciler)
    interfering.watch_errors.append(Expired("Those changes are not known any more."))

    original = interfering.list

    async def list_and_then_change(*args: Any, **kwargs: Any) -> Any:
        listing = await original(*args, **kwargs)
        if interfering.lists == 1:  # behind the back of the watch that is about to fail
            await store.delete(ModelService, NAMESPACE, gone.metadata.name)
            await store.create(service("new"))
        return listing

    interfering.list = list_and_then_change  # type: ignore[method-assign]
    async with running(controller):
        await reconciler.until(lambda: "new" in reconciler.names() and reconciler.lost == [(NAMESPACE, "gone")])
        assert interfering.lists == 2
        await store.create(service("later"))
        await reconciler.until(lambda: "later" in reconciler.names())


async def test_a_watch_that_always_expires_is_not_followed_without_a_pause(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    paused = asyncio.Event()

    def delay(failures: int, longest: float) -> float:
        """Return short pauses, and then one without end."""
        assert real(failures, longest) > 0
        asked.append(failures)
        if failures < 4:
            return 0.001
        paused.set()
        return 1e6

    real = follower._delay
    monkeypatch.setattr(follower, "_delay", delay)
    interfering = Interfering(store)
    interfering.watch_errors = [Expired("Never known.") for _ in range(1000)]
    async with running(resource_controller(interfering, Recording())):
        await paused.wait()
        assert (interfering.lists, interfering.watches) == (5, 5)
    assert asked == [1, 2, 3, 4], "only the first list is followed by another at once"


async def test_nothing_is_called_gone_before_everything_was_listed(store: Store) -> None:
    interfering = Interfering(store)
    interfering.list_errors = [Unavailable("The database is loading."), Unavailable("Still.")]
    await store.create(service("there"))
    reconciler = Recording()
    controller = resource_controller(interfering, reconciler)
    async with running(controller):
        controller.enqueue((NAMESPACE, "there"))
        controller.enqueue((NAMESPACE, "nowhere"))
        await reconciler.until(lambda: bool(reconciler.seen and reconciler.lost))
        assert interfering.lists == 3
        assert reconciler.names() == ["there"]
        assert reconciler.lost == [(NAMESPACE, "nowhere")]


async def test_the_database_is_killed_and_comes_back(valkey_factory: ValkeyServer, encryption_key: str) -> None:
    store = open_store(valkey_factory.url, encryption_key)
    reconciler = Recording()
    controller = resource_controller(store, reconciler)
    try:
        await store.create(service("before"))
        async with running(controller):
            await reconciler.until(lambda: reconciler.names() == ["before"])
            await asyncio.to_thread(valkey_factory.restart)
            await store.create(service("after"))
            await reconciler.until(lambda: "after" in reconciler.names())
            assert controller.connected
            assert reconciler.lost == []
    finally:
        await store.close()


async def test_another_kind_brings_those_it_concerns(store: Store) -> None:
    reconciler = Recording()

    def credentials(service: ModelService) -> list[str]:
        return [service.spec.credential_ref] if service.spec.credential_ref else []

    controller = resource_controller(store, reconciler, references=[Reference(Credential, credentials)])
    async with running(controller):
        await store.create(service("gated", credentialRef="hf"))
        await store.create(service("open"))
        await reconciler.until(lambda: len(reconciler.seen) == 2)
        secret = {"metadata": {"name": "hf", "namespace": NAMESPACE}, "spec": {"data": {"HF_TOKEN": "hf_secret"}}}
        await store.create(Credential.parse(secret))
        await reconciler.until(lambda: reconciler.names().count("gated") == 2)
        assert reconciler.names().count("open") == 1


async def test_at_the_end_what_is_under_way_is_finished(store: Store) -> None:
    begun, release = asyncio.Event(), asyncio.Event()
    finished: list[tuple[str, bool]] = []

    async def slow(resource: ModelService) -> Result[ModelService]:
        begun.set()
        await release.wait()
        finished.append((resource.metadata.name, task.done()))
        return Result()

    controller = resource_controller(store, Recording(slow))
    task = asyncio.create_task(run(controller))
    await store.create(service("chat"))
    await begun.wait()
    task.cancel()
    await eventually(lambda: controller.queue._closed)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished == [("chat", False)]


async def test_one_resource_is_never_with_two_workers_and_several_are_at_once(store: Store) -> None:
    busy: set[str] = set()
    together = asyncio.Event()

    async def check(resource: ModelService) -> Result[ModelService]:
        assert resource.metadata.name not in busy
        busy.add(resource.metadata.name)
        if len(busy) == 3:
            together.set()
        async with asyncio.timeout(30):
            await together.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        busy.remove(resource.metadata.name)
        return Result()

    metrics = ProcessMetrics()
    reconciler = Recording(check)
    controller = resource_controller(store, reconciler, queueing=Queueing(metrics.of("ModelService"), workers=3))
    async with running(controller):
        for name in ("a", "b", "c"):
            await store.create(service(name))
        await together.wait()
        for _ in range(100):
            for name in ("a", "b", "c"):
                controller.enqueue((NAMESPACE, name))
            await asyncio.sleep(0)
        await eventually(lambda: controller.queue.idle)
    assert all(reconciler.names().count(name) >= 3 for name in ("a", "b", "c"))
    assert errors_of(metrics) == {}
