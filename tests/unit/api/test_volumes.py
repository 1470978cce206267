"""Volumes through the API, the SDK and the command line, with running controllers and real directories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from llmos.cli.entry import main
from llmos.client import AsyncClient
from llmos.errors import Conflict, Invalid, NotReady
from llmos.resources import Volume
from llmos_hub.controllers.parts import Parts, local_context
from llmos_hub.controllers.runner import Controllers
from llmos_hub.managers.settings import VOLUME_REST
from llmos_hub.names import DataDir
from llmos_hub.policy import rules
from llmos_hub.settings import ProcessSettings
from llmos_hub.volumes.local import LocalVolumes
from tests.support.fake_backend import Behaviour, FakeBackend

from .conftest import BASE, Api, status_of, token_of

Run = Callable[..., Awaitable[str]]
PATH = f"{BASE}/namespaces/user-ada/volumes"


@pytest.fixture
def root(api: Api) -> Path:
    return DataDir(api.workloads).volumes


@pytest.fixture
async def controllers(api: Api, root: Path) -> AsyncIterator[Controllers]:
    settings = ProcessSettings(DataDir(api.workloads), "")
    backend = FakeBackend(lambda *_: Behaviour())
    made = Controllers(
        Parts(api.store, backend, local_context(settings), volumes=LocalVolumes(root, root / ".links")),
        settings,
        environ={},
    )
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def client(controllers: Controllers, api: Api) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api.url, token_of("ada")) as made:
        yield made


@pytest.fixture
def run(api: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("LLMOS_URL", api.url)
    monkeypatch.setenv("LLMOS_TOKEN", token_of("ada"))

    async def run(*words: str, code: int = 0) -> str:
        found = await asyncio.to_thread(main, words)
        out, err = capsys.readouterr()
        assert found == code, out + err
        return out + err

    return run


async def test_from_creation_to_deletion_by_commands(client: AsyncClient, run: Run, root: Path) -> None:
    assert "Ready" in await run("volume", "create", "data", "1Gi", "--timeout", "30")
    (directory,) = (root / "user-ada").iterdir()
    (directory / "kept").write_text("mine")
    assert "Ready" in await run("volume", "grow", "data", "2Gi", "--timeout", "30")
    assert "2.0 GiB" in await run("volume", "ls")
    assert "never shrink" in await run("volume", "grow", "data", "1Gi", code=1)
    assert "llmos volume undelete data" in await run("delete", "volume", "data", "--yes")
    assert "Deleted (6 d left)" in await run("volume", "ls")
    with pytest.raises(NotReady, match=r"data is deleted\. To have it again: llmos volume undelete data"):
        await client.volumes.wait_ready("data", timeout=30)
    assert "Ready" in await run("volume", "undelete", "data", "--timeout", "30")
    assert (directory / "kept").read_text() == "mine"
    assert "nothing to undo" in await run("volume", "undelete", "data")
    await run("delete", "volume", "data", "--yes")
    assert "volume/data deleted" in await run("delete", "volume", "data", "--yes")  # the second time for good
    assert not directory.exists()
    assert "llmos volume create NAME SIZE" in await run("volume", "create", "data", code=2)


async def test_at_once_where_nothing_rests(client: AsyncClient, api: Api, root: Path) -> None:
    api.environ[VOLUME_REST.variable] = "0"
    await client.volumes.create({"metadata": {"name": "data"}, "spec": {"size": "1Gi"}})
    await client.volumes.wait_ready("data", timeout=30)
    await client.volumes.delete("data")
    await client.volumes.wait_deleted("data", timeout=30)
    assert not any((root / "user-ada").iterdir())


async def test_a_deletion_with_another_uid_or_as_a_dry_run(client: AsyncClient, ada: httpx.AsyncClient) -> None:
    await client.volumes.create({"metadata": {"name": "data"}, "spec": {"size": "1Gi"}})
    answer = await ada.request("DELETE", f"{PATH}/data", json={"preconditions": {"uid": "another"}})
    assert status_of(answer)[:2] == (409, "conflict")
    assert (await client.volumes.delete("data", dry_run=True)).rests_until is not None
    assert (await client.volumes.get("data")).rests_until is None


async def test_only_who_may_delete_may_let_it_rest_or_end_its_rest(
    client: AsyncClient, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # before the first request: rights are remembered for a moment
    monkeypatch.setattr(
        "llmos_hub.policy.rights.rules_of",
        lambda caller: [replace(rule, verbs=rule.verbs - {"delete"}) for rule in rules.rules_of(caller)],
    )
    await client.volumes.create({"metadata": {"name": "data"}, "spec": {"size": "1Gi"}})
    until = "2030-01-01T00:00:00Z"
    merge = {"content-type": "application/merge-patch+json"}
    answer = await ada.patch(f"{PATH}/data", json={"spec": {"deleteAt": until}}, headers=merge)
    assert status_of(answer)[:2] == (403, "forbidden")
    assert (await ada.patch(f"{PATH}/data", json={"spec": {"size": "2Gi"}}, headers=merge)).status_code == 200


async def test_snapshot_restore_and_clone_by_commands(client: AsyncClient, run: Run, root: Path) -> None:
    await run("volume", "create", "data", "1Gi", "--timeout", "30")
    (directory,) = (root / "user-ada").glob("data.*")
    (directory / "file").write_text("before")
    assert "Ready" in await run("volume", "snapshot", "data", "first", "--timeout", "30")
    assert "first" in (listed := await run("get", "snapshots"))
    assert [*listed.split()[:5]] == ["NAME", "VOLUME", "SIZE", "STATE", "AGE"]
    (directory / "file").write_text("after")
    assert "Ready" in await run("volume", "clone", "data", "copy", "--timeout", "30")
    assert "Ready" in await run("volume", "create", "old", "1Gi", "--snapshot", "first", "--timeout", "30")
    texts = {name: next((root / "user-ada").glob(f"{name}.*/file")).read_text() for name in ("copy", "old")}
    assert texts == {"copy": "after", "old": "before"}
    for _ in range(2):  # a second time, too
        assert "Ready" in await run("volume", "restore", "data", "first", "--yes", "--timeout", "30")
        assert (directory / "file").read_text() == "before"
        (directory / "file").write_text("again")
    await client.modelservices.create({"metadata": {"name": "chat"}, "spec": {"model": "volume://data/a.gguf"}})
    assert "in use by modelservice/chat" in await run("volume", "restore", "data", "first", "--yes", code=1)
    assert 'no snapshot "none"' in await run("volume", "restore", "copy", "none", "--yes", code=1)
    assert 'no volume "none"' in await run("volume", "snapshot", "none", code=1)
    await run("delete", "snapshot", "first", "--yes")
    assert not list((root / ".snapshots" / "user-ada").iterdir())
    found = await client.volumes.create(
        {"metadata": {"name": "x"}, "spec": {"size": "1Gi", "source": {"volume": "none"}}}
    )
    with pytest.raises(NotReady, match='There is no Volume "none"'):
        await client.volumes.wait_ready(found.metadata.name, timeout=30)
    with pytest.raises(Invalid, match="only one of them"):
        await client.volumes.create({"metadata": {"name": "y"}, "spec": {"size": "1Gi", "source": {}}})


async def test_others_find_nothing(client: AsyncClient, grace: httpx.AsyncClient) -> None:
    await client.volumes.create({"metadata": {"name": "data"}, "spec": {"size": "1Gi"}})
    for method in ("GET", "DELETE"):
        assert (await grace.request(method, f"{PATH}/data")).status_code in (403, 404)


async def test_sizes_are_checked(client: AsyncClient) -> None:
    for size, said in (("2GiB", 'Did you mean "2Gi"'), ("5", "less than 1Mi"), ("0", "more than zero")):
        with pytest.raises(Invalid, match=said):
            await client.volumes.create({"metadata": {"name": "data"}, "spec": {"size": size}})


async def test_one_in_use_is_not_deleted_and_who_uses_it_is_said(client: AsyncClient, root: Path) -> None:
    await client.volumes.create({"metadata": {"name": "data"}, "spec": {"size": "1Gi"}})
    await client.volumes.wait_ready("data", timeout=30)
    await client.modelservices.create({"metadata": {"name": "chat"}, "spec": {"model": "volume://data/a.gguf"}})
    with pytest.raises(Conflict, match="data is in use by modelservice/chat"):
        await client.volumes.delete("data")
    assert (await client.volumes.get("data")).rests_until is None
    await client.modelservices.stop("chat")
    assert (await client.volumes.delete("data")).rests_until is not None


async def test_one_deleted_past_the_api_waits_for_its_users(client: AsyncClient, api: Api, root: Path) -> None:
    await client.volumes.create({"metadata": {"name": "data"}, "spec": {"size": "1Gi"}})
    await client.volumes.wait_ready("data", timeout=30)
    await client.modelservices.create({"metadata": {"name": "chat"}, "spec": {"model": "volume://data/a.gguf"}})
    (directory,) = (root / "user-ada").iterdir()
    await api.store.delete(Volume, "user-ada", "data")
    async with aclosing(client.volumes.steps(namespace="user-ada")) as steps:
        async for step in steps:
            if "modelservice/chat" in step.items["user-ada/data"].status.message:
                break
    assert directory.is_dir()
