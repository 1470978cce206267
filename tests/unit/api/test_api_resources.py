"""Creating, reading, changing and deleting over HTTP, as a client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest
import yaml

from llmos.resources import Credential, ModelService
from llmos_hub.stores.base import Store
from llmos_hub.stores.redis.keys import ResourceKeys
from tests.support.valkey import ValkeyServer
from tests.unit.api.conftest import BASE, SECRET, Api, causes_of, credentials, manifest, models, status_of, token_of

APPLY = {"content-type": "application/apply-patch+yaml"}
MERGE = {"content-type": "application/merge-patch+json"}


async def test_the_life_of_a_model_service(ada: httpx.AsyncClient) -> None:
    created = await ada.post(models(), json=manifest(replicas=2))
    assert created.status_code == 201
    body = created.json()
    assert body["apiVersion"] == "llmos.ai/v1alpha1"
    assert body["metadata"]["namespace"] == "user-ada"
    assert body["metadata"]["generation"] == 1
    assert body["metadata"]["uid"]
    assert body["metadata"]["finalizers"] == [ModelService.finalizer]
    assert body["status"]["phase"] == "Pending"

    assert (await ada.get(models(name="chat"))).json() == body
    assert (await ada.get(models(name="chat") + "/status")).json() == body
    listing = (await ada.get(models())).json()
    assert listing["kind"] == "ModelServiceList"
    assert listing["items"] == [body]
    assert int(listing["metadata"]["resourceVersion"]) >= int(body["metadata"]["resourceVersion"])

    body["spec"]["replicas"] = 3
    body["metadata"]["labels"] = {"team": "vision"}
    replaced = (await ada.put(models(name="chat"), json=body)).json()
    assert replaced["spec"]["replicas"] == 3
    assert replaced["metadata"]["generation"] == 2
    assert replaced["metadata"]["labels"] == {"team": "vision"}

    deleted = await ada.delete(models(name="chat"))
    assert deleted.status_code == 200
    assert deleted.json()["metadata"]["deletionTimestamp"]
    # its controller must end workloads first
    assert (await ada.get(models(name="chat"))).json()["metadata"]["deletionTimestamp"]


async def test_a_kind_without_workloads_is_gone_at_once(ada: httpx.AsyncClient) -> None:
    await ada.post(credentials(), json={"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": SECRET}}})
    assert (await ada.delete(credentials(name="hub"))).status_code == 200
    assert status_of(await ada.get(credentials(name="hub")))[:2] == (404, "not_found")


async def test_what_is_there_already(ada: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest())
    code, word, message = status_of(await ada.post(models(), json=manifest()))
    assert (code, word) == (409, "already_exists")
    assert "user-ada/chat" in message


async def test_what_is_not_there(ada: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest("chat"))
    for request in (
        ada.get(models(name="chta")),
        ada.put(models(name="chta"), json=manifest("chta")),
        ada.patch(models(name="chta"), content=b"{}", headers=MERGE),
        ada.delete(models(name="chta")),
        ada.get(models(name="chta") + "/events"),
        ada.get(models(name="chta") + "/logs"),
    ):
        code, word, message = status_of(await request)
        assert (code, word) == (404, "not_found")
        assert message == 'There is no modelservice "chta" in user-ada. Did you mean "chat"?'
    assert status_of(await ada.get(models(name="zzz")))[2].endswith(" There is: chat.")
    await ada.post(models(), json=manifest("embed"))
    assert status_of(await ada.get(models(name="zzz")))[2].endswith(" There are: chat, embed.")


async def test_conflicts(ada: httpx.AsyncClient) -> None:
    first = (await ada.post(models(), json=manifest())).json()
    await ada.patch(models(name="chat"), json={"spec": {"replicas": 2}}, headers=MERGE)
    first["spec"]["replicas"] = 5
    code, word, message = status_of(await ada.put(models(name="chat"), json=first))
    assert (code, word) == (409, "conflict")
    assert "Read it again" in message
    old_version = {"metadata": {"resourceVersion": first["metadata"]["resourceVersion"]}, "spec": {"replicas": 5}}
    assert (await ada.patch(models(name="chat"), json=old_version, headers=MERGE)).status_code == 409
    assert (await ada.patch(models(name="chat"), content=json.dumps(first), headers=APPLY)).status_code == 409
    del first["metadata"]["resourceVersion"]
    assert (await ada.put(models(name="chat"), json=first)).json()["spec"]["replicas"] == 5
    other_uid = {"preconditions": {"uid": "another"}}
    response = await ada.request("DELETE", models(name="chat"), json=other_uid)
    assert status_of(response)[:2] == (409, "conflict")
    right_uid = {"preconditions": {"uid": first["metadata"]["uid"]}}
    assert (await ada.request("DELETE", models(name="chat"), json=right_uid)).status_code == 200


async def test_patches_at_once_are_all_there_in_the_end(ada: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest())
    patches = (
        ada.patch(models(name="chat"), json={"metadata": {"labels": {f"l{n}": "x"}}}, headers=MERGE) for n in range(20)
    )
    assert {r.status_code for r in await asyncio.gather(*patches)} == {200}
    labels = (await ada.get(models(name="chat"))).json()["metadata"]["labels"]
    assert labels == {f"l{n}": "x" for n in range(20)}


async def test_apply_creates_then_replaces(ada: httpx.AsyncClient) -> None:
    text = yaml.safe_dump({"kind": "ModelService", **manifest(replicas=2), "metadata": {"labels": {"a": "1"}}})
    created = await ada.patch(models(name="chat"), content=text, headers=APPLY)
    assert created.status_code == 201
    assert created.json()["metadata"]["finalizers"] == [ModelService.finalizer]
    again = await ada.patch(models(name="chat"), content=text, headers=APPLY)
    assert again.status_code == 200
    assert again.json()["metadata"]["resourceVersion"] == created.json()["metadata"]["resourceVersion"]
    less = json.dumps({"metadata": {"labels": {"b": "2"}}, "spec": {"model": "demo://tiny"}})
    changed = (await ada.patch(models(name="chat"), content=less, headers=APPLY)).json()
    assert changed["spec"]["replicas"] == 1
    assert changed["metadata"]["labels"] == {"a": "1", "b": "2"}
    await ada.delete(models(name="chat"))
    code, word, message = status_of(await ada.patch(models(name="chat"), content=less, headers=APPLY))
    assert (code, word) == (409, "conflict")
    assert "being deleted" in message


async def test_merge_patch(ada: httpx.AsyncClient) -> None:
    made = manifest(env={"A": "1", "B": "2"}, aliases=["x"])
    made["metadata"]["labels"] = {"a": "1", "b": "2"}
    await ada.post(models(), json=made)
    patch = {"spec": {"env": {"A": None, "C": "3"}, "aliases": ["y"]}, "metadata": {"labels": {"a": None}}}
    body = (await ada.patch(models(name="chat"), json=patch, headers=MERGE)).json()
    assert body["spec"]["env"] == {"B": "2", "C": "3"}
    assert body["spec"]["aliases"] == ["y"]
    assert body["metadata"]["labels"] == {"b": "2"}


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        ({"status": {"phase": "Ready"}}, "status"),
        ({"metadata": {"finalizers": []}}, "metadata.finalizers"),
        ({"metadata": {"finalizers": None}}, "metadata.finalizers"),
        ({"metadata": {"name": "other"}}, "metadata.name"),
        ({"metadata": {"namespace": "user-grace"}}, "metadata.namespace"),
        ({"metadata": {"uid": "mine"}}, "metadata.uid"),
        ({"metadata": {"deletionTimestamp": None}}, "metadata.deletionTimestamp"),
        ({"metadata": "x"}, "metadata"),
        ({"kind": "Credential"}, "kind"),
        ({"sepc": {}}, "sepc"),
        ({"spec": {"replicas": "two"}}, "spec.replicas"),
        ({"spec": {"replicsa": 2}}, "spec.replicsa"),
    ],
)
async def test_what_a_merge_patch_may_not(ada: httpx.AsyncClient, patch: dict[str, object], field: str) -> None:
    before = (await ada.post(models(), json=manifest())).json()
    response = await ada.patch(models(name="chat"), json=patch, headers=MERGE)
    assert response.status_code == 422
    assert set(causes_of(response)) == {field}
    assert (await ada.get(models(name="chat"))).json() == before


async def test_the_platforms_own_fields_are_nobodys(ada: httpx.AsyncClient, store: Store) -> None:
    own = {
        "uid": "0000",
        "generation": 77,
        "creationTimestamp": "2001-01-01T00:00:00Z",
        "deletionTimestamp": "2001-01-01T00:00:00Z",
        "finalizers": ["example.org/keep-for-ever"],
    }
    made = {**manifest(), "status": {"phase": "Ready", "endpoints": [{"replica": "x", "url": "http://127.0.0.1:1"}]}}
    made["metadata"] |= own
    body = (await ada.post(models(), json=made)).json()
    assert body["metadata"]["finalizers"] == [ModelService.finalizer]
    assert body["metadata"]["generation"] == 1
    assert body["metadata"]["uid"] != "0000"
    assert "deletionTimestamp" not in body["metadata"]
    assert not body["metadata"]["creationTimestamp"].startswith("2001")
    assert body["status"]["phase"] == "Pending"
    for finalizers in ([], ["example.org/keep-for-ever"]):
        changed = {**body, "metadata": {**body["metadata"], "finalizers": finalizers}, "status": made["status"]}
        changed["metadata"].pop("resourceVersion")
        assert (await ada.put(models(name="chat"), json=changed)).status_code == 200
        assert (await ada.patch(models(name="chat"), content=json.dumps(changed), headers=APPLY)).status_code == 200
        stored = await store.get(ModelService, "user-ada", "chat")
        assert stored.metadata.finalizers == [ModelService.finalizer]
        assert stored.status.phase == "Pending"
        assert stored.status.endpoints == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "POST", "DELETE"])
async def test_status_is_the_platforms_alone(ada: httpx.AsyncClient, method: str) -> None:
    await ada.post(models(), json=manifest())
    response = await ada.request(method, models(name="chat") + "/status", json={"status": {"phase": "Ready"}})
    code, word, message = status_of(response)
    assert (code, word) == (405, "method_not_allowed")
    assert message == "Only the platform writes status. Change spec instead."
    assert response.headers["allow"] == "GET"


async def test_dry_run_changes_nothing(ada: httpx.AsyncClient) -> None:
    dry = {"dryRun": "All"}
    created = await ada.post(models(), params=dry, json=manifest())
    assert created.status_code == 201
    assert created.json()["metadata"]["finalizers"] == [ModelService.finalizer]
    applied = await ada.patch(models(name="chat"), params=dry, content=json.dumps(manifest()), headers=APPLY)
    assert applied.status_code == 201
    assert (await ada.get(models())).json()["items"] == []
    before = (await ada.post(models(), json=manifest())).json()
    assert (await ada.post(models(), params=dry, json=manifest())).status_code == 409
    more = manifest(replicas=4)
    for response in (
        await ada.put(models(name="chat"), params=dry, json=more),
        await ada.patch(models(name="chat"), params=dry, content=json.dumps(more), headers=APPLY),
        await ada.patch(models(name="chat"), params=dry, json={"spec": {"replicas": 4}}, headers=MERGE),
    ):
        assert response.status_code == 200
        assert response.json()["spec"]["replicas"] == 4
        assert response.json()["metadata"]["generation"] == 2
    gone = await ada.delete(models(name="chat"), params=dry)
    assert gone.json()["metadata"]["deletionTimestamp"]
    assert (await ada.get(models(name="chat"))).json() == before
    assert status_of(await ada.post(models(), params={"dryRun": "yes"}, json=manifest()))[:2] == (400, "usage")


async def test_messages_name_the_field(ada: httpx.AsyncClient) -> None:
    wrong = manifest("Chat 1", resources={"memory": "2GiB"}, replica=2)
    response = await ada.post(models(), json=wrong)
    assert response.status_code == 422
    causes = causes_of(response)
    assert set(causes) == {"metadata.name", "spec.resources.memory", "spec.replica"}
    assert 'Did you mean "2Gi"' in causes["spec.resources.memory"]
    assert 'Did you mean "replicas"' in causes["spec.replica"]
    assert 'Did you mean "chat-1"' in causes["metadata.name"]


@pytest.mark.parametrize("name", ["chat\n", "chat\u0000", "../x", "", "a" * 64, "ä"])
async def test_names_that_are_none(ada: httpx.AsyncClient, name: str) -> None:
    response = await ada.post(models(), json=manifest(name))
    assert response.status_code == 422
    assert set(causes_of(response)) == {"metadata.name"}


async def test_zero_bytes_and_half_characters_are_refused(ada: httpx.AsyncClient) -> None:
    for spec in ({"args": ["--a", "x\u0000y"]}, {"env": {"A": "x\u0000"}}):
        response = await ada.post(models(), json=manifest(**spec))
        assert response.status_code == 422
        assert "zero byte" in response.json()["message"]
    broken = json.dumps(manifest(env={"A": "x"})).replace('"x"', '"\\ud800"')
    response = await ada.post(models(), content=broken, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert set(causes_of(response)) == {"spec.env.A"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"metadata": {"name": "chat", "namespace": "user-grace"}}, "metadata.namespace"),
        ({"metadata": {"name": "other"}}, "metadata.name"),
        ({"kind": "Credential"}, "kind"),
        ({"apiVersion": "llmos.ai/v2"}, "apiVersion"),
    ],
)
async def test_the_body_must_agree_with_the_address(
    ada: httpx.AsyncClient, body: dict[str, object], field: str
) -> None:
    text = json.dumps({**manifest(), **body})
    for request in (
        ada.put(models(name="chat"), content=text, headers={"content-type": "application/json"}),
        ada.patch(models(name="chat"), content=text, headers=APPLY),
    ):
        response = await request
        assert response.status_code == 422
        assert set(causes_of(response)) == {field}


async def test_namespaces_have_a_form(root: httpx.AsyncClient) -> None:
    for namespace in ("user-ada", "group-vision", "public"):
        path = f"{BASE}/namespaces/{namespace}/modelservices"
        assert (await root.post(path, json=manifest())).status_code == 201
    for namespace in ("default", "kube-system", "user-", "publics"):
        response = await root.post(f"{BASE}/namespaces/{namespace}/modelservices", json=manifest())
        assert response.status_code == 422
        assert set(causes_of(response)) == {"metadata.namespace"}
    everywhere = (await root.get(f"{BASE}/modelservices")).json()["items"]
    assert [i["metadata"]["namespace"] for i in everywhere] == ["group-vision", "public", "user-ada"]


async def test_selection(ada: httpx.AsyncClient) -> None:
    for name, labels in (("a", {"team": "x"}), ("b", {"team": "x", "tier": "1"}), ("c", {})):
        await ada.post(models(), json={**manifest(name), "metadata": {"name": name, "labels": labels}})

    async def names(**query: str) -> list[str]:
        return [i["metadata"]["name"] for i in (await ada.get(models(), params=query)).json()["items"]]

    assert await names() == ["a", "b", "c"]
    assert await names(labelSelector="team=x") == ["a", "b"]
    assert await names(labelSelector="team==x, tier=1") == ["b"]
    assert await names(fieldSelector="metadata.name=c") == ["c"]
    for query in ({"labelSelector": "team!=x"}, {"labelSelector": "team"}, {"labelSelector": "team in (x)"}):
        assert status_of(await ada.get(models(), params=query))[:2] == (400, "usage")
    assert status_of(await ada.get(models(), params={"fieldSelector": "status.phase=Ready"}))[0] == 400


async def test_a_model_name_has_one_owner(ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest("one", servedModelName="smol", aliases=["small"]))
    response = await ada.post(models(), json=manifest("small", aliases=["smol", "free"]))
    assert status_of(response)[:2] == (409, "already_exists")
    assert set(causes_of(response)) == {"metadata.name", "spec.aliases[0]"}
    assert (await ada.post(models(), json=manifest("two"))).status_code == 201
    response = await ada.patch(models(name="two"), json={"spec": {"servedModelName": "one"}}, headers=MERGE)
    assert set(causes_of(response)) == {"spec.servedModelName"}
    assert (await grace.post(models("grace"), json=manifest("smol"))).status_code == 201


async def test_a_model_name_has_one_owner_also_when_two_come_at_once(ada: httpx.AsyncClient) -> None:
    made = await asyncio.gather(
        *(ada.post(models(), json=manifest(f"m{n}", servedModelName="wanted")) for n in range(8))
    )
    assert sorted(r.status_code for r in made) == [201] + [409] * 7


async def test_a_namespace_holds_so_many(api: Api, ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    api.environ["LLMOS_SETTING_API_MAX_RESOURCES_PER_NAMESPACE"] = "3"
    made = await asyncio.gather(*(ada.post(models(), json=manifest(f"m{n}")) for n in range(5)))
    assert sorted(r.status_code for r in made) == [201] * 3 + [409] * 2
    code, word, message = status_of(await ada.post(models(), json=manifest("more")))
    assert (code, word) == (409, "insufficient_resources")
    assert "user-ada holds 3 modelservices already" in message
    there = (await ada.get(models())).json()["items"][0]["metadata"]["name"]
    assert (await ada.patch(models(name=there), json={"spec": {"paused": True}}, headers=MERGE)).status_code == 200
    assert (await grace.post(models("grace"), json=manifest())).status_code == 201


async def test_secrets_never_come_back(ada: httpx.AsyncClient, root: httpx.AsyncClient, store: Store) -> None:
    made = {"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": SECRET, "OTHER": SECRET}}}
    responses = [
        await ada.post(credentials(), params={"dryRun": "All"}, json=made),
        await ada.post(credentials(), json=made),
        await ada.get(credentials()),
        await ada.get(credentials(name="hub")),
        await ada.get(credentials(name="hub") + "/status"),
        await ada.put(credentials(name="hub"), json=made),
        await ada.patch(credentials(name="hub"), content=json.dumps(made), headers=APPLY),
        await ada.patch(credentials(name="hub"), json={"spec": {"data": {"NEW": SECRET}}}, headers=MERGE),
        await ada.post(credentials(), json={**made, "spec": {"data": {"bad key": SECRET}}}),
        await ada.patch(credentials(name="hub"), json={"spec": {"data": {"NEW": {"x": SECRET}}}}, headers=MERGE),
        await root.get(f"{BASE}/credentials"),
        await ada.delete(credentials(name="hub"), params={"dryRun": "All"}),
    ]
    for response in responses:
        assert SECRET not in response.text
        assert SECRET not in str(response.headers)
    assert [r.status_code for r in responses] == [201, 201, *[200] * 6, 422, 422, 200, 200]
    body = responses[7].json()
    assert "data" not in body["spec"]
    assert body["status"]["keys"] == ["HF_TOKEN", "NEW", "OTHER"]
    assert body["status"]["lastChanged"]
    stored = await store.get(Credential, "user-ada", "hub")
    assert stored.spec.data == {"HF_TOKEN": SECRET, "OTHER": SECRET, "NEW": SECRET}


async def test_sending_back_what_was_read_keeps_the_secrets(ada: httpx.AsyncClient, store: Store) -> None:
    made = {"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": SECRET}}}
    body = (await ada.post(credentials(), json=made)).json()
    changed_at = body["status"]["lastChanged"]
    body["metadata"]["labels"] = {"team": "vision"}
    body = (await ada.put(credentials(name="hub"), json=body)).json()
    body = (await ada.patch(credentials(name="hub"), content=json.dumps(body), headers=APPLY)).json()
    assert body["metadata"]["labels"] == {"team": "vision"}
    assert body["status"] == {"keys": ["HF_TOKEN"], "lastChanged": changed_at}
    assert (await store.get(Credential, "user-ada", "hub")).spec.data == {"HF_TOKEN": SECRET}
    body["spec"] = {"data": {}}
    body = (await ada.put(credentials(name="hub"), json=body)).json()
    assert body["status"]["keys"] == []
    assert body["status"]["lastChanged"] > changed_at
    assert (await store.get(Credential, "user-ada", "hub")).spec.data == {}


async def test_settings(api: Api, root: httpx.AsyncClient, ada: httpx.AsyncClient) -> None:
    path = f"{BASE}/settings"
    listed = {i["metadata"]["name"]: i["status"] for i in (await ada.get(path)).json()["items"]}
    assert listed["api-max-body-bytes"]["value"] == "524288"
    assert listed["api-max-body-bytes"]["source"] == "default"
    assert "LLMOS_SETTING_API_MAX_BODY_BYTES" in listed["api-max-body-bytes"]["description"]

    one = f"{path}/api-max-streams-per-user"
    changed = await root.patch(one, content=json.dumps({"spec": {"value": "7"}}), headers=APPLY)
    assert changed.status_code == 201
    assert changed.json()["status"] | {"description": ""} == {
        "value": "7", "default": "100", "source": "resource", "description": "",
    }  # fmt: skip
    api.environ["LLMOS_SETTING_API_MAX_STREAMS_PER_USER"] = "9"
    assert (await ada.get(one)).json()["status"]["value"] == "9"
    assert (await ada.get(one)).json()["status"]["source"] == "environment"
    api.environ["LLMOS_SETTING_API_MAX_STREAMS_PER_USER"] = "many"
    assert (await ada.get(one)).json()["status"]["value"] == "7"
    api.environ.clear()
    assert (await root.delete(one)).status_code == 200
    assert (await ada.get(one)).json()["status"]["source"] == "default"

    wrong = await root.patch(one, content=json.dumps({"spec": {"value": "-1"}}), headers=APPLY)
    assert set(causes_of(wrong)) == {"spec.value"}
    assert "whole number from 1 to 10000" in wrong.text
    unknown = await root.post(path, json={"metadata": {"name": "api-max-streams"}, "spec": {"value": "1"}})
    assert unknown.status_code == 422
    assert 'Did you mean "api-max-streams-per-user"?' in status_of(unknown)[2]
    assert 'Did you mean "api-max-body-bytes"?' in status_of(await ada.get(f"{path}/api-max-body"))[2]
    assert "Set it with apply" in status_of(await root.patch(one, json={"spec": {"value": "1"}}, headers=MERGE))[2]
    assert "Set it with apply" in status_of(await root.delete(one))[2]
    assert status_of(await ada.patch(one, content=json.dumps({"spec": {"value": "1"}}), headers=APPLY))[0] == 403


async def test_events(ada: httpx.AsyncClient, store: Store) -> None:
    await ada.post(models(), json=manifest())
    stored = await store.get(ModelService, "user-ada", "chat")
    await store.record(stored, "Normal", "Started", "llama.cpp was started")
    for _ in range(2):
        await store.record(stored, "Warning", "OutOfMemory", "used 4 of 4 GiB")
    items = (await ada.get(models(name="chat") + "/events")).json()["items"]
    assert [(i["type"], i["reason"], i["message"], i["count"]) for i in items] == [
        ("Normal", "Started", "llama.cpp was started", 1),
        ("Warning", "OutOfMemory", "used 4 of 4 GiB", 2),
    ]
    assert items[1]["firstTimestamp"].endswith("Z")


@pytest.mark.parametrize("value", [f"{SECRET}\n", f"  {SECRET}\r\n", f"\n\t{SECRET}"])
async def test_blanks_and_line_ends_around_a_secret_are_taken_off(
    ada: httpx.AsyncClient, store: Store, value: str
) -> None:
    made = {"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": value}}}
    for response in (
        await ada.post(credentials(), json=made),
        await ada.put(credentials(name="hub"), json=made),
        await ada.patch(credentials(name="hub"), content=json.dumps(made), headers=APPLY),
        await ada.patch(credentials(name="hub"), json={"spec": made["spec"]}, headers=MERGE),
    ):
        assert response.is_success
        assert (await store.get(Credential, "user-ada", "hub")).spec.data == {"HF_TOKEN": SECRET}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (f"{SECRET}\nX-Evil: 1", "a line end in the middle"),
        (f"{SECRET}\x00", "a control character"),
        (f"{SECRET}\x7fx", "a control character"),
        (f"{SECRET}é", "not ASCII"),
    ],
)
async def test_a_secret_that_no_header_can_hold_is_refused_in_words(
    ada: httpx.AsyncClient, value: str, said: str
) -> None:
    made = {"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": SECRET}}}
    assert (await ada.post(credentials(), json=made)).status_code == 201
    bad = {"metadata": {"name": "hub"}, "spec": {"data": {"HF_TOKEN": value}}}
    for response in (
        await ada.post(credentials(), json={**bad, "metadata": {"name": "other"}}),
        await ada.put(credentials(name="hub"), json=bad),
        await ada.patch(credentials(name="hub"), content=json.dumps(bad), headers=APPLY),
        await ada.patch(credentials(name="hub"), json={"spec": bad["spec"]}, headers=MERGE),
    ):
        assert status_of(response)[:2] == (422, "invalid")
        assert said in causes_of(response)["spec.data.HF_TOKEN"]
        assert SECRET not in response.text


async def test_two_authorization_headers_are_refused(api: Api) -> None:
    both = [("authorization", f"Bearer {token_of(name)}") for name in ("ada", "root")]
    async with api.client(None) as client:
        for headers in (both, both[::-1], [both[0], both[0]]):
            response = await client.get(models(), headers=headers)
            assert status_of(response)[:2] == (400, "bad_request")
            assert "twice" in response.json()["message"]


async def test_an_exported_manifest_says_what_to_leave_out(ada: httpx.AsyncClient) -> None:
    exported = (await ada.post(models(), json=manifest())).json()
    exported["metadata"] |= {"managedFields": [{"manager": "kubectl"}], "selfLink": "/x"}  # what a cluster writes along
    body = json.dumps(exported)
    assert (await ada.patch(models(name="chat"), content=body, headers=APPLY)).status_code == 200
    await ada.patch(models(name="chat"), json={"spec": {"replicas": 2}}, headers=MERGE)
    changed = await ada.patch(models(name="chat"), content=body, headers=APPLY)
    assert (await ada.delete(models(name="chat"))).status_code == 200
    other = {**exported, "metadata": {**exported["metadata"], "name": "other"}}
    gone = await ada.patch(models(name="other"), content=json.dumps(other), headers=APPLY)
    for response in (changed, gone):
        assert status_of(response)[:2] == (409, "conflict")
        assert "metadata.uid and metadata.resourceVersion" in response.json()["message"]
    for field in ("uid", "resourceVersion"):
        del other["metadata"][field]
    assert (await ada.patch(models(name="other"), content=json.dumps(other), headers=APPLY)).status_code == 201


async def test_only_admins_open_callers_prompts_to_each_other(ada: httpx.AsyncClient, root: httpx.AsyncClient) -> None:
    def address(namespace: str, name: str = "") -> str:
        return f"{BASE}/namespaces/{namespace}/modelservices" + (f"/{name}" if name else "")

    team, shared = address("group-vision"), manifest(promptCache="shared")
    refused = await ada.post(team, json=shared)
    assert status_of(refused)[:2] == (403, "forbidden")
    assert causes_of(refused) == {"spec.promptCache": "shared is for admins to set"}
    assert (await ada.post(team, json=manifest(promptCache="perCaller"))).status_code == 201
    one = address("group-vision", "chat")
    assert (await ada.patch(one, json={"spec": {"promptCache": "shared"}}, headers=MERGE)).status_code == 403
    assert (await ada.put(one, json=shared)).status_code == 403
    assert (await ada.patch(one, json=shared, headers=APPLY)).status_code == 403
    # nor by the fields' names in Python, which aren't the API's
    for spec in ({"promptCache": None, "prompt_cache": "shared"}, {"prompt_cache": "shared"}):
        refused = await ada.patch(one, json={"spec": spec}, headers=MERGE)
        assert (refused.status_code, [*causes_of(refused)]) == (422, ["spec.prompt_cache"])
    other = manifest(prompt_cache="shared")
    for refused in (await ada.put(one, json=other), await ada.patch(one, json=other, headers=APPLY)):
        assert (refused.status_code, [*causes_of(refused)]) == (422, ["spec.prompt_cache"])
    assert (await ada.get(one)).json()["spec"]["promptCache"] == "perCaller"
    assert (await root.patch(one, json={"spec": {"promptCache": "shared"}}, headers=MERGE)).status_code == 200
    # a value set by an admin stays when others change the rest, and may be reset by others
    kept = await ada.patch(one, json=manifest(promptCache="shared", replicas=2), headers=APPLY)
    assert kept.json()["spec"]["replicas"] == 2
    assert (await ada.patch(one, json={"spec": {"promptCache": "auto"}}, headers=MERGE)).status_code == 200
    assert (await ada.post(address("user-ada"), json=shared)).status_code == 201


async def test_what_this_version_cannot_read_is_seen_replaced_and_deleted(
    ada: httpx.AsyncClient, valkey_server: ValkeyServer
) -> None:
    await ada.post(models(), json=manifest())
    with contextlib.closing(valkey_server.client()) as raw:
        key = ResourceKeys().objects("modelservices", "user-ada")

        def spoil() -> None:
            raw.hset(key, "chat", raw.hget(key, "chat").replace(b'"spec":{', b'"spec":{"fromTheFuture":1,'))

        spoil()
        (listed,) = (await ada.get(models())).json()["items"]
        assert listed["metadata"]["name"] == "chat"
        refused = await ada.patch(models(name="chat"), json={"spec": {"replicas": 2}}, headers=MERGE)
        assert refused.status_code == 422
        assert "fromTheFuture" in refused.json()["message"]
        assert b"fromTheFuture" in raw.hget(key, "chat")
        assert (await ada.patch(models(name="chat"), json=manifest(), headers=APPLY)).status_code == 200
        assert b"fromTheFuture" not in raw.hget(key, "chat")
        spoil()
        deleted = await ada.request("DELETE", models(name="chat"), json={"preconditions": {"uid": "other"}})
        assert deleted.status_code == 409
        assert (await ada.delete(models(name="chat"))).json()["metadata"]["deletionTimestamp"]
        assert b"fromTheFuture" in raw.hget(key, "chat"), "until its processes have ended"
