"""All errors of the gateway: the status, OpenAI's format, and the advice."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import openai
import pytest

from llmos.errors import Unavailable
from llmos_hub.backends.failures import crashed
from llmos_hub.gateway.endpoints import ROUTES
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.routes import Route
from llmos_hub.names import SCOPE_INVOKE
from llmos_hub.policy import Caller, Rights
from llmos_hub.processes.running import Exit
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, FakeUpstream, MakeUpstream
from tests.support.gateway import ADA, ADMIN, GRACE, NARROW, RunningGateway, running_gateway, service
from tests.support.waiting import eventually


def said(answer: httpx.Response, status: int, code: str) -> str:
    """Check an error's form, and return its message."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code", "request_id"}
    assert error["code"] == code
    assert error["request_id"] == answer.headers["x-request-id"]
    assert answer.headers["content-type"] == "application/json"
    return str(error["message"])


# who asks


@pytest.mark.parametrize("route", [r for r in ROUTES if not r.quiet], ids=str)
async def test_every_endpoint_wants_a_token(gateway: RunningGateway, route: Route) -> None:
    """Taken from the list of routes itself, so that a new one is covered or fails."""
    path = re.sub(r"\{.+?\}", "x", route.path)
    for prefix in ("", "/services/llm"):
        for extra in ("", f"?token={ADA}&access_token={ADA}&api_key={ADA}"):
            answer = await gateway.http.request(route.method, prefix + path + extra, content=b'{"model": "chat"}')
            message = said(answer, 401, "unauthorized")
            assert message.startswith('No token was sent. Send the header "Authorization: Bearer TOKEN".')
            assert answer.headers["www-authenticate"] == "Bearer"
    assert gateway.identity.asked == []


@pytest.mark.parametrize("route", [r for r in ROUTES if r.quiet], ids=str)
async def test_only_these_need_none(gateway: RunningGateway, route: Route) -> None:
    assert route.path in {"/health", "/ready", "/metrics"}
    for prefix in ("", "/services/llm"):
        hidden = prefix and route.path == "/metrics"  # on the port itself alone
        assert (await gateway.http.get(prefix + route.path)).status_code == (404 if hidden else 200)


@pytest.mark.parametrize("value", ["", "Bearer", f"token {ADA}", "Basic YTpi", ADA, "Bearer \xe4"])
async def test_other_authorizations(gateway: RunningGateway, value: str) -> None:
    cookies = {"cookie": f"jupyterhub-services={ADA}; token={ADA}"}
    headers = {**cookies, "authorization": value.encode("latin-1")}
    answer = await gateway.http.get("/v1/models", headers=headers)
    message = said(answer, 401, "unauthorized")
    assert "llmos token" in message
    assert ADA not in message


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_schemes_case_does_not_matter(gateway: RunningGateway, scheme: str) -> None:
    answer = await gateway.http.get("/v1/models", headers={"authorization": f"{scheme} {ADA}"})
    assert answer.status_code == 200


async def test_an_unknown_token(gateway: RunningGateway) -> None:
    said(await gateway.get("/v1/models", "nobodys-token"), 401, "unauthorized")
    async with gateway.openai("nobodys-token") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_a_token_without_the_scope(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    await gateway.add(service("chat", await upstreams()))
    for answer in (await gateway.chat(token=NARROW), await gateway.get("/v1/models", NARROW)):
        assert "lacks the scope custom:llmos:invoke" in said(answer, 403, "forbidden")


async def test_the_hub_is_away(gateway: RunningGateway) -> None:
    gateway.identity.error = Unavailable("The Hub does not answer.")
    answer = await gateway.chat()
    said(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "2"


# which model


async def test_unknown_and_forbidden_models_are_the_same(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(
        service("chat", upstream),
        service("embed", upstream, task="embed"),
        service("tiny", upstream, namespace="public"),
        service("secret", upstream, namespace="user-grace"),
    )
    unknown = said(await gateway.chat("chta"), 404, "model_not_found")
    assert unknown == ('No model "chta" that you may use. You can use: chat, embed, public/tiny. Did you mean "chat"?')
    with_slash = said(await gateway.chat("tinny"), 404, "model_not_found")
    assert with_slash.endswith('Did you mean "public/tiny"?')
    for asked in ("secret", "user-grace/secret", "user-grace/nothing", "user-nobody/secret", "/", "user-grace/"):
        message = said(await gateway.chat(asked), 404, "model_not_found")
        assert message == f'No model "{asked}" that you may use. You can use: chat, embed, public/tiny.'
        retrieved = await gateway.get(f"/v1/models/{asked}")
        if asked != "/":
            assert said(retrieved, 404, "model_not_found") == message
    assert (await gateway.chat("user-grace/secret", ADMIN)).status_code == 200
    assert (await gateway.chat("secret", GRACE)).status_code == 200
    assert [c.path for c in upstream.calls] == ["/v1/chat/completions"] * 2


async def test_someone_without_models(gateway: RunningGateway) -> None:
    message = said(await gateway.chat(), 404, "model_not_found")
    assert message.endswith("You have no model yet. Start one: llmos serve demo://smollm2 --name chat")


@pytest.mark.parametrize("asked", ["x" * 5000, "a\nb\x00\x1b[31m", "ä" * 200, "../../etc/passwd"])
async def test_odd_names_are_shown_harmlessly(gateway: RunningGateway, asked: str) -> None:
    message = said(await gateway.chat(asked), 404, "model_not_found")
    assert len(message) < 300
    assert all(c.isprintable() for c in message)


@pytest.mark.parametrize(
    ("phase", "message", "hint", "seconds"),
    [
        ("Pending", "", "It waits to be started.", "3"),
        ("Downloading", "1.4 of 2.5 GB", "Its files are being downloaded. 1.4 of 2.5 GB.", "10"),
        ("Starting", "llama.cpp loads the model.", "It is starting. llama.cpp loads the model.", "2"),
        ("Paused", "", "It is paused; start it with: llmos start chat.", "60"),
        ("Failed", "Out of memory", ": llmos describe chat. Out of memory.", "30"),
        ("Degraded", "", "None of its replicas answers at the moment.", "2"),
    ],
)
async def test_a_model_that_is_not_ready(
    gateway: RunningGateway, phase: str, message: str, hint: str, seconds: str
) -> None:
    gateway.gateway.context.options = GatewayOptions(ready_wait=0.01)
    await gateway.add(service("chat", phase=phase, message=message))
    answer = await gateway.chat()
    text = said(answer, 503, "model_not_ready")
    assert text.startswith(f'Model "chat" is not ready ({phase}). ')
    assert text.endswith(hint)
    assert answer.headers["retry-after"] == seconds


@pytest.mark.parametrize(
    ("token", "namespace", "ending"),
    [
        (ADA, "user-ada", "See why: llmos logs chat."),
        (ADA, "group-vision", "See why: llmos logs chat -n group-vision."),
        (ADMIN, "public", "See why: llmos logs chat -n public."),
        (ADA, "public", "An admin can see why."),
    ],
)
async def test_a_failed_models_log_is_named_to_those_who_may_read_it(
    gateway: RunningGateway, token: str, namespace: str, ending: str
) -> None:
    gateway.identity.rights[ADA] = Rights(Caller("ada", groups=frozenset({"vision"}), scopes=frozenset({SCOPE_INVOKE})))
    failed = crashed("chat", Exit(1), completes=False).message
    await gateway.add(service("chat", namespace=namespace, phase="Failed", message=failed))
    assert said(await gateway.chat(token=token), 503, "model_not_ready").endswith(ending)


@pytest.mark.parametrize(("token", "hint"), [(ADA, "an admin can start it."), (ADMIN, "llmos start chat -n public.")])
async def test_a_paused_public_model_is_for_admins_to_start(gateway: RunningGateway, token: str, hint: str) -> None:
    await gateway.add(service("chat", namespace="public", phase="Paused"))
    assert said(await gateway.chat(token=token), 503, "model_not_ready").endswith(hint)


async def test_the_wrong_task(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(
        service("chat", upstream), service("embed", upstream, task="embed"), service("any", upstream, task="")
    )
    assert said(await gateway.chat("embed"), 400, "unsupported") == (
        'Model "embed" makes embeddings and can\'t answer /v1/chat/completions. Use /v1/embeddings.'
    )
    embedding = {"input": "x"}
    answer = await gateway.post("/v1/embeddings", {"model": "chat", **embedding})
    assert said(answer, 400, "unsupported") == (
        'Model "chat" generates text and can\'t answer /v1/embeddings. Use /v1/chat/completions or /v1/completions.'
    )
    assert upstream.calls == []
    assert (await gateway.chat("any")).status_code == 200
    assert (await gateway.post("/v1/embeddings", {"model": "any", **embedding})).status_code == 200


# what was sent


@pytest.mark.parametrize(
    ("body", "param", "part"),
    [
        (b"", None, "is not JSON: it is empty"),
        (b"{", None, "is not JSON: Expecting property name"),
        (b'{"model": "chat",}', None, "at line 1, column 1"),
        (b"\xff\xfe\xfd", None, "is not JSON: it is not UTF-8"),
        (b"[" * 100_000, None, "must be a JSON object"),
        (b"[" * 50_000, None, "it is nested too deep"),
        (b"[]", None, "must be a JSON object, not a list"),
        (b'"chat"', None, "must be a JSON object, not a text"),
        (b"{}", "model", "`model` is missing"),
        (b'{"model": 1}', "model", "`model` must be a text, not a number"),
        (b'{"model": null}', "model", "`model` must be a text, not null"),
        (b'{"model": ""}', "model", "`model` is empty"),
        (b'{"a": "' + b"x" * 100_000 + b'", "model": ["chat"]}', "model", "`model` must be a text, not a list"),
        (b'{"a": "' + b"x" * 100_000 + b'"}', "model", "`model` is missing"),
        (b'{"a": "' + b"x" * 100_000, None, "has no end"),
    ],
)
async def test_bodies_that_say_no_model(gateway: RunningGateway, body: bytes, param: str | None, part: str) -> None:
    headers = {"authorization": f"Bearer {ADA}"}
    answer = await gateway.http.post("/v1/chat/completions", content=body, headers=headers)
    assert part in said(answer, 400, "bad_request")
    assert answer.json()["error"]["param"] == param
    async with gateway.openai() as client:
        with pytest.raises(openai.NotFoundError):  # the same connection goes on
            await client.chat.completions.create(model="x", messages=[])


async def test_a_compressed_body(gateway: RunningGateway) -> None:
    answer = await gateway.post("/v1/chat/completions", {}, **{"content-encoding": "gzip"})
    assert "without Content-Encoding" in said(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_is_too_large(store: Store, upstreams: MakeUpstream, framing: str) -> None:
    upstream = await upstreams()
    options = GatewayOptions(max_body=1 << 20)
    async with running_gateway(store, options, [service("chat", upstream)]) as gateway:
        body = json.dumps({"model": "chat", "x": "x" * (5 << 20)}).encode()

        async def pieces():
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]

        headers = {"authorization": f"Bearer {ADA}"}
        content: Any = body if framing == "length" else pieces()
        answer = await gateway.http.post("/v1/chat/completions", content=content, headers=headers)
        assert "larger than 1 MiB" in said(answer, 413, "payload_too_large")
        assert (await gateway.chat()).status_code == 200
        assert gateway.gateway.context.budget._left == options.max_buffered
    assert len(upstream.calls) == 1


async def test_a_stranger_can_not_make_the_gateway_hold_a_body(gateway: RunningGateway) -> None:
    """The token is checked before the body is read."""
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer no\r\ncontent-length: 30000000\r\n\r\n"
    )
    reader, writer = await gateway.raw(head)
    answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b"connection: close" in answer
    writer.close()


def holding(upstream: FakeUpstream) -> asyncio.Event:
    """Let the engine wait with its answers until the event is set."""
    go_on = asyncio.Event()

    async def hold(call: Call) -> None:
        await go_on.wait()
        await upstream.speak(call)

    upstream.behave = hold
    return go_on


async def test_memory_for_bodies_is_bounded_and_shared(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    go_on = holding(upstream)
    options = GatewayOptions(max_buffered=1_250_000)
    async with running_gateway(store, options, [service("chat", upstream, namespace="public")]) as gateway:
        first = asyncio.create_task(gateway.chat(x="x" * 600_000))
        await upstream.next_call()
        message = said(await gateway.chat(x="x" * 600_000), 429, "rate_limited")
        assert "Your requests hold 0." in message
        other = asyncio.create_task(gateway.chat(token=GRACE, x="x" * 300_000))  # there is room for somebody else
        await upstream.next_call()
        assert (await gateway.chat(token=ADMIN, x="x" * 600_000)).status_code in {429, 503}  # but not so much
        go_on.set()
        assert [(await task).status_code for task in (first, other)] == [200, 200]
        assert (await gateway.chat(x="x" * 600_000)).status_code == 200
        assert gateway.gateway.context.budget.left == options.max_buffered


async def test_what_is_said_to_come_holds_no_memory(store: Store, upstreams: MakeUpstream) -> None:
    """Otherwise a few requests that never send their declared body would keep everybody out."""
    options = GatewayOptions(max_buffered=1_250_000)
    async with running_gateway(store, options, [service("chat", await upstreams())]) as gateway:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\ncontent-length: 1000000\r\n\r\n{{"
        waiting = [await gateway.raw(head.encode()) for _ in range(4)]
        await eventually(lambda: gateway.gateway.context.receiving.held("ada") == 4)
        assert (await gateway.chat(x="x" * 600_000)).status_code == 200
        for _, writer in waiting:
            writer.close()


async def test_requests_at_once_are_bounded_and_shared(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    go_on = holding(upstream)
    options = GatewayOptions(max_requests=4)
    async with running_gateway(store, options, [service("chat", upstream, namespace="public")]) as gateway:
        held: list[asyncio.Task[httpx.Response]] = []

        async def begin(token: str) -> None:
            held.append(asyncio.create_task(gateway.chat(token=token)))
            await eventually(lambda: len(upstream.calls) == len(held))

        await begin(ADA)
        await begin(ADA)
        answer = await gateway.chat()
        assert "2 of your requests are under way" in said(answer, 429, "rate_limited")
        assert answer.headers["retry-after"] == "2"
        await begin(GRACE)
        await begin(ADMIN)
        answer = await gateway.chat(token=ADMIN)
        assert "serves 4 requests at once" in said(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "2"
        assert (await gateway.http.get("/health")).status_code == 200
        go_on.set()
        assert [(await h).status_code for h in held] == [200] * 4
        assert (await gateway.chat()).status_code == 200


async def test_slow_bodies_of_one_caller_keep_nobody_out(store: Store, upstreams: MakeUpstream) -> None:
    """1,024 requests that never send their declared body would otherwise take all places."""
    options = GatewayOptions(max_requests=2, max_connections=40)
    services = [service("chat", await upstreams(), namespace="public")]
    async with running_gateway(store, options, services) as gateway:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\ncontent-length: 1000\r\n\r\n{{"
        slow = [await gateway.raw(head.encode()) for _ in range(20)]
        await eventually(lambda: gateway.gateway.context.receiving.held("ada") == 10)
        # half of what may be on its way at once; the rest of them was refused in words
        said_more = [await asyncio.wait_for(reader.readuntil(b"\r\n"), 30) for reader, _ in slow[10:]]
        assert all(line.startswith(b"HTTP/1.1 429 ") for line in said_more)
        assert (await gateway.chat(token=GRACE)).status_code == 200
        for _, writer in slow:
            writer.transport.abort()
        await eventually(lambda: not gateway.gateway.context.receiving.held("ada"))


async def test_large_bodies_of_one_caller_keep_nobody_out(store: Store, upstreams: MakeUpstream) -> None:
    """Sixteen bodies of the maximum size, each without its last byte, would otherwise take all the memory."""
    options = GatewayOptions(max_body=100_000, max_buffered=1_600_000)
    services = [service("chat", await upstreams(), namespace="public")]
    async with running_gateway(store, options, services) as gateway:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\ncontent-length: 100000\r\n\r\n"
        large = [await gateway.raw(head.encode() + b" " * 99_999) for _ in range(16)]
        refused = [asyncio.create_task(reader.readuntil(b"\r\n")) for reader, _ in large]
        await eventually(lambda: sum(task.done() for task in refused) >= 7)
        assert gateway.gateway.context.budget.held("ada") <= 900_000
        assert (await gateway.chat(token=GRACE, x="x" * 90_000)).status_code == 200
        for task in refused:
            task.cancel()
        await asyncio.gather(*refused, return_exceptions=True)
        for _, writer in large:
            writer.transport.abort()


# where


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/v1"), ("POST", "/v1/files"), ("GET", "/services/llm/"), ("GET", "/%2e")],
)
async def test_unknown_routes_name_the_known(gateway: RunningGateway, method: str, path: str) -> None:
    message = said(await gateway.http.request(method, path), 404, "not_found")
    for route in ROUTES:
        assert f"{route.method} {route.path}" in message


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("OPTIONS", "/v1/chat/completions", "POST"),
        ("DELETE", "/v1/models/chat", "GET"),
        ("POST", "/v1/models", "GET"),
        ("PUT", "/services/llm/health", "GET"),
    ],
)
async def test_the_wrong_method(gateway: RunningGateway, method: str, path: str, allowed: str) -> None:
    answer = await gateway.http.request(method, path, headers={"origin": "https://evil.example.org"})
    assert f"takes {allowed}, not {method}" in said(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed
    assert not [h for h in answer.headers if h.startswith("access-control")]


# models


async def test_who_sees_which_models(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(
        service("chat", upstream, aliases=["gpt-4o"]),
        service("tiny", namespace="public", phase="Downloading"),
        service("secret", upstream, namespace="user-grace"),
        service("own", upstream, namespace="user-root"),
    )

    async def ids(token: str, query: str = "") -> list[str]:
        return [m["id"] for m in (await gateway.get(f"/v1/models{query}", token)).json()["data"]]

    assert await ids(ADA) == ["chat", "gpt-4o", "public/tiny"]
    assert await ids(ADA, "?all=1") == ["chat", "gpt-4o", "public/tiny"]
    assert await ids(GRACE) == ["secret", "public/tiny"]
    assert await ids(ADMIN) == ["own", "public/tiny"]
    assert await ids(ADMIN, "?all=1") == [
        "own",
        "public/tiny",
        "user-ada/chat",
        "user-ada/gpt-4o",
        "user-grace/secret",
    ]
    model = (await gateway.get("/v1/models/public/tiny")).json()
    assert (await gateway.get("/v1/models/public%2Ftiny")).json() == model
    assert model.pop("created") > 1_700_000_000
    assert model == {
        "id": "public/tiny",
        "object": "model",
        "owned_by": "public",
        "root": "public/tiny",
        "task": "generate",
        "phase": "Downloading",
        "ready": False,
    }
    async with gateway.openai() as client:
        assert (await client.models.retrieve("public/tiny")).owned_by == "public"
        assert (await client.models.retrieve("gpt-4o")).id == "gpt-4o"


async def test_metrics_and_logs_say_nothing_of_people(
    gateway: RunningGateway, upstreams: MakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream), service("tiny", upstream, namespace="public"))
    with caplog.at_level("INFO", "llmos_hub.gateway.access"):
        await gateway.chat("chat", prompt="my secret prompt")
        await gateway.chat("tiny")
        await gateway.chat("nothing")
    text = (await gateway.http.get("/metrics")).text
    assert 'llmos_gateway_requests_total{code="200",endpoint="/v1/chat/completions",model="public/tiny"} 1.0' in text
    assert 'llmos_gateway_requests_total{code="404",endpoint="/v1/chat/completions",model=""} 1.0' in text
    assert "llmos_gateway_first_byte_seconds_bucket" in text
    assert "ada" not in text
    lines = [r.getMessage() for r in caplog.records if r.name == "llmos_hub.gateway.access"]
    assert len(lines) == 3
    assert "caller=ada model=user-ada/chat POST /v1/chat/completions status=200 ms=" in lines[0]
    assert ADA not in str(lines)
    assert "secret" not in str(lines)


async def test_a_mistake_of_ours_is_said_without_its_details(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        message = "internal detail"
        raise RuntimeError(message)

    monkeypatch.setattr(gateway.gateway.context.table, "resolve", broken)
    message = said(await gateway.chat(), 500, "internal")
    assert "detail" not in message


async def test_the_counts_are_not_for_everyone_who_comes_by_the_hub(gateway: RunningGateway) -> None:
    assert (await gateway.http.get("/metrics")).status_code == 200
    answer = await gateway.http.get("/services/llm/metrics")
    assert answer.status_code == 404
    assert "own port" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "twice",
    [
        f"authorization: Bearer {ADA}\r\nauthorization: Bearer {GRACE}\r\n",
        f"Authorization: Bearer {ADA}\r\nauthorization: Bearer {ADA}\r\n",
        f"authorization: Bearer {ADA}\r\nhost: other\r\n",
        f"authorization: Bearer {ADA}\r\ncontent-encoding: identity\r\ncontent-encoding: gzip\r\n",
        f"authorization: Bearer {ADA}\r\ncontent-length: 0\r\ncontent-length: 3\r\n",
        f"authorization: Bearer {ADA}\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n",
        f"authorization: Bearer {ADA}\r\ntransfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    ],
    ids=["tokens", "the same token", "hosts", "encodings", "lengths", "length and chunks", "framings"],
)
async def test_a_header_that_must_come_once(gateway: RunningGateway, twice: str) -> None:
    """Two servers that read the same request, such as a proxy and the gateway, must not interpret it differently."""
    reader, writer = await gateway.raw(
        f"GET /v1/models HTTP/1.1\r\nhost: x\r\n{twice}connection: close\r\n\r\n".encode()
    )
    answer = await asyncio.wait_for(reader.read(), 30)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "bad_request"
    assert gateway.identity.asked == []
    writer.close()


async def test_a_slash_at_the_end_of_a_list(gateway: RunningGateway) -> None:
    assert (await gateway.get("/v1/models/")).json() == (await gateway.get("/v1/models")).json()
    assert (await gateway.get("/services/llm/v1/models/")).status_code == 200
