"""Isolation of two people: neither sees, changes or deletes resources of the other, on any route and method.

The routes are listed from the application, so that a new one is covered, or fails here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from starlette.routing import Route

from llmos.resources import KINDS, ModelService, Setting
from llmos_hub.api.endpoints import APIEndpoint, OpenOperation
from llmos_hub.api.routes import make_routes
from llmos_hub.names import API_PREFIX, SCOPE_INVOKE
from llmos_hub.stores.base import Store
from tests.unit.api.conftest import SECRET, Api, Watching, credentials, manifest, models, token_of

MARK = "only-ada-may-read-this"
OPEN = {"/", "/docs", "/openapi.json", "/health", "/ready"}
"""The only routes that answer without a token."""
FOR_EVERYONE = OPEN | {
    "/apis",
    "/apis/llmos.ai",
    "/apis/llmos.ai/v1alpha1",
    "/apis/llmos.ai/v1alpha1/nodes",
    "/apis/llmos.ai/v1alpha1/whoami",
}
FILTERED = {f"/apis/llmos.ai/v1alpha1/{kind.plural}" for kind in KINDS.values() if kind.scope == "Namespaced"}
"""Lists and watches of all namespaces, in which each caller sees their own."""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BODIES = (
    ("application/json", json.dumps({"metadata": {"name": "chat"}, "spec": {"model": "demo://tiny"}})),
    ("application/merge-patch+json", json.dumps({"spec": {"paused": True}})),
    ("application/apply-patch+yaml", json.dumps({"spec": {"model": "demo://tiny"}})),
)
QUERIES: tuple[dict[str, str], ...] = ({}, {"watch": "1", "timeoutSeconds": "1"}, {"follow": "1", "dryRun": "All"})


@dataclass(frozen=True)
class Case:
    """A method of a route, requested for ada's resources."""

    path: str
    template: str
    method: str
    offered: bool
    open: bool

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def _cases() -> Iterator[Case]:
    for route in make_routes():
        assert isinstance(route, Route)
        endpoint = route.endpoint
        assert isinstance(endpoint, APIEndpoint), (
            f"{route.path} is not made of an APIEndpoint, so nothing asks who calls"
        )
        path = route.path.replace("{namespace}", "user-ada").replace("{name}", "chat")
        assert "{" not in path, f"a new parameter in {path}: say here what is ada's"
        for method in METHODS:
            operation = endpoint.operations.get(method)
            is_open = isinstance(operation, OpenOperation)
            for prefix in ("", API_PREFIX):
                yield Case(prefix + path, route.path, method, operation is not None, is_open)


CASES = list(_cases())


@pytest.fixture
async def adas(api: Api, ada: httpx.AsyncClient, store: Store) -> Store:
    """Resources of ada's, each with a marker that nobody else may see."""
    api.environ["LLMOS_SETTING_API_MAX_WRITES_PER_SECOND_AND_USER"] = "100000"
    made = manifest(env={"MARK": MARK})
    made["metadata"]["labels"] = {"mark": MARK}
    assert (await ada.post(models(), json=made)).status_code == 201
    secret = {"metadata": {"name": "chat", "annotations": {"mark": MARK}}, "spec": {"data": {"HF_TOKEN": SECRET}}}
    assert (await ada.post(credentials(), json=secret)).status_code == 201
    stored = await store.get(ModelService, "user-ada", "chat")
    await store.record(stored, "Normal", "Started", MARK)
    return store


async def _snapshot(store: Store) -> list[dict[str, object]]:
    return [r.dump() for kind in KINDS.values() for r in (await store.list(kind)).items]


def test_every_kind_has_routes() -> None:
    for kind in KINDS.values():
        assert any(f"/{kind.plural}/{{name}}/status" in case.template for case in CASES)
    assert {case.template for case in CASES if case.open} == OPEN


async def _try(client: httpx.AsyncClient, case: Case) -> list[httpx.Response]:
    """Return all forms of the request; one is enough if the answer can't depend on the form."""
    if not case.offered or case.template in FOR_EVERYONE or "/settings" in case.template:
        return [
            await client.request(case.method, case.path, content=BODIES[0][1], headers={"content-type": BODIES[0][0]})
        ]
    bodies = [({"content-type": media_type}, body) for media_type, body in BODIES]
    return list(
        await asyncio.gather(
            *(
                client.request(case.method, case.path, params=query, headers=headers, content=body)
                for query in QUERIES
                for headers, body in (bodies if case.method in {"POST", "PUT", "PATCH", "DELETE"} else [({}, None)])
            )
        )
    )


async def test_another_person_gets_nothing_and_changes_nothing(adas: Store, grace: httpx.AsyncClient) -> None:
    before = await _snapshot(adas)
    for case in CASES:
        for response in await _try(grace, case):
            assert MARK not in response.text, case
            assert SECRET not in response.text, case
            if case.template in FOR_EVERYONE:
                continue
            what_is_for_all = "/settings" in case.template and case.method == "GET"
            if not case.offered:
                assert response.status_code == 405, case
            elif what_is_for_all:
                assert response.status_code in {200, 404}, case
            elif case.template in FILTERED:
                assert response.status_code == 200, case
                assert '"items":[]' in response.text or '"BOOKMARK"' in response.text, (case, response.text)
            elif "/settings" in case.template:
                assert response.status_code in {403, 415}, (case, response.text)
            else:
                assert response.status_code in {403, 415}, (case, response.text)
                # the same whether it exists or not
                assert "chat" not in response.text.replace("application/merge-patch", ""), case
    assert await _snapshot(adas) == before


async def test_a_refusal_is_the_same_whether_there_is_something_or_not(adas: Store, grace: httpx.AsyncClient) -> None:
    for path in (models(), credentials()):
        there = (await grace.get(f"{path}/chat")).json()
        not_there = (await grace.get(f"{path}/nothing")).json()
        assert there["message"] == not_there["message"]
        assert there["code"] == not_there["code"] == 403


@pytest.mark.parametrize(
    "token", [None, "not-a-token-of-anyone", token_of("ada")[:-1], "token-of-ada-9876543210", "x" * 3000]
)
async def test_without_a_good_token_nothing_but_the_open_pages(adas: Store, api: Api, token: str | None) -> None:
    before = await _snapshot(adas)
    async with api.client(token) as client:
        # cookies and tokens in the query are ignored
        client.cookies.set("jupyterhub-session-id", token_of("ada"))
        for case in CASES:
            response = await client.request(case.method, case.path, params={"token": token_of("ada")})
            assert MARK not in response.text, case
            if not case.offered:
                assert response.status_code == 405, case
            elif case.open:
                assert response.status_code == 200, case
            else:
                assert response.status_code == 401, case
                assert response.headers["www-authenticate"] == "Bearer"
    assert await _snapshot(adas) == before


async def test_a_token_for_models_only_does_nothing_here(adas: Store, api: Api) -> None:
    token = api.hub.add_token("ada", "narrow-token-of-ada", scopes=(SCOPE_INVOKE,))
    before = await _snapshot(adas)
    async with api.client(token) as client:
        for case in CASES:
            if case.template in FOR_EVERYONE or not case.offered:
                continue
            for response in await _try(client, case):
                assert response.status_code in {403, 415}, case
                assert MARK not in response.text, case
    assert await _snapshot(adas) == before


async def test_other_ways_to_write_the_namespace(adas: Store, grace: httpx.AsyncClient) -> None:
    paths = (
        models().replace("user-ada", "user-grace/../user-ada"),
        models().replace("user-ada", "user-grace%2F..%2Fuser-ada"),
        models().replace("user-ada", "user-ada%00"),
        models().replace("user-ada", "USER-ADA"),
        models().replace("user-ada", "user-ada%20"),
        models().replace("user-ada", ""),
        models("grace").replace("modelservices", "modelservices/..%2F..%2Fuser-ada%2Fmodelservices%2Fchat"),
        "/" + models(),
        models() + "/",
        f"{API_PREFIX}{API_PREFIX}{models()}",
    )
    for path in paths:
        # httpx would normalize a plain path
        response = await grace.get(f"{str(grace.base_url).rstrip('/')}{path}")
        assert response.status_code in {403, 404}, (path, response.text)
        assert MARK not in response.text


@pytest.fixture
async def everywhere(adas: Store, root: httpx.AsyncClient) -> None:
    """More resources, beside ada's, in every kind of namespace."""
    for namespace in ("user-grace", "group-vision", "group-nlp", "public"):
        for plural, body in (("modelservices", manifest()), ("credentials", {"metadata": {"name": "chat"}})):
            path = f"/apis/llmos.ai/v1alpha1/namespaces/{namespace}/{plural}"
            assert (await root.post(path, json=body)).status_code == 201


@pytest.mark.usefixtures("everywhere")
async def test_a_list_of_all_namespaces_has_what_the_caller_may_see(
    ada: httpx.AsyncClient, grace: httpx.AsyncClient, root: httpx.AsyncClient
) -> None:
    every = ["group-nlp", "group-vision", "public", "user-ada", "user-grace"]
    wanted = {
        ("ada", "modelservices"): ["group-vision", "public", "user-ada"],
        ("ada", "credentials"): ["group-vision", "user-ada"],
        ("grace", "modelservices"): ["public", "user-grace"],
        ("grace", "credentials"): ["user-grace"],
        ("root", "modelservices"): every,
        ("root", "credentials"): every,
    }
    for (who, plural), namespaces in wanted.items():
        client = {"ada": ada, "grace": grace, "root": root}[who]
        path = f"/apis/llmos.ai/v1alpha1/{plural}"
        found = (await client.get(path)).json()
        assert sorted(item["metadata"]["namespace"] for item in found["items"]) == namespaces, (who, plural)
        # in pages
        seen, token = [], ""
        while True:
            page = (await client.get(path, params={"limit": "1", **({"continue": token} if token else {})})).json()
            assert len(page["items"]) <= 1
            seen += [item["metadata"]["namespace"] for item in page["items"]]
            if not (token := page["metadata"].get("continue", "")):
                break
        assert sorted(seen) == namespaces, (who, plural)


@pytest.mark.usefixtures("everywhere")
async def test_a_place_in_a_list_is_of_use_to_nobody_else(ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    path = "/apis/llmos.ai/v1alpha1/modelservices"
    first = (await ada.get(path, params={"limit": "1"})).json()
    second = (await ada.get(path, params={"limit": "1", "continue": first["metadata"]["continue"]})).json()
    for begin in (second["metadata"]["continue"], "group-vision:", "group-nlp:"):
        refused = await grace.get(path, params={"limit": "1", "continue": begin})
        assert refused.status_code == 410, refused.text


@pytest.mark.usefixtures("everywhere")
async def test_a_watch_of_all_namespaces_has_what_the_caller_may_see(
    ada: httpx.AsyncClient, grace: httpx.AsyncClient
) -> None:
    path = "/apis/llmos.ai/v1alpha1/modelservices"
    version = (await grace.get(path)).json()["metadata"]["resourceVersion"]
    async with grace.stream("GET", path, params={"watch": "1", "resourceVersion": version}) as response:
        watching = Watching(response)
        assert (await ada.delete(f"{models()}/chat")).status_code == 200
        assert (await grace.delete(models("grace", "chat"))).status_code == 200
        changes = [await watching.next()]
        while changes[-1][1]["metadata"].get("namespace") != "user-grace":
            changes.append(await watching.next())
    assert {body["metadata"].get("namespace") for type_, body in changes if type_ != "BOOKMARK"} == {"user-grace"}


async def test_public_is_read_by_all_and_written_by_admins(
    api: Api, root: httpx.AsyncClient, ada: httpx.AsyncClient
) -> None:
    path = "/apis/llmos.ai/v1alpha1/namespaces/public"
    assert (await root.post(f"{path}/modelservices", json=manifest())).status_code == 201
    assert (await root.post(f"{path}/credentials", json={"metadata": {"name": "hub"}})).status_code == 201
    assert (await ada.get(f"{path}/modelservices/chat")).status_code == 200
    assert (await ada.get(f"{path}/modelservices")).json()["items"][0]["metadata"]["name"] == "chat"
    assert (await ada.delete(f"{path}/modelservices/chat")).status_code == 403
    assert (await ada.post(f"{path}/modelservices", json=manifest("x"))).status_code == 403
    assert (await ada.get(f"{path}/credentials")).status_code == 403
    assert (await ada.get(f"{path}/credentials/hub")).status_code == 403


async def test_settings_are_read_by_all_and_written_by_admins(ada: httpx.AsyncClient, store: Store) -> None:
    path = "/apis/llmos.ai/v1alpha1/settings"
    made = {"metadata": {"name": "api-max-streams-per-user"}, "spec": {"value": "1"}}
    assert (await ada.get(path)).status_code == 200
    assert (await ada.post(path, json=made)).status_code == 403
    assert (await store.list(Setting)).items == []
