"""The controllers' process with real parts: Valkey, local processes, a model, llama.cpp."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.errors import NotFound
from llmos.resources import ModelService
from llmos_hub.names import ENV_DATA_DIR, ENV_INSTANCE, ENV_REDIS_URL
from llmos_hub.processes.handle import ProcessHandle, processes_with_environment
from llmos_hub.stores import open_store
from llmos_hub.stores.base import Store
from tests.support.valkey import ValkeyServer
from tests.support.waiting import PATIENCE, eventually

NAMESPACE = "user-ada"
WAIT = 60.0


class Platform:
    """A store, and a controllers process that a test can kill and start."""

    def __init__(self, store: Store, redis_url: str, encryption_key: str, directory: Path) -> None:
        self.store = store
        self.directory = directory
        self.instance = uuid.uuid4().hex
        self.environment = {
            **os.environ,
            ENV_DATA_DIR: str(directory),
            ENV_REDIS_URL: redis_url,
            ENV_INSTANCE: self.instance,
            "LLMOS_ENCRYPTION_KEY": encryption_key,
        }
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, **environment: str) -> None:
        with (self.directory / "controllers.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "llmos_hub.app",
                "controllers",
                env={**self.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)

    async def create(self, name: str, **spec: Any) -> ModelService:
        manifest = {
            "kind": "ModelService",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {"model": "demo://tiny", "resources": {"cpu": "1"}, **spec},
        }
        return await self.store.create(ModelService.parse(manifest))

    async def change(self, name: str, **spec: Any) -> None:
        there = await self.store.get(ModelService, NAMESPACE, name)
        await self.store.update(there.model_copy(update={"spec": there.spec.model_copy(update=spec)}))

    async def until(self, name: str, holds: Callable[[ModelService], bool]) -> ModelService:
        """Wait for a status; fail with the current one if it doesn't come."""
        last: ModelService | None = None
        try:
            async with asyncio.timeout(WAIT):
                listing = await self.store.list(ModelService, NAMESPACE)
                for last in listing.items:
                    if last.metadata.name == name and holds(last):
                        return last
                watch = self.store.watch(ModelService, NAMESPACE, resource_version=listing.resource_version)
                async with watch as events:
                    async for event in events:
                        if event.resource is None or event.resource.metadata.name != name:
                            continue
                        last = event.resource
                        if holds(last):
                            return last
        except TimeoutError:
            pass
        status = last.status.model_dump_json(indent=1) if last else "nothing"
        message = f"{name} never came to that:\n{status}\n{self.log[-3000:]}"
        raise AssertionError(message)

    async def told(self, name: str, *reasons: str) -> None:
        """Wait for the newest events to be these; they are written right after the status."""
        found: list[str] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while found[-len(reasons) :] != list(reasons):
                    await asyncio.sleep(0.05)
                    found = [event.reason for event in await self.store.events(ModelService, NAMESPACE, name)]
        assert found[-len(reasons) :] == list(reasons), found

    @property
    def log(self) -> str:
        return (self.directory / "controllers.log").read_text()

    async def ready(self, name: str, replicas: int = 1) -> ModelService:
        return await self.until(name, lambda r: answers(r, replicas))

    def processes(self) -> list[ProcessHandle]:
        own = self.process.pid if self.process else 0
        return [p for p in processes_with_environment(ENV_INSTANCE, self.instance) if p.pid != own]


def answers(resource: ModelService, replicas: int = 1) -> bool:
    status = resource.status
    return (
        status.phase == "Ready"
        and len(status.endpoints) == replicas
        and status.observed_generation == resource.metadata.generation
    )


async def chat(resource: ModelService, text: str = "hello") -> str:
    path = resource.status.endpoints[0].url.removeprefix("unix://")
    body = {"messages": [{"role": "user", "content": text}], "max_tokens": 8, "temperature": 0}
    transport = httpx.AsyncHTTPTransport(uds=path)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica", timeout=30) as client:
        answer = await client.post("/v1/chat/completions", json=body)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["message"]["content"])


@contextlib.asynccontextmanager
async def opened(store: Store, redis_url: str, encryption_key: str) -> AsyncIterator[Platform]:
    """No part of it is left afterwards."""
    with tempfile.TemporaryDirectory(prefix="llmos-") as directory:  # a short path, for sockets
        platform = Platform(store, redis_url, encryption_key, Path(directory))
        try:
            yield platform
        finally:
            if platform.process is not None and platform.process.returncode is None:
                platform.process.kill()
                await platform.process.wait()
            for handle in platform.processes():
                handle.send(signal.SIGKILL)
                await asyncio.to_thread(handle.wait_blocking, 5)


@pytest.fixture
async def platform(store: Store, redis_url: str, encryption_key: str) -> AsyncIterator[Platform]:
    async with opened(store, redis_url, encryption_key) as platform:
        yield platform


async def test_a_model_answers_survives_its_controllers_and_ends_when_deleted(platform: Platform) -> None:
    store = platform.store
    await platform.start()
    await platform.create("chat")
    resource = await platform.ready("chat")
    assert resource.status.engine == "llamacpp"
    assert resource.status.task == "generate"
    assert resource.status.model is not None
    assert resource.status.model.architecture
    first = await chat(resource)
    assert first
    await platform.told("chat", "Accepted", "DownloadStarted", "Downloaded", "EngineChosen", "ReplicaStarted", "Ready")

    (replica,) = platform.processes()
    await platform.end(signal.SIGKILL)
    assert await chat(resource) == first, "it answers without its controllers"
    await platform.start()
    await platform.create("second", paused=True)  # once this is seen, all were looked at
    await platform.until("second", lambda r: r.status.phase == "Paused")
    assert platform.processes() == [replica], "it was adopted, not started anew"
    resource = await platform.ready("chat")
    assert await chat(resource) == first
    assert [r.restarts for r in resource.status.replica_statuses] == [0]

    replica.send(signal.SIGKILL)
    resource = await platform.until("chat", lambda r: not answers(r))
    resource = await platform.ready("chat")
    assert await chat(resource) == first, "the adopted one is watched and started again"
    events = {event.reason: event for event in await store.events(ModelService, NAMESPACE, "chat")}
    assert events["Crashed"].message.startswith("chat crashed")

    await store.delete(ModelService, NAMESPACE, "chat")

    async def gone() -> bool:
        try:
            await store.get(ModelService, NAMESPACE, "chat")
        except NotFound:
            return True
        return False

    await eventually(gone)
    assert platform.processes() == []
    assert await platform.end(signal.SIGTERM) == 0


async def test_sigterm_leaves_models_running_and_sigint_stops_them(platform: Platform) -> None:
    await platform.start()
    await platform.create("chat")
    resource = await platform.ready("chat")
    (replica,) = platform.processes()
    assert await platform.end(signal.SIGTERM) == 0
    assert replica.alive
    assert await chat(resource)
    await platform.start()
    await platform.create("second", paused=True)
    await platform.until("second", lambda r: r.status.phase == "Paused")
    assert await platform.end(signal.SIGINT) == 0
    assert not replica.alive
    assert platform.processes() == []
    await platform.start()
    resource = await platform.until("chat", lambda r: answers(r) and str(replica.pid) not in r.status.endpoints[0].url)
    await eventually(platform.processes)


async def test_what_runs_for_a_resource_that_went_meanwhile_is_stopped(platform: Platform) -> None:
    await platform.start()
    await platform.create("chat")
    await platform.create("kept")
    kept = await platform.ready("kept")
    gone = await platform.ready("chat")
    await platform.end(signal.SIGKILL)
    assert len(platform.processes()) == 2
    meta = gone.metadata.model_copy(update={"finalizers": [], "resource_version": None})
    await platform.store.update(gone.model_copy(update={"metadata": meta}))
    await platform.store.delete(ModelService, NAMESPACE, "chat")
    await platform.start()
    await eventually(lambda: len(platform.processes()) == 1)
    assert await chat(kept)


async def test_models_go_on_while_the_database_is_away(valkey_factory: ValkeyServer, encryption_key: str) -> None:
    store = open_store(valkey_factory.url, encryption_key)
    try:
        async with opened(store, valkey_factory.url, encryption_key) as platform:
            await platform.start()
            await platform.create("chat")
            resource = await platform.ready("chat")
            (replica,) = platform.processes()
            await asyncio.to_thread(valkey_factory.kill)
            await platform.end(signal.SIGKILL)
            before = len(platform.log)
            await platform.start()  # adopts, and can ask nobody whether that is wanted
            await eventually(lambda: "modelservices can't be followed" in platform.log[before:])
            assert replica.alive
            assert await chat(resource)
            await asyncio.to_thread(valkey_factory.start)
            await platform.change("chat", replicas=2)
            resource = await platform.ready("chat", 2)
            assert replica.alive
    finally:
        await store.close()


async def test_a_changed_spec_is_rolled_out_without_a_lost_answer(platform: Platform) -> None:
    await platform.start()
    await platform.create("chat")
    resource = await platform.ready("chat")
    old = resource.status.endpoints[0].url
    seen = resource
    lost: list[Exception] = []
    asked = 0

    async def follow() -> None:
        nonlocal seen
        listing = await platform.store.list(ModelService, NAMESPACE)
        watch = platform.store.watch(ModelService, NAMESPACE, resource_version=listing.resource_version)
        async with watch as events:
            async for event in events:
                if event.resource is not None:
                    seen = event.resource

    async def ask() -> None:
        nonlocal asked
        while True:
            asked += 1
            try:
                await chat(seen)
            except Exception as error:
                lost.append(error)
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(follow()), asyncio.create_task(ask())]
    await eventually(lambda: asked > 5)
    await platform.change("chat", args=["--ctx-size", "256"])
    resource = await platform.until("chat", lambda r: answers(r) and r.status.endpoints[0].url != old)
    await eventually(lambda: all(url != old for url in (e.url for e in seen.status.endpoints)))
    told = asked
    await eventually(lambda: asked > told + 10)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert lost == []


async def test_what_can_not_be_served_says_why(platform: Platform) -> None:
    await platform.start()
    await platform.create("missing", model="file:///nowhere/model.gguf")
    resource = await platform.until("missing", lambda r: r.status.phase == "Failed")
    assert "/nowhere/model.gguf" in resource.status.message
    assert resource.status.next_try_at is not None
    await platform.create("gpu", resources={"gpus": 4})
    resource = await platform.until("gpu", lambda r: r.status.phase == "Failed")
    assert "GPU" in resource.status.message
    await platform.create("program", model=None, engine="custom", args=["no-such-program", "{port}"])
    resource = await platform.until("program", lambda r: r.status.phase == "Failed")
    assert "no-such-program" in resource.status.message


async def test_a_replica_that_takes_too_much_memory_is_ended_and_says_so(platform: Platform) -> None:
    await platform.start()
    engine = Path(__file__).parents[2] / "support" / "fake_engine.py"
    args = [sys.executable, str(engine), "--socket", "{socket}"]
    await platform.create("leaky", model=None, engine="custom", args=args, resources={"memory": "96Mi"})
    resource = await platform.ready("leaky")
    path = resource.status.endpoints[0].url.removeprefix("unix://")
    transport = httpx.AsyncHTTPTransport(uds=path)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica", timeout=10) as client:
        with contextlib.suppress(httpx.TransportError):  # it may be ended before it has answered
            await client.get("/leak?200")
    resource = await platform.until("leaky", lambda r: not r.status.endpoints)
    assert "leaky ran out of memory: used" in resource.status.message
    assert ": llmos set leaky --memory" in resource.status.message
    assert resource.status.next_try_at is not None
    resource = await platform.ready("leaky")
    assert resource.status.message.startswith("python")
    await platform.told("leaky", "Ready", "OutOfMemory", "ReplicaStarted", "Ready")


async def test_pages_for_probes(platform: Platform, unused_tcp_port: int) -> None:
    await platform.start(LLMOS_PORT=str(unused_tcp_port))
    await platform.create("chat", paused=True)
    await platform.until("chat", lambda r: r.status.phase == "Paused")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{unused_tcp_port}", timeout=10) as client:
        assert (await client.get("/health")).text == "ok\n"
        assert (await client.get("/ready")).status_code == 200
        metrics = (await client.get("/metrics")).text
        assert 'llmos_workqueue_depth{kind="ModelService"} 0.0' in metrics
        assert "llmos_reconcile_seconds_count" in metrics
        assert (await client.get("/nothing")).status_code == 404
        assert (await client.post("/health")).status_code == 405


async def test_from_nothing_to_ready_nothing_is_tried_twice(platform: Platform) -> None:
    await platform.start()
    await platform.create("chat")
    resource = await platform.ready("chat")
    await chat(resource)
    assert [r.restarts for r in resource.status.replica_statuses] == [0]
    await platform.told("chat", "Accepted", "DownloadStarted", "Downloaded", "EngineChosen", "ReplicaStarted", "Ready")
    events = await platform.store.events(ModelService, NAMESPACE, "chat")
    assert [event.count for event in events] == [1] * 6
    assert "Trying again" not in platform.log
