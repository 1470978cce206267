"""The behaviour of the API that its client relies on, for the real API and for the fake of the client's tests.

A test module derives a class from `ApiContract` and provides these fixtures:

sdk
    A client of `ada`, who is in the group `vision` and no admin; nothing is stored.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from llmos import AsyncClient
from llmos.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound


def manifest(name: str = "chat", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"model": "demo://tiny", **spec}}


class ApiContract:
    """One test per promise."""

    async def test_who_asks(self, sdk: AsyncClient) -> None:
        who = await sdk.whoami()
        assert (who.name, who.admin, who.namespace, list(who.groups)) == ("ada", False, "user-ada", ["vision"])

    async def test_what_is_created_can_be_read(self, sdk: AsyncClient) -> None:
        made = await sdk.modelservices.create(manifest(replicas=2))
        meta = made.metadata
        assert (meta.namespace, meta.generation, made.spec.replicas, made.status.phase) == ("user-ada", 1, 2, "Pending")
        assert meta.uid
        assert meta.resource_version
        assert meta.creation_timestamp is not None
        assert await sdk.modelservices.get("chat") == made
        with pytest.raises(AlreadyExists):
            await sdk.modelservices.create(manifest())

    async def test_a_missing_one_is_answered_with_a_similar_name(self, sdk: AsyncClient) -> None:
        await sdk.modelservices.create(manifest())
        for ask in (sdk.modelservices.get, sdk.modelservices.delete, sdk.modelservices.events):
            with pytest.raises(NotFound, match='Did you mean "chat"'):
                await ask("chatt")
        with pytest.raises(NotFound):
            await sdk.modelservices.patch("chatt", {"spec": {"replicas": 2}})

    async def test_an_update_needs_the_version_that_was_read(self, sdk: AsyncClient) -> None:
        made = await sdk.modelservices.create(manifest())
        changed = await sdk.modelservices.patch("chat", {"spec": {"replicas": 3}})
        assert (changed.metadata.generation, changed.metadata.uid) == (2, made.metadata.uid)
        with pytest.raises(Conflict):
            await sdk.modelservices.update(made)
        changed.spec.aliases = ["talk"]
        assert (await sdk.modelservices.update(changed)).spec.aliases == ["talk"]

    async def test_a_patch_merges_and_null_removes(self, sdk: AsyncClient) -> None:
        await sdk.modelservices.create(manifest(replicas=2, env={"A": "1", "B": "2"}))
        found = await sdk.modelservices.patch("chat", {"spec": {"replicas": None, "env": {"A": None, "C": "3"}}})
        assert (found.spec.replicas, found.spec.env) == (1, {"B": "2", "C": "3"})

    async def test_what_changes_nothing_makes_no_version(self, sdk: AsyncClient) -> None:
        made = await sdk.modelservices.create(manifest(replicas=2))
        assert await sdk.modelservices.patch("chat", {"spec": {"replicas": 2}}) == made
        assert await sdk.modelservices.apply(manifest(replicas=2)) == made

    async def test_labels_make_a_version_and_no_generation(self, sdk: AsyncClient) -> None:
        made = await sdk.modelservices.create(manifest())
        found = await sdk.modelservices.patch("chat", {"metadata": {"labels": {"team": "a"}}})
        assert found.metadata.generation == 1
        assert found.metadata.resource_version != made.metadata.resource_version

    async def test_apply_replaces_the_spec_and_merges_labels(self, sdk: AsyncClient) -> None:
        first = manifest(replicas=2, aliases=["talk"])
        first["metadata"]["labels"] = {"team": "a"}
        await sdk.modelservices.apply(first)
        second = manifest(replicas=3)
        second["metadata"]["labels"] = {"stage": "b"}
        found = await sdk.modelservices.apply(second)
        assert (found.spec.replicas, found.spec.aliases) == (3, [])
        assert found.metadata.labels == {"team": "a", "stage": "b"}

    async def test_a_dry_run_stores_nothing(self, sdk: AsyncClient) -> None:
        assert (await sdk.modelservices.create(manifest(), dry_run=True)).spec.model == "demo://tiny"
        assert await sdk.modelservices.list() == []
        made = await sdk.modelservices.create(manifest())
        assert (await sdk.modelservices.apply(manifest(replicas=3), dry_run=True)).spec.replicas == 3
        await sdk.modelservices.delete("chat", dry_run=True)
        assert await sdk.modelservices.get("chat") == made
        with pytest.raises(AlreadyExists):
            await sdk.modelservices.create(manifest(), dry_run=True)

    async def test_lists_are_sorted_and_selected_by_labels(self, sdk: AsyncClient) -> None:
        for name, team in (("b", "one"), ("c", "two"), ("a", "one")):
            wanted = manifest(name)
            wanted["metadata"]["labels"] = {"team": team}
            await sdk.modelservices.create(wanted)
        assert [found.metadata.name for found in await sdk.modelservices.list()] == ["a", "b", "c"]
        assert [found.metadata.name for found in await sdk.modelservices.list(labels={"team": "one"})] == ["a", "b"]

    async def test_all_namespaces_are_those_that_one_may_see(self, sdk: AsyncClient) -> None:
        await sdk.modelservices.create(manifest("mine"))
        await sdk.modelservices.create(manifest("ours"), namespace="group-vision")
        found = await sdk.modelservices.list(namespace="*")
        assert [one.key for one in found] == ["group-vision/ours", "user-ada/mine"]

    async def test_others_namespaces_are_closed(self, sdk: AsyncClient) -> None:
        with pytest.raises(Forbidden):
            await sdk.modelservices.list(namespace="user-grace")
        with pytest.raises(Forbidden):
            await sdk.modelservices.create(manifest(), namespace="public")
        assert await sdk.modelservices.list(namespace="public") == []

    async def test_a_wrong_field_is_named(self, sdk: AsyncClient) -> None:
        await sdk.modelservices.create(manifest())
        with pytest.raises(Invalid) as caught:
            await sdk.modelservices.patch("chat", {"spec": {"replicas": -1}})
        assert [cause.field for cause in caught.value.causes] == ["spec.replicas"]

    async def test_secrets_are_not_read_back(self, sdk: AsyncClient) -> None:
        await sdk.credentials.create({"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": "hf_x"}}})
        assert (await sdk.credentials.get("hub")).spec.data == {}

    async def test_a_deleted_one_is_gone(self, sdk: AsyncClient) -> None:
        await sdk.credentials.create({"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": "hf_x"}}})
        await sdk.credentials.delete("hub")
        with pytest.raises(NotFound):
            await sdk.credentials.get("hub")

    async def test_a_watch_tells_every_change(self, sdk: AsyncClient) -> None:
        seen: list[tuple[str, str]] = []
        begun = asyncio.Event()

        async def watch() -> None:
            async with aclosing(sdk.credentials.watch()) as events:
                async for event in events:
                    found = (event.type, event.resource.metadata.name)
                    if found not in seen:  # a status may be written by itself
                        seen.append(found)
                    begun.set()
                    if event.type == "DELETED":
                        return

        def secret(name: str, value: str) -> dict[str, Any]:
            return {"metadata": {"name": name}, "spec": {"data": {"KEY": value}}}

        await sdk.credentials.create(secret("first", "1"))
        async with asyncio.TaskGroup() as group:
            group.create_task(watch())
            await begun.wait()
            await sdk.credentials.create(secret("second", "1"))
            await sdk.credentials.patch("second", {"metadata": {"labels": {"team": "a"}}})
            await sdk.credentials.delete("second")
        seen.remove(("ADDED", "first"))
        wanted = [("ADDED", "second"), ("MODIFIED", "second"), ("DELETED", "second")]
        assert [found for found in seen if found[1] == "second"] == wanted

    async def test_nothing_has_run_and_so_there_is_no_log(self, sdk: AsyncClient) -> None:
        await sdk.modelservices.create(manifest())
        with pytest.raises(NotFound):
            async with aclosing(sdk.modelservices.logs("chat")) as log:
                await anext(log)
