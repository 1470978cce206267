"""Watches as a client sees them while others make changes."""

from __future__ import annotations

import json

import httpx
import pytest

from llmos_hub.names import SCOPE_INVOKE
from tests.support.valkey import ValkeyServer
from tests.support.waiting import eventually
from tests.unit.api.conftest import BASE, SECRET, Api, credentials, manifest, models, status_of, token_of, watching

MERGE = {"content-type": "application/merge-patch+json"}


async def test_a_watch_begins_with_what_is_there(ada: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest("one"))
    async with watching(ada, models()) as watch:
        assert watch.response.headers["content-type"] == "application/json;stream=watch"
        assert "content-length" not in watch.response.headers
        type_, body = await watch.next()
        assert (type_, body["metadata"]["name"]) == ("ADDED", "one")
        type_, body = await watch.next()
        assert type_ == "BOOKMARK"
        assert body["kind"] == "ModelService"
        assert body["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        await ada.post(models(), json=manifest("two"))
        assert await watch.change() == ("ADDED", "two")
        await ada.patch(models(name="two"), json={"spec": {"replicas": 2}}, headers=MERGE)
        assert await watch.change() == ("MODIFIED", "two")


async def test_a_watch_goes_on_from_a_list_without_missing_anything(ada: httpx.AsyncClient) -> None:
    version = (await ada.get(models())).json()["metadata"]["resourceVersion"]
    for name in ("a", "b", "c"):
        await ada.post(models(), json=manifest(name))
    async with watching(ada, models(), resourceVersion=version) as watch:
        seen = [await watch.next() for _ in range(3)]
    assert [(type_, body["metadata"]["name"]) for type_, body in seen] == [("ADDED", n) for n in "abc"]
    async with watching(ada, models(), resourceVersion=seen[1][1]["metadata"]["resourceVersion"]) as watch:
        assert await watch.change() == ("ADDED", "c")


@pytest.mark.parametrize("watch", ["0", "1"])
@pytest.mark.parametrize("version", ["abc", "-1", "1.5", "9" * 40])
async def test_a_version_that_is_none_is_refused(ada: httpx.AsyncClient, watch: str, version: str) -> None:
    answer = await ada.get(models(), params={"watch": watch, "resourceVersion": version})
    assert answer.status_code == 400
    assert f'resourceVersion: "{version}" is none that this store gave out' in answer.json()["message"]


async def test_deletion_is_seen(ada: httpx.AsyncClient) -> None:
    made = {"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": SECRET}}}
    async with watching(ada, credentials()) as watch:
        await ada.post(credentials(), json=made)
        await ada.delete(credentials(name="hub"))
        await ada.post(credentials(), json={"metadata": {"name": "last"}})
        events = []
        while not events or events[-1][1]["metadata"].get("name") != "last":
            events.append(await watch.next())
    assert SECRET not in json.dumps(events)
    types = [t for t, body in events if body["metadata"].get("name") == "hub"]
    assert types[0] == "ADDED"
    assert types[-1] == "DELETED"


async def test_selected_watches(ada: httpx.AsyncClient) -> None:
    async with (
        watching(ada, models(), labelSelector="team=x") as labelled,
        watching(ada, models(), fieldSelector="metadata.name=two") as named,
    ):
        for name, labels in (("one", {"team": "x"}), ("two", {}), ("three", {"team": "x"})):
            await ada.post(models(), json={**manifest(name), "metadata": {"name": name, "labels": labels}})
        assert await labelled.change() == ("ADDED", "one")
        assert await labelled.change() == ("ADDED", "three")
        assert await named.change() == ("ADDED", "two")
        await ada.patch(models(name="one"), json={"metadata": {"labels": {"team": "y"}}}, headers=MERGE)
        assert await labelled.change() == ("DELETED", "one")


async def test_a_setting_that_is_deleted_has_its_default_again(root: httpx.AsyncClient) -> None:
    path = f"{BASE}/settings"
    async with watching(root, path, fieldSelector="metadata.name=api-max-streams-per-user") as watch:
        assert await watch.change() == ("ADDED", "api-max-streams-per-user")
        made = {"metadata": {"name": "api-max-streams-per-user"}, "spec": {"value": "7"}}
        await root.post(path, json=made)
        type_, body = await watch.next()
        while type_ == "BOOKMARK":
            type_, body = await watch.next()
        assert (type_, body["status"]["value"]) == ("ADDED", "7")
        await root.delete(f"{path}/api-max-streams-per-user")
        type_, body = await watch.next()
        assert (type_, body["status"]["value"], body["status"]["source"]) == ("MODIFIED", "100", "default")


async def test_too_old_is_410_and_says_to_list_again(
    ada: httpx.AsyncClient, redis_url: str, valkey_server: ValkeyServer
) -> None:
    await ada.post(models(), json=manifest())
    with valkey_server.client() as client:
        for key in client.scan_iter():
            if client.type(key) == b"stream":
                client.xtrim(key, maxlen=0)
    await ada.post(models(), json=manifest("two"))
    response = await ada.get(models(), params={"watch": "1", "resourceVersion": "1"})
    code, word, message = status_of(response)
    assert (code, word) == (410, "expired")
    assert "again" in message


@pytest.mark.parametrize(
    "query",
    [{"resourceVersion": "x"}, {"resourceVersion": "9" * 5000}, {"timeoutSeconds": "soon"}, {"timeoutSeconds": "-1"}, {"labelSelector": "a>1"}, {"watch": "perhaps"}],
)  # fmt: skip
async def test_nonsense_is_refused_before_the_stream_begins(ada: httpx.AsyncClient, query: dict[str, str]) -> None:
    response = await ada.get(models(), params={"watch": "1", **query})
    assert response.status_code in (400, 422)
    assert response.json()["kind"] == "Status"


async def test_a_watch_ends_when_its_time_is_up(ada: httpx.AsyncClient) -> None:
    async with watching(ada, models(), timeoutSeconds="1") as watch:
        assert (await watch.next())[0] == "BOOKMARK"
        with pytest.raises(StopAsyncIteration):
            await watch.next()


async def test_a_watch_ends_when_the_token_is_revoked(api: Api, ada: httpx.AsyncClient) -> None:
    async with watching(ada, models()) as watch:
        await watch.next()
        api.hub.revoke(token_of("ada"))
        assert await watch.change() == ("ERROR", "unauthorized")
        with pytest.raises(StopAsyncIteration):
            await watch.next()


async def test_a_watch_ends_when_the_token_may_less(api: Api, ada: httpx.AsyncClient) -> None:
    async with watching(ada, models()) as watch:
        await watch.next()
        api.hub.add_token("ada", token_of("ada"), scopes=(SCOPE_INVOKE,))
        assert await watch.change() == ("ERROR", "forbidden")


async def test_a_watch_ends_with_words_when_the_process_stops(api: Api, ada: httpx.AsyncClient) -> None:
    async with watching(ada, models()) as watch:
        await watch.next()
        api.app.state.services.streams.closing.set()
        type_, body = await watch.next()
        assert (type_, body["code"]) == ("ERROR", 503)
        assert body["details"]["requestID"] == watch.response.headers["x-request-id"]


async def test_a_client_that_leaves_leaves_nothing_behind(api: Api, ada: httpx.AsyncClient) -> None:
    streams = api.app.state.services.streams
    async with watching(ada, models()) as watch:
        await watch.next()
        assert sum(streams._open.values()) == 1
    await eventually(lambda: not streams._open)


async def test_one_person_has_so_many_streams(api: Api, ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    api.environ["LLMOS_SETTING_API_MAX_STREAMS_PER_USER"] = "2"
    async with watching(ada, models()) as one, watching(ada, models()) as two:
        await one.next()
        await two.next()
        response = await ada.get(models(), params={"watch": "1"})
        assert status_of(response)[:2] == (429, "rate_limited")
        assert response.headers["retry-after"] == "1"
        async with watching(grace, models("grace")) as other:
            await other.next()
    await eventually(lambda: not api.app.state.services.streams._open)
    async with watching(ada, models()) as again:
        await again.next()
