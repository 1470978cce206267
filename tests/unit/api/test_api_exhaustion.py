"""Limits on what one person can store and make the API hold in memory, each with its error."""

from __future__ import annotations

import json
from types import SimpleNamespace

import httpx
import pytest

from llmos.errors import TooManyRequests
from llmos.resources import ModelService
from llmos_hub.api.rates import WriteRates
from llmos_hub.stores.base import Store
from tests.support.waiting import eventually
from tests.unit.api.conftest import BASE, Api, credentials, manifest, models, status_of, watching

APPLY = {"content-type": "application/apply-patch+yaml"}
MERGE = {"content-type": "application/merge-patch+json"}


def large(name: str, size: int) -> dict[str, object]:
    return {"metadata": {"name": name, "annotations": {"a": "x" * size}}, "spec": {"model": "demo://tiny"}}


@pytest.fixture(autouse=True)
def _as_fast_as_it_goes(api: Api) -> None:
    api.environ["LLMOS_SETTING_API_MAX_WRITES_PER_SECOND_AND_USER"] = "10000"


async def test_120_resources_of_a_megabyte(ada: httpx.AsyncClient, store: Store) -> None:
    for number in range(120):
        response = await ada.post(models(), json=large(f"m{number}", 1_000_000))
        assert status_of(response)[:2] == (413, "payload_too_large")
    assert (await store.list(ModelService)).items == []


async def test_a_resource_is_bounded(api: Api, ada: httpx.AsyncClient) -> None:
    assert (await ada.post(models(), json=large("fits", 100_000))).status_code == 201
    over = large("over", 140_000)
    for response in (
        await ada.post(models(), json=over),
        await ada.patch(models(name="over"), content=json.dumps(over), headers=APPLY),
        await ada.put(models(name="fits"), json={**over, "metadata": {"annotations": {"a": "x" * 140_000}}}),
        await ada.patch(models(name="fits"), json={"metadata": {"annotations": {"b": "x" * 40_000}}}, headers=MERGE),
        await ada.post(
            credentials(), json={"metadata": {"name": "hub"}, "spec": {"data": dict.fromkeys("ABC", "x" * 60_000)}}
        ),
        await ada.post(models(), params={"dryRun": "All"}, json=over),
    ):
        assert status_of(response)[:2] == (413, "payload_too_large")
        assert "api-max-resource-bytes" in response.json()["message"]
    # a resource larger than a new limit can still be changed, as long as it doesn't grow
    api.environ["LLMOS_SETTING_API_MAX_RESOURCE_BYTES"] = "16384"
    longer = {"metadata": {"annotations": {"b": "y"}}}
    assert (await ada.patch(models(name="fits"), json=longer, headers=MERGE)).status_code == 413
    smaller = {"metadata": {"annotations": {"a": "x" * 50_000}}, "spec": {"paused": True}}
    assert (await ada.patch(models(name="fits"), json=smaller, headers=MERGE)).status_code == 200


async def test_all_resources_of_a_namespace_are_bounded_together(
    ada: httpx.AsyncClient, grace: httpx.AsyncClient
) -> None:
    answers = [await ada.post(models(), json=large(f"m{number}", 120_000)) for number in range(40)]
    assert {r.status_code for r in answers} == {201, 409}
    stored = sum(r.status_code == 201 for r in answers)
    assert stored == 34
    code, word, message = status_of(answers[-1])
    assert (code, word) == (409, "insufficient_resources")
    assert "4194304 bytes are allowed" in message
    assert "api-max-bytes-per-namespace-and-kind" in message
    dry = await ada.post(models(), params={"dryRun": "All"}, json=large("m99", 120_000))
    assert status_of(dry)[:2] == (409, "insufficient_resources")
    assert (await grace.post(models("grace"), json=large("m0", 120_000))).status_code == 201
    await ada.delete(models(name="m0"))  # it waits for its workloads, so that it still counts
    assert (
        await ada.patch(models(name="m1"), json={"metadata": {"annotations": {"a": "x"}}}, headers=MERGE)
    ).is_success
    assert (await ada.post(models(), json=large("m99", 100_000))).status_code == 201


async def test_lists_come_in_pages(ada: httpx.AsyncClient, root: httpx.AsyncClient) -> None:
    for number in range(7):
        await ada.post(models(), json=manifest(f"m{number}"))
    whole = (await ada.get(models())).json()
    assert "continue" not in whole["metadata"]
    assert (await ada.get(models(), params={"limit": "0"})).json() == whole
    items, query, versions = [], {"limit": "3"}, set()
    for size in (3, 3, 1):
        page = (await ada.get(models(), params=query)).json()
        assert page["kind"] == "ModelServiceList"
        assert len(page["items"]) == size
        items += page["items"]
        versions.add(page["metadata"]["resourceVersion"])
        query = {"limit": "3", "continue": page["metadata"].get("continue", "")}
    assert (items, query["continue"], len(versions)) == (whole["items"], "", 1)
    everywhere = (await root.get(f"{BASE}/modelservices", params={"limit": "2"})).json()
    assert everywhere["items"] == whole["items"][:2]
    for bad in ({"limit": "x"}, {"limit": "-1"}, {"continue": "nonsense"}):
        assert (await ada.get(models(), params=bad)).status_code == 400


async def test_somebody_elses_token_of_a_page_opens_nothing(ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    for number in range(3):
        await ada.post(models(), json=manifest(f"m{number}"))
    token = (await ada.get(models(), params={"limit": "1"})).json()["metadata"]["continue"]
    assert (await grace.get(models(), params={"limit": "1", "continue": token})).status_code == 403
    own = await grace.get(models("grace"), params={"limit": "1", "continue": token})
    assert own.json()["items"] == []


async def test_a_list_of_many_pages_is_one_document(ada: httpx.AsyncClient, store: Store) -> None:
    for number in range(30):
        await ada.post(models(), json=large(f"m{number:02}", 100_000))
    async with ada.stream("GET", models()) as response:
        assert response.status_code == 200
        assert "content-length" not in response.headers  # it is sent as it is read
        await response.aread()
    body = response.json()
    assert [item["metadata"]["name"] for item in body["items"]] == [f"m{number:02}" for number in range(30)]
    assert "continue" not in body["metadata"]
    assert body["kind"] == "ModelServiceList"
    one = (await ada.get(models(), params={"fieldSelector": "metadata.name=m29"})).json()
    assert [item["metadata"]["name"] for item in one["items"]] == ["m29"]
    async with watching(ada, models()) as watch:
        assert [await watch.change() for _ in range(30)] == [("ADDED", f"m{number:02}") for number in range(30)]
        assert (await watch.next())[0] == "BOOKMARK"
        await ada.patch(models(name="m07"), json={"spec": {"paused": True}}, headers=MERGE)
        assert await watch.change() == ("MODIFIED", "m07")


async def test_long_lists_count_as_streams(api: Api, ada: httpx.AsyncClient) -> None:
    for number in range(15):
        await ada.post(models(), json=large(f"m{number:02}", 100_000))
    api.environ["LLMOS_SETTING_API_MAX_STREAMS_PER_USER"] = "1"
    async with watching(ada, models()):
        assert status_of(await ada.get(models()))[:2] == (429, "rate_limited")
        assert (await ada.get(models(), params={"limit": "5"})).status_code == 200

    async def listed() -> bool:
        return (await ada.get(models())).status_code == 200

    await eventually(listed)
    assert (await ada.get(models())).status_code == 200  # the one before is let go of


async def test_writes_per_second(api: Api, ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    api.environ["LLMOS_SETTING_API_MAX_WRITES_PER_SECOND_AND_USER"] = "1"
    answers = [await ada.post(models(), json=manifest("Not A Name")) for _ in range(12)]
    assert {r.status_code for r in answers} == {422, 429}
    assert [r.status_code for r in answers[:5]] == [422] * 5
    refused = next(r for r in answers if r.status_code == 429)
    assert status_of(refused)[1] == "rate_limited"
    assert refused.headers["retry-after"] == "1"
    assert (await ada.get(models())).status_code == 200
    assert (await grace.post(models("grace"), json=manifest())).status_code == 201


def test_a_bucket_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("llmos_hub.api.rates.time", SimpleNamespace(monotonic=lambda: now))
    rates = WriteRates()
    for _ in range(50):
        rates.take("ada", 10)
    with pytest.raises(TooManyRequests, match="50 writes within 5 seconds"):
        rates.take("ada", 10)
    rates.take("grace", 10)
    now += 0.2
    rates.take("ada", 10)
    rates.take("ada", 10)
    with pytest.raises(TooManyRequests):
        rates.take("ada", 10)
    now += 3600
    for _ in range(50):
        rates.take("ada", 10)
    with pytest.raises(TooManyRequests):
        rates.take("ada", 10)
