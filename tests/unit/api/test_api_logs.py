"""Logs over HTTP, from the files that the local backend leaves."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from llmos.resources import ModelService
from llmos_hub.backends.local.backend import LocalBackend
from llmos_hub.stores.base import Store
from llmos_hub.workload import ProcessTemplate, Role, Workload, WorkloadRef
from tests.support.local_backend import QUICK
from tests.support.waiting import eventually
from tests.unit.api.conftest import BASE, Api, manifest, models, status_of, token_of, watching

SCRIPT = 'for n in 1 2 3 4 5; do echo line $n of $0; done; while [ ! -e "$1" ]; do sleep 0.02; done; echo more of $0; sleep 60'


@pytest.fixture
async def ref(api: Api, ada: httpx.AsyncClient) -> WorkloadRef:
    body = (await ada.post(models(), json=manifest())).json()
    return WorkloadRef("ModelService", "user-ada", "chat", body["metadata"]["uid"])


@pytest.fixture
async def backend(api: Api, tmp_path_factory: pytest.TempPathFactory):
    made = LocalBackend(api.workloads, tmp_path_factory.mktemp("run"), options=QUICK)
    await made.start()
    yield made
    await made.close(stop=True)


async def run(backend: LocalBackend, ref: WorkloadRef, flag: Path, count: int = 1) -> None:
    template = ProcessTemplate(("/bin/sh", "-c", SCRIPT, "engine", str(flag)), grace=1.0)
    await backend.apply(Workload(ref, (Role("replica", count, template),)))

    async def ready() -> bool:
        seen = await backend.observe(ref)
        return seen is not None and [r.phase for r in seen.replicas] == ["Ready"] * count

    await eventually(ready)


async def logs(client: httpx.AsyncClient, **query: str) -> list[str]:
    response = await client.get(models(name="chat") + "/logs", params=query)
    assert response.status_code == 200, response.text
    return response.text.splitlines()


async def five_lines(client: httpx.AsyncClient) -> None:
    async def there() -> bool:
        return len(await logs(client)) >= 5

    await eventually(there)


async def test_the_log_of_what_runs(backend, ref, ada, tmp_path) -> None:
    await run(backend, ref, tmp_path / "go")
    await five_lines(ada)
    assert await logs(ada) == [f"line {n} of engine" for n in range(1, 6)]
    assert await logs(ada, tailLines="2") == ["line 4 of engine", "line 5 of engine"]
    assert await logs(ada, tailLines="0") == []
    replica = (await backend.observe(ref)).replicas[0].id
    assert len(await logs(ada, replica=replica)) == 5
    response = await ada.get(models(name="chat") + "/logs", params={"replica": "../../etc"})
    assert status_of(response)[:2] == (404, "not_found")
    assert replica in response.json()["message"]
    response = await ada.get(models(name="chat") + "/logs", params={"replica": "other", "follow": "1"})
    assert status_of(response)[:2] == (404, "not_found")
    assert status_of(await ada.get(models(name="chat") + "/logs", params={"tailLines": "-1"}))[:2] == (400, "usage")


async def test_following_ends_with_the_workload(backend, ref, ada, tmp_path) -> None:
    await run(backend, ref, tmp_path / "go")
    async with ada.stream("GET", models(name="chat") + "/logs", params={"follow": "1"}) as response:
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        lines = response.aiter_lines()
        assert [await anext(lines) for _ in range(5)][-1] == "line 5 of engine"
        (tmp_path / "go").touch()
        assert await anext(lines) == "more of engine"
        await backend.delete(ref)
        with pytest.raises(StopAsyncIteration):
            await anext(lines)


async def test_following_ends_with_the_resource(backend, ref, ada, store: Store, tmp_path) -> None:
    await run(backend, ref, tmp_path / "go")
    async with ada.stream("GET", models(name="chat") + "/logs", params={"follow": "1", "tailLines": "1"}) as response:
        lines = response.aiter_lines()
        assert await anext(lines) == "line 5 of engine"
        stored = await store.delete(ModelService, "user-ada", "chat")
        stored.metadata.finalizers = []
        await store.update(stored)
        last = await anext(lines)
        assert last.startswith("[llmos] ")
        assert response.headers["x-request-id"] in last
        with pytest.raises(StopAsyncIteration):
            await anext(lines)


async def test_following_ends_with_the_token(api: Api, backend, ref, ada, tmp_path) -> None:
    await run(backend, ref, tmp_path / "go")
    async with ada.stream("GET", models(name="chat") + "/logs", params={"follow": "1", "tailLines": "1"}) as response:
        lines = response.aiter_lines()
        await anext(lines)
        api.hub.revoke(token_of("ada"))
        assert "(unauthorized" in await anext(lines)


async def test_a_reader_that_leaves_leaves_nothing_behind(api: Api, backend, ref, ada, tmp_path) -> None:
    await run(backend, ref, tmp_path / "go")
    async with ada.stream("GET", models(name="chat") + "/logs", params={"follow": "1"}) as response:
        await anext(response.aiter_lines())
        assert api.app.state.services.streams._open == {"ada": 1}
    await eventually(lambda: not api.app.state.services.streams._open)


async def test_the_download_is_shown_before_there_is_an_engine(backend, ref, ada, tmp_path) -> None:
    fetch = WorkloadRef(ref.kind, ref.namespace, ref.name, ref.uid, "fetch")
    await run(backend, fetch, tmp_path / "go")
    await five_lines(ada)
    assert await logs(ada) == [f"line {n} of engine" for n in range(1, 6)]


async def test_nothing_has_run_yet(ref, ada) -> None:
    code, word, message = status_of(await ada.get(models(name="chat") + "/logs"))
    assert (code, word) == (404, "not_found")
    assert message == "Nothing has run for chat yet, so there is no log. It is Pending."


async def test_the_log_of_a_public_model_is_for_admins(
    api: Api, backend, ada: httpx.AsyncClient, root: httpx.AsyncClient, store: Store, tmp_path: Path
) -> None:
    path = f"{BASE}/namespaces/public/modelservices"
    body = (await root.post(path, json=manifest())).json()
    stored = await store.get(ModelService, "public", "chat")
    stored.status.last_log_lines = ["prompt: what is my diagnosis"]
    stored.status.message = "It crashed."
    await store.patch_status(stored)
    public = WorkloadRef("ModelService", "public", "chat", body["metadata"]["uid"])
    await run(backend, public, tmp_path / "go")

    refused = await ada.get(f"{path}/chat/logs")
    assert status_of(refused)[:2] == (403, "forbidden")
    assert "prompts" in refused.json()["message"]
    assert (await root.get(f"{path}/chat/logs")).status_code == 200

    for read in (f"{path}/chat", f"{path}/chat/status", path, f"{path}?limit=5"):
        seen = await ada.get(read)
        assert seen.status_code == 200
        assert "It crashed." in seen.text
        assert "diagnosis" not in seen.text
        assert "diagnosis" in (await root.get(read)).text
    async with watching(ada, path) as watch:
        await watch.change()
        await root.patch(
            f"{path}/chat",
            json={"spec": {"paused": True}},
            headers={"content-type": "application/merge-patch+json"},
        )
        type_, changed = await watch.next()
        while type_ == "BOOKMARK":
            type_, changed = await watch.next()
        assert changed["spec"]["paused"]
        assert "lastLogLines" not in changed["status"]
