"""Nodes and namespaces over HTTP, on a workstation."""

from __future__ import annotations

import httpx

from tests.unit.api.conftest import BASE, Api, manifest, models, status_of


async def test_everyone_sees_the_machine_and_admins_whose_what_is(
    api: Api, ada: httpx.AsyncClient, grace: httpx.AsyncClient, root: httpx.AsyncClient
) -> None:
    assert (await ada.post(models(), json=manifest())).status_code == 201
    for client in (ada, grace, root):
        answer = await client.get(f"{BASE}/nodes")
        assert answer.status_code == 200
        body = answer.json()
        assert body["kind"] == "NodeList"
        (node,) = body["items"]
        assert node["roles"] == ["workstation"]
        assert 0 < node["memoryFree"] <= node["memory"]
        assert node["running"] == []  # nothing has processes yet


async def test_without_a_token_nothing_is_said(nobody: httpx.AsyncClient) -> None:
    assert status_of(await nobody.get(f"{BASE}/nodes"))[0] == 401
    assert status_of(await nobody.post(f"{BASE}/namespaces/user-ada"))[0] == 401


async def test_on_a_workstation_ones_namespace_is_there(ada: httpx.AsyncClient) -> None:
    answer = await ada.post(f"{BASE}/namespaces/user-ada")
    assert answer.status_code == 200
    assert answer.json()["status"] == {"prepared": True, "owner": {"kind": "user", "name": "ada"}, "serviceAccount": ""}
    group = await ada.post(f"{BASE}/namespaces/group-vision")
    assert group.json()["status"]["owner"] == {"kind": "group", "name": "vision"}
    code, word, message = status_of(await ada.post(f"{BASE}/namespaces/user-grace"))
    assert (code, word) == (403, "forbidden")
    assert message == "The namespace user-grace is not yours. Yours is user-ada."
