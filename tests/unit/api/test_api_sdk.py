"""The project's own client against the real API."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from llmos import AsyncClient
from llmos.cli.manifests import ManifestText, read_manifests
from llmos.errors import Conflict, Forbidden, Invalid, NotFound
from llmos.present.resources import as_json, as_list, as_yaml
from llmos.resources import Credential, ModelService
from llmos_hub.names import API_PREFIX
from llmos_hub.stores.base import Store
from tests.unit.api.conftest import SECRET, Api, manifest, token_of


@pytest.fixture
async def sdk(api: Api):
    async with AsyncClient(api.url + API_PREFIX, token_of("ada"), gateway_url="http://127.0.0.1:1/v1") as client:
        yield client


async def test_a_session(sdk: AsyncClient, store: Store) -> None:
    who = await sdk.whoami()
    assert (who.name, who.namespace) == ("ada", "user-ada")
    made = await sdk.modelservices.create({"kind": "ModelService", **manifest(replicas=2)})
    assert made.spec.replicas == 2
    changed = await sdk.modelservices.patch("chat", {"spec": {"replicas": 3}})
    assert changed.metadata.generation == 2
    with pytest.raises(Conflict):
        await sdk.modelservices.update(made)
    changed.spec.aliases = ["talk"]
    assert (await sdk.modelservices.update(changed)).spec.aliases == ["talk"]
    assert [s.metadata.name for s in await sdk.modelservices.list()] == ["chat"]
    stored = await store.get(ModelService, "user-ada", "chat")
    await store.record(stored, "Normal", "Started", "it runs")
    assert [e.reason for e in await sdk.modelservices.events("chat")] == ["Started"]
    assert {s.metadata.name for s in await sdk.settings.list()} >= {"api-max-body-bytes"}


async def test_errors_are_the_same_on_both_sides(sdk: AsyncClient) -> None:
    with pytest.raises(NotFound, match="There is no modelservice"):
        await sdk.modelservices.get("nothing")
    with pytest.raises(Forbidden, match="Yours are user-ada, group-vision"):
        await sdk.modelservices.list(namespace="user-grace")
    wrong = {"kind": "ModelService", **manifest(servedModelName="a b")}
    with pytest.raises(Invalid) as caught:
        await sdk.modelservices.create(wrong)
    assert [c.field for c in caught.value.causes] == ["spec.servedModelName"]


async def test_watching(sdk: AsyncClient) -> None:
    seen: list[tuple[str, str]] = []
    ready = asyncio.Event()

    async def watch() -> None:
        async with aclosing(sdk.modelservices.watch()) as events:
            async for event in events:
                seen.append((event.type, event.resource.metadata.name))
                ready.set()
                if len(seen) == 3:
                    return

    await sdk.modelservices.create({"kind": "ModelService", **manifest("one")})
    watching = asyncio.create_task(watch())
    await asyncio.wait_for(ready.wait(), 30)
    await sdk.modelservices.create({"kind": "ModelService", **manifest("two")})
    await sdk.modelservices.patch("two", {"spec": {"paused": True}})
    await asyncio.wait_for(watching, 30)
    assert seen == [("ADDED", "one"), ("ADDED", "two"), ("MODIFIED", "two")]


async def test_a_credential_that_is_read_and_sent_back_keeps_its_secrets(sdk: AsyncClient, store: Store) -> None:
    await sdk.credentials.create({"kind": "Credential", "metadata": {"name": "hub"}, "spec": {"data": {"A": SECRET}}})
    read = await sdk.credentials.get("hub")
    read.metadata.labels["team"] = "vision"
    await sdk.credentials.apply(read)
    assert (await store.get(Credential, "user-ada", "hub")).spec.data == {"A": SECRET}


async def test_an_exported_credential_that_is_applied_again_keeps_its_secrets(sdk: AsyncClient, store: Store) -> None:
    await sdk.credentials.create({"kind": "Credential", "metadata": {"name": "hub"}, "spec": {"data": {"A": SECRET}}})
    read = await sdk.credentials.get("hub")
    for document in (as_yaml(read.document()), as_yaml(as_list([read])), as_json(as_list([read]))):
        (manifest,) = read_manifests([ManifestText("cell", document)])
        await sdk.credentials.apply(manifest.resource)
        assert (await store.get(Credential, "user-ada", "hub")).spec.data == {"A": SECRET}
