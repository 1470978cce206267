"""Rights that are restricted to resources by name or label, in the API: every operation checks the item."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from llmos_hub.policy import Rights, Rule
from tests.unit.api.conftest import BASE, Api, manifest, models, token_of, watching

KINDS = frozenset({"modelservices"})
BY_NAME = Rule(frozenset({"get", "list", "delete"}), KINDS, frozenset({"user-ada"}), frozenset({"chat", "no"}))
BY_LABEL = Rule(
    frozenset({"get", "list", "watch", "create", "update", "delete"}),
    KINDS,
    frozenset({"user-ada"}),
    labels={"team": "nlp"},
)


def labelled(name: str, team: str = "") -> dict[str, object]:
    made = manifest(name)
    made["metadata"]["labels"] = {"team": team} if team else {}
    return made


@pytest.fixture
async def granted(api: Api, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> dict[str, Rule]:
    """The rule that each person has beside those for everybody; ada has three models."""
    for name, team in (("chat", ""), ("draft", "nlp"), ("secret", "vision")):
        assert (await ada.post(models(), json=labelled(name, team))).status_code == 201
    rules: dict[str, Rule] = {}
    identity = api.app.state.services.identity
    inner = identity.authenticate

    async def authenticate(token: str) -> Rights:
        rights = await inner(token)
        rule = rules.get(rights.caller.name)
        return rights if rule is None else replace(rights, granted=(rule,))

    monkeypatch.setattr(identity, "authenticate", authenticate)
    return rules


@pytest.fixture
async def grace(api: Api, granted: dict[str, Rule]) -> AsyncIterator[httpx.AsyncClient]:
    async with api.client(token_of("grace")) as client:
        yield client


async def names(client: httpx.AsyncClient, path: str, **query: str) -> list[str]:
    response = await client.get(path, params=query)
    assert response.status_code == 200, response.text
    return [item["metadata"]["name"] for item in response.json()["items"]]


async def test_by_name(granted: dict[str, Rule], grace: httpx.AsyncClient) -> None:
    assert (await grace.get(models())).status_code == 403
    granted["grace"] = BY_NAME
    assert await names(grace, models()) == ["chat"]
    assert await names(grace, f"{BASE}/modelservices") == ["chat"]
    assert (await grace.get(models(name="chat"))).status_code == 200
    assert (await grace.get(models(name="draft"))).status_code == 403
    assert (await grace.put(models(name="chat"), json=manifest())).status_code == 403
    missing = await grace.get(models(name="no"))
    assert missing.status_code == 404
    assert not {"chat", "draft", "secret"} & set(missing.json()["message"].replace('"', " ").split())
    assert (await grace.delete(models(name="secret"))).status_code == 403
    assert (await grace.delete(models(name="chat"))).status_code == 200


async def test_by_label(granted: dict[str, Rule], grace: httpx.AsyncClient) -> None:
    granted["grace"] = BY_LABEL
    assert await names(grace, models()) == ["draft"]
    assert await names(grace, models(), limit="1") in (["draft"], [])
    assert (await grace.get(models(name="draft"))).status_code == 200
    assert (await grace.get(models(name="secret"))).status_code == 403
    assert (await grace.delete(models(name="secret"))).status_code == 403
    assert (await grace.post(models(), json=labelled("own"))).status_code == 403
    assert (await grace.post(models(), json=labelled("own", "nlp"))).status_code == 201
    assert (await grace.put(models(name="own"), json=labelled("own", "vision"))).status_code == 403
    assert (await grace.put(models(name="own"), json=labelled("own", "nlp"))).status_code == 200
    assert (await grace.put(models(name="secret"), json=labelled("secret", "nlp"))).status_code == 403
    assert await names(grace, models()) == ["draft", "own"]


async def test_a_watch_shows_the_same_as_a_list(
    granted: dict[str, Rule], ada: httpx.AsyncClient, grace: httpx.AsyncClient
) -> None:
    granted["grace"] = BY_LABEL
    async with watching(grace, models()) as watch:
        assert await watch.change() == ("ADDED", "draft")
        assert (await ada.post(models(), json=labelled("hidden", "vision"))).status_code == 201
        assert (await ada.post(models(), json=labelled("shown", "nlp"))).status_code == 201
        assert await watch.change() == ("ADDED", "shown")
