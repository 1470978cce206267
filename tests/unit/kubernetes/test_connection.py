"""The connection to an API server: repeated requests, and the kinds of errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from llmos.errors import Unavailable, UsageError
from llmos_hub.kubernetes.connection import JSON_PATCH, APIError, KubernetesAPI, path_of


class FakeServer:
    """A stub that returns a test's answers one after another, and then always the last one."""

    def __init__(self) -> None:
        self.answers: list[Callable[[web.Request], Any]] = []
        self.seen: list[tuple[str, str, Any, str]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.text()
        self.seen.append((request.method, request.path_qs, body and json.loads(body), request.content_type))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        found = answer(request)
        return await found if asyncio.iscoroutine(found) else found


def says(body: Any, status: int = 200, **headers: str) -> Callable[[web.Request], web.Response]:
    return lambda _: web.json_response(body, status=status, headers=headers)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FakeServer]:
    fake = FakeServer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    yield fake
    await runner.cleanup()


@pytest.fixture
async def api(server: FakeServer, tmp_path: Path) -> AsyncIterator[KubernetesAPI]:
    opened = KubernetesAPI(kubeconfig=tmp_path / "kubeconfig", timeout=1.0)
    yield opened
    await opened.close()


async def test_json_out_json_in(server: FakeServer, api: KubernetesAPI) -> None:
    def answer(request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer secret"
        return web.json_response({"kind": "Pod"})

    server.answers = [answer]
    operations = [{"op": "add", "path": "/a", "value": "ä"}]
    path = path_of("v1", "pods", "user-ada", "chat")
    found = await api.request("PATCH", path, params={"a": "b c"}, body=operations, content_type=JSON_PATCH)
    assert found == {"kind": "Pod"}
    assert server.seen == [("PATCH", "/api/v1/namespaces/user-ada/pods/chat?a=b+c", operations, JSON_PATCH)]


async def test_apply_is_server_side(server: FakeServer, api: KubernetesAPI) -> None:
    server.answers = [says({})]
    await api.apply({"kind": "Service"}, "/api/v1/namespaces/a/services/b")
    method, path, body, content_type = server.seen[0]
    assert (method, body, content_type) == ("PATCH", {"kind": "Service"}, "application/apply-patch+yaml")
    assert path.endswith("?fieldManager=llmos&force=true")


async def test_a_refusal_is_told_with_its_causes(server: FakeServer, api: KubernetesAPI) -> None:
    causes = [{"field": "spec.a", "message": "is wrong", "reason": "FieldValueInvalid"}]
    server.answers = [says({"reason": "Invalid", "message": "no", "details": {"causes": causes}}, 422)]
    with pytest.raises(APIError) as raised:
        await api.request("POST", "/x", body={})
    error = raised.value
    assert (error.status, error.reason, str(error.causes[0])) == (422, "Invalid", "spec.a: is wrong")
    assert error.because("FieldValueInvalid")
    assert len(server.seen) == 1


async def test_a_page_of_a_proxy_is_an_error_too(server: FakeServer, api: KubernetesAPI) -> None:
    server.answers = [lambda _: web.Response(text="<html>bad gateway", status=502)]
    with pytest.raises(APIError, match="bad gateway"):
        await api.request("GET", "/x")


async def test_a_busy_server_is_asked_again(server: FakeServer, api: KubernetesAPI) -> None:
    server.answers = [says({}, 429, **{"Retry-After": "0"}), says({"done": True})]
    assert await api.request("POST", "/x", body={}) == {"done": True}
    server.answers = [says({}, 503), says({"done": True})]
    assert await api.request("GET", "/x") == {"done": True}


async def test_a_namespace_whose_quota_is_not_yet_counted_is_asked_again(
    server: FakeServer, api: KubernetesAPI
) -> None:
    message = 'pods "a" is forbidden: status unknown for quota: llmos, resources: pods'
    server.answers = [says({"reason": "Forbidden", "message": message}, 403), says({"done": True})]
    assert await api.request("POST", "/x", body={}) == {"done": True}
    exceeded = 'pods "a" is forbidden: exceeded quota: llmos, requested: pods=1, used: pods=2, limited: pods=2'
    server.answers = [says({"reason": "Forbidden", "message": exceeded}, 403)]
    with pytest.raises(APIError, match="exceeded quota"):
        await api.request("POST", "/x", body={})


async def test_a_server_that_stays_busy_is_unavailable(server: FakeServer, api: KubernetesAPI) -> None:
    server.answers = [says({"message": "too many"}, 429, **{"Retry-After": "30"})]
    with pytest.raises(Unavailable, match="is too busy: too many"):
        await api.request("POST", "/x", body={})


async def test_a_write_without_an_answer_is_not_repeated(server: FakeServer, api: KubernetesAPI) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    server.answers = [hang]
    with pytest.raises(Unavailable, match="does not answer in time"):
        await api.request("POST", "/x", body={}, timeout=0.2)
    assert len(server.seen) == 1


async def test_a_read_over_a_broken_connection_is_repeated(server: FakeServer, api: KubernetesAPI) -> None:
    def broken(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.answers = [broken, broken, says({"done": True})]
    assert await api.request("GET", "/x") == {"done": True}


async def test_lists_come_in_pages(server: FakeServer, api: KubernetesAPI) -> None:
    server.answers = [
        says({"items": [1], "metadata": {"resourceVersion": "5", "continue": "t"}}),
        says({"items": [2], "metadata": {"resourceVersion": "5"}}),
    ]
    pages = [page["items"] async for page in api.list_pages("/x", params={"labelSelector": "a=b"}, page=1)]
    assert pages == [[1], [2]]
    assert "continue=t" in server.seen[1][1]
    assert "labelSelector=a%3Db" in server.seen[1][1]


async def test_lines_are_followed_to_an_orderly_end(server: FakeServer, api: KubernetesAPI) -> None:
    server.answers = [lambda _: web.Response(text="one\ntwo\n")]
    async with api.lines("/log") as lines:
        assert [line async for line in lines] == [b"one\n", b"two\n"]


async def test_lines_that_stop_are_unavailable(server: FakeServer, api: KubernetesAPI) -> None:
    async def stall(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"one\n")
        await asyncio.sleep(30)
        return response

    server.answers = [stall]
    async with api.lines("/log", idle=0.2) as lines:
        assert await anext(lines) == b"one\n"
        with pytest.raises(Unavailable):
            await anext(lines)


async def test_no_cluster_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    api = KubernetesAPI(kubeconfig=tmp_path / "missing")
    with pytest.raises(UsageError, match="Set KUBECONFIG"):
        await api.request("GET", "/x")
    await api.close()
    with pytest.raises(Unavailable, match="closed"):
        await api.request("GET", "/x")
