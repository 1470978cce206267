"""The parts of the API that are not about one kind: paths, errors, health, metrics, descriptions."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time

import httpx
import pytest

from llmos.resources import KINDS
from llmos_hub.api.app import make_metrics_server
from llmos_hub.bounded_http import listen
from llmos_hub.names import API_PREFIX, SCOPE_INVOKE
from tests.support.waiting import eventually
from tests.unit.api.conftest import BASE, Api, manifest, models, status_of, token_of


async def test_whoami(ada: httpx.AsyncClient, api: Api) -> None:
    assert (await ada.get(f"{BASE}/whoami")).json() == {
        "name": "ada",
        "admin": False,
        "namespace": "user-ada",
        "groups": ["vision"],
        "scopes": ["custom:llmos:invoke", "custom:llmos:manage"],
        "gatewayURL": "http://hub.example.org:8010",
        "publicURL": "http://hub.example.org",
    }
    narrow = api.hub.add_token("ada", "narrow-token-of-ada", scopes=(SCOPE_INVOKE,))
    async with api.client(narrow) as client:
        assert (await client.get(f"{BASE}/whoami")).json()["scopes"] == [SCOPE_INVOKE]


async def test_the_hubs_own_way_to_send_a_token(api: Api) -> None:
    async with api.client(None) as client:
        for scheme in ("token", "Bearer", "BEARER"):
            headers = {"authorization": f"{scheme} {token_of('ada')}"}
            assert (await client.get(f"{BASE}/whoami", headers=headers)).status_code == 200
        for header in (token_of("ada"), f"Basic {token_of('ada')}", f"Bearer {token_of('ada')} x", "Bearer"):
            response = await client.get(f"{BASE}/whoami", headers={"authorization": header})
            assert status_of(response)[:2] == (401, "unauthorized")
            assert "http://hub.example.org/hub/token" in response.json()["message"]


async def test_a_service_of_the_hub_is_no_person(api: Api) -> None:
    async with api.client(api.hub.add_service_token("culler", "token-of-a-service")) as client:
        assert status_of(await client.get(models()))[:2] == (403, "forbidden")


async def test_without_the_hub_known_people_go_on(api: Api, ada: httpx.AsyncClient, grace: httpx.AsyncClient) -> None:
    assert (await ada.get(models())).status_code == 200
    api.hub.failing = 503
    assert (await ada.get(models())).status_code == 200
    response = await grace.get(models("grace"))
    assert status_of(response)[:2] == (503, "unavailable")
    assert "Hub" in response.json()["message"]


async def test_the_prefix_under_the_hub(ada: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest())
    assert (await ada.get(API_PREFIX + models(name="chat"))).json() == (await ada.get(models(name="chat"))).json()
    for path in (API_PREFIX, f"{API_PREFIX}/"):
        assert "LLMOS API" in (await ada.get(path)).text
    assert status_of(await ada.get(f"{API_PREFIX}x{models()}"))[0] == 404


async def test_discovery(ada: httpx.AsyncClient) -> None:
    groups = (await ada.get("/apis")).json()
    assert groups["groups"][0]["preferredVersion"]["groupVersion"] == "llmos.ai/v1alpha1"
    assert (await ada.get("/apis/llmos.ai")).json()["name"] == "llmos.ai"
    resources = {r["name"]: r for r in (await ada.get(BASE)).json()["resources"]}
    for kind in KINDS.values():
        entry = resources[kind.plural]
        assert (entry["kind"], entry["namespaced"]) == (kind.kind_name(), kind.scope == "Namespaced")
        assert f"{kind.plural}/status" in resources
    assert "modelservices/logs" in resources
    assert "credentials/logs" not in resources


async def test_unknown_addresses(ada: httpx.AsyncClient) -> None:
    for path in ("/nothing", f"{BASE}/namespaces/user-ada/pods", "/apis/apps/v1/deployments", models() + "/a/b"):
        assert status_of(await ada.get(path))[:2] == (404, "not_found")
    message = status_of(await ada.get(f"{BASE}/namespaces/user-ada/modelservice"))[2]
    assert 'Did you mean "modelservices"?' in message
    assert status_of(await ada.get(f"{BASE}/namespaces/user-ada/credentials/x/logs"))[0] == 404


async def test_an_address_of_any_length_takes_no_time(ada: httpx.AsyncClient) -> None:
    began = time.process_time()
    assert status_of(await ada.get("/" + "modelservicez/" * 4_000))[0] == 404
    assert time.process_time() - began < 0.15


async def test_unknown_methods(ada: httpx.AsyncClient) -> None:
    response = await ada.delete(models())
    assert status_of(response)[:2] == (405, "method_not_allowed")
    assert response.headers["allow"] == "GET, POST"
    assert status_of(await ada.request("TRACE", models()))[:2] == (405, "method_not_allowed")


async def test_request_ids(ada: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "llmos_hub.api")
    good = await ada.get(models(), headers={"x-request-id": "7f3a9c.client-1"})
    assert good.headers["x-request-id"] == "7f3a9c.client-1"
    for insane in ("x", "a" * 65, "a b c d", "<script>", "ab;cd"):
        made = (await ada.get(models(), headers={"x-request-id": insane})).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{12}", made)
    refused = await ada.get(models("grace"), headers={"x-request-id": "7f3a9c.client-2"})
    assert refused.json()["details"]["requestID"] == "7f3a9c.client-2"
    line = next(r.getMessage() for r in caplog.records if "7f3a9c.client-2" in r.getMessage())
    assert "caller=ada GET /apis/llmos.ai/v1alpha1/namespaces/user-grace/modelservices" in line
    assert " 403 " in line
    assert "ms" in line


async def test_logs_have_no_tokens_and_one_line_per_request(
    api: Api, ada: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "llmos_hub")
    await ada.get("/x%0ainjected%20line", params={"token": token_of("ada")})
    await ada.post(models(), json=manifest(env={"KEY": "a-secret-in-the-body"}))
    async with api.client("unknown-token-of-nobody") as client:
        await client.get(models())
    text = "\n".join(r.getMessage() for r in caplog.records if r.name == "llmos_hub.api")
    assert token_of("ada") not in text
    assert "unknown-token-of-nobody" not in text
    assert "a-secret-in-the-body" not in text
    assert "/x?injected?line" in text
    assert len(text.splitlines()) == 3


async def test_a_mistake_of_ours_is_told_without_its_details(
    api: Api, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("details of the inside")

    monkeypatch.setattr(api.store, "page", broken)
    response = await ada.get(models())
    code, word, message = status_of(response)
    assert (code, word) == (500, "internal")
    assert "details" not in message
    assert "Traceback" not in response.text
    record = next(r for r in caplog.records if r.exc_info and "failed" in r.getMessage())
    assert response.headers["x-request-id"] in record.getMessage()


async def test_browsers_get_no_permission_from_other_origins(ada: httpx.AsyncClient) -> None:
    origin = {"origin": "https://elsewhere.example.org"}
    preflight = {**origin, "access-control-request-method": "DELETE", "access-control-request-headers": "authorization"}
    for response in (await ada.get(models(), headers=origin), await ada.options(models(), headers=preflight)):
        assert not [h for h in response.headers if h.startswith("access-control")]
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert "set-cookie" not in response.headers


async def test_cookies_are_never_read(api: Api) -> None:
    async with api.client(None) as client:
        for name in ("jupyterhub-services", "jupyterhub-session-id", "token", "Authorization"):
            client.cookies.set(name, token_of("ada"))
        assert (await client.get(models())).status_code == 401


async def test_a_websocket_is_not_opened(ada: httpx.AsyncClient) -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    response = await ada.get(models(), headers=upgrade)
    assert response.status_code != 101


async def test_health_and_readiness(api: Api, nobody: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def unwell() -> bool:
        return False

    with monkeypatch.context() as away:
        away.setattr(api.store, "healthy", unwell)
        response = await nobody.get("/ready")
        assert status_of(response)[:2] == (503, "unavailable")
        assert response.headers["retry-after"] == "1"
        assert (await nobody.get("/health")).json() == {"status": "ok"}
    assert (await nobody.get("/ready")).json() == {"status": "ok"}
    assert (await nobody.head("/health")).status_code == 200


async def test_a_store_that_goes_away_takes_no_replica_out_of_service(
    api: Api, nobody: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All replicas have the same store: without any, clients would hang instead of being told."""
    assert (await nobody.get("/ready")).status_code == 200

    async def unwell() -> bool:
        return False

    monkeypatch.setattr(api.store, "healthy", unwell)
    assert (await nobody.get("/ready")).status_code == 200


async def test_metrics(ada: httpx.AsyncClient, root: httpx.AsyncClient, nobody: httpx.AsyncClient) -> None:
    await ada.post(models(), json=manifest())
    await ada.get(models(name="chat"))
    await ada.get("/made/up/by/a/client")
    text = (await root.get("/metrics")).text
    route = f"{BASE}/namespaces/{{namespace}}/modelservices"
    assert f'llmos_api_requests_total{{code="201",method="POST",route="{route}"}} 1.0' in text
    assert f'llmos_api_request_duration_seconds_count{{method="GET",route="{route}/{{name}}"}} 1.0' in text
    assert 'code="404",method="GET",route="none"' in text
    assert "made/up" not in text
    assert "user-ada" not in text
    assert "llmos_api_open_streams 0.0" in text
    assert "process_resident_memory_bytes" in text
    for path in ("/metrics", f"{API_PREFIX}/metrics"):  # a notebook server reaches the process itself, too
        assert (await nobody.get(path)).status_code == 401
        assert (await ada.get(path)).status_code == 403
        assert (await root.get(path)).status_code == 200


async def test_metrics_at_a_port_of_their_own(api: Api) -> None:
    server, listener = make_metrics_server(api.app.state.services), listen("127.0.0.1", 0)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    await eventually(lambda: server.started)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert "process_resident_memory_bytes" in (await client.get("/metrics")).text
        for path in ("/", "/docs", models(), f"{API_PREFIX}/metrics"):
            assert (await client.get(path)).status_code == 404
    server.should_exit = True
    await running


async def test_the_openapi_document_has_every_address(api: Api, nobody: httpx.AsyncClient) -> None:
    document = (await nobody.get(f"{API_PREFIX}/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": API_PREFIX}]
    assert set(document["paths"]) == {route.path for route in api.app.routes}
    text = json.dumps(document)
    references = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert references <= set(document["components"]["schemas"])
    assert set(KINDS) <= references
    assert "$defs" not in text
    ids = [o["operationId"] for p in document["paths"].values() for m, o in p.items() if m != "parameters"]
    assert len(ids) == len(set(ids))
    create = document["paths"][f"{BASE}/namespaces/{{namespace}}/modelservices"]["post"]
    assert create["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/ModelService"
    }
    assert set(create["responses"]) == {"200", "201", "default"}


async def test_the_page_needs_nothing_from_elsewhere(nobody: httpx.AsyncClient) -> None:
    response = await nobody.get(f"{API_PREFIX}/docs")
    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert not re.findall(r'(?:src|href)="https?:', response.text)
    assert "<script" not in response.text
    for kind in KINDS.values():
        assert f"{API_PREFIX}{BASE}" in response.text
        assert kind.plural in response.text


async def test_the_page_begins_with_an_example_for_shell_and_python(nobody: httpx.AsyncClient) -> None:
    text = (await nobody.get(f"{API_PREFIX}/docs")).text
    example = text[text.index("Example") : text.index("<table>")]
    assert f" http://hub.example.org{API_PREFIX}{BASE}/whoami\n" in example  # curl takes no path alone
    assert f"Client(url=&quot;http://hub.example.org{API_PREFIX}&quot;" in example
    assert "application/apply-patch+yaml" in example
    assert "client.serve(" in example
