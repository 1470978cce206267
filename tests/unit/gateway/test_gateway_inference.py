"""Requests to models and their answers, with OpenAI's client and with raw requests."""

from __future__ import annotations

import asyncio
import json

import httpx
import openai
import pytest

from llmos.resources import ModelService
from llmos_hub.engine_keys import engine_key
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, MakeUpstream, completion, delta
from tests.support.gateway import ADA, RunningGateway, running_gateway, service
from tests.support.waiting import eventually

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("prefix", ["", "/services/llm"])
@pytest.mark.parametrize("tcp", [False, True])
async def test_openai_client_chats(gateway: RunningGateway, upstreams: MakeUpstream, prefix: str, tcp: bool) -> None:
    await gateway.add(service("chat", await upstreams("a", tcp=tcp)))
    async with gateway.openai(prefix=prefix) as client:
        answer = await client.chat.completions.create(model="chat", messages=HELLO)
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        words = [chunk.choices[0].delta.content async for chunk in stream]
        completed = await client.completions.create(model="chat", prompt="hello")
        listed = await client.models.list()
    assert answer.choices[0].message.content == "a heard chat"
    assert words == ["Hel", "lo", " world"]
    assert completed.id == "c-1"
    assert [m.id for m in listed.data] == ["chat"]


async def test_openai_client_embeds(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    await gateway.add(service("embed", await upstreams(), task="embed"))
    async with gateway.openai() as client:
        answer = await client.embeddings.create(model="embed", input=["a", "b"], encoding_format="float")
    assert [d.embedding for d in answer.data] == [[0.5, 0.25]] * 2


async def test_events_are_passed_on_as_they_come(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    go_on = asyncio.Event()

    async def slowly(call: Call) -> None:
        await call.start_events()
        await call.event(delta("first"))
        await go_on.wait()
        await call.event("[DONE]")
        await call.end()

    upstream.behave = slowly
    await gateway.add(service("chat", upstream))
    async with gateway.openai() as client:
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        chunks = aiter(stream)
        first = await asyncio.wait_for(anext(chunks), 30)  # the engine has not said more yet
        assert first.choices[0].delta.content == "first"
        go_on.set()
        assert [c async for c in chunks] == []


async def test_an_engine_learns_nothing_of_the_client(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    await gateway.post(
        "/services/llm/v1/chat/completions?token=secret",
        {"model": "chat", "messages": HELLO},
        cookie="jupyterhub-session-id=abc",
        forwarded="for=10.0.0.1",
        **{
            "x-forwarded-for": "10.0.0.1",
            "x-forwarded-host": "hub.example.org",
            "proxy-authorization": "Basic abc",
            "x-api-key": "secret",
            "connection": "keep-alive, x-mine",
            "x-mine": "1",
            "te": "trailers",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "x-request-id": "mine-1",
            "content-type": "application/x-www-form-urlencoded",
        },
    )
    call = upstream.calls[0]
    assert dict(call.headers) == {
        "host": "llmos",
        "content-type": "application/json",
        "accept": "*/*",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "content-length": str(len(call.body)),
        "x-request-id": "mine-1",
    }
    assert call.path == "/v1/chat/completions"
    assert ADA not in str(call.headers)


async def test_a_client_learns_nothing_of_the_engine(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()

    async def chatty(call: Call) -> None:
        headers = "Server: engine/9\r\nSet-Cookie: a=b\r\nX-Powered-By: x\r\nAccess-Control-Allow-Origin: *\r\n"
        await call.answer(completion("hi"), headers=headers + "Keep-Alive: timeout=5\r\nConnection: keep-alive\r\n")

    upstream.behave = chatty
    await gateway.add(service("chat", upstream))
    answer = await gateway.chat()
    ours = {"x-request-id", "x-content-type-options", "content-security-policy"}
    assert set(answer.headers) == {"date", "content-type", "content-length", *ours}


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_an_answer_without_a_body_has_none_whatever_length_it_says(
    gateway: RunningGateway, upstreams: MakeUpstream, status: str
) -> None:
    upstream = await upstreams()

    async def empty(call: Call) -> None:
        await call.raw(f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n".encode())

    upstream.behave = empty
    await gateway.add(service("chat", upstream))
    for _ in range(2):  # the client's connection goes on
        answer = await gateway.chat()
        assert (answer.status_code, answer.content) == (int(status[:3]), b"")
        assert "content-length" not in answer.headers


async def test_an_engines_own_errors_are_passed_on(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()

    async def refuse(call: Call) -> None:
        await call.answer({"error": {"message": "the prompt is too long", "code": 400}}, "400 Bad Request")

    upstream.behave = refuse
    await gateway.add(service("chat", upstream))
    answer = await gateway.chat()
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, "the prompt is too long")
    assert len(upstream.calls) == 1


@pytest.mark.parametrize("given", ["abc-1.2_3", "x" * 128])
async def test_a_sane_request_id_is_kept(gateway: RunningGateway, given: str) -> None:
    answer = await gateway.http.get("/v1/models", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a;b", "ä"])
async def test_another_request_id_is_replaced(gateway: RunningGateway, given: str) -> None:
    answer = await gateway.http.get("/v1/models", headers={"x-request-id": given.encode()})
    made = answer.headers["x-request-id"]
    assert made == answer.json()["error"]["request_id"]
    assert made != given
    assert len(made) == 16


async def test_the_engine_is_asked_by_its_own_name(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(
        service("chat", upstream, servedModelName="org/Model", aliases=["gpt-4o"]),
        service("tiny", upstream, namespace="public"),
    )
    raw = b'{ "messages": [{"model": "no"}],  "model" :"%s", "x": 1.50}'
    for asked, heard in {
        "chat": "org/Model",
        "org/Model": "org/Model",
        "gpt-4o": "org/Model",
        "user-ada/chat": "org/Model",
        "user-ada/gpt-4o": "org/Model",
        "tiny": "tiny",
        "public/tiny": "tiny",
    }.items():
        headers = {"authorization": f"Bearer {ADA}", "content-type": "application/json"}
        answer = await gateway.http.post("/v1/chat/completions", content=raw % asked.encode(), headers=headers)
        assert answer.status_code == 200, asked
        body = raw % heard.encode()
        if heard == "tiny":  # what many may use is asked to keep callers apart, in fields at the end
            assert upstream.calls[-1].body.startswith(body[:-1] + b',"cache_prompt":false,"cache_salt":"'), asked
        else:
            assert upstream.calls[-1].body == body, asked


async def test_a_chunked_request_body_is_read(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 300_000}], "model": "chat"}).encode()

    async def pieces():
        for start in range(0, len(body), 50_000):
            yield body[start : start + 50_000]

    answer = await gateway.http.post(
        "/v1/chat/completions", content=pieces(), headers={"authorization": f"Bearer {ADA}"}
    )
    assert answer.status_code == 200
    assert upstream.calls[0].body == body
    assert upstream.calls[0].header("transfer-encoding") is None


@pytest.mark.parametrize("end", ["length", "chunked", "close", "close-1.0"])
async def test_any_framing_of_an_answer(gateway: RunningGateway, upstreams: MakeUpstream, end: str) -> None:
    upstream = await upstreams()
    body = json.dumps(completion("x" * 500_000)).encode()

    async def framed(call: Call) -> None:
        kind = b"Content-Type: application/json\r\n"
        if end == "length":
            await call.raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
            await call.raw(b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (kind, len(body), body))
        elif end == "chunked":
            await call.raw(b"HTTP/1.1 200 OK\r\n%sTransfer-Encoding: chunked\r\n\r\n" % kind)
            for start in range(0, len(body), 70_000):
                await call.chunk(body[start : start + 70_000])
            await call.raw(b"0\r\nX-Trailer: 1\r\n\r\n")
        else:
            version = b"1.0" if end == "close-1.0" else b"1.1"
            await call.raw(b"HTTP/%s 200 OK\r\n%s\r\n%s" % (version, kind, body))
            call.writer.close()

    upstream.behave = framed
    await gateway.add(service("chat", upstream))
    for _ in range(2):
        answer = await gateway.chat()
        assert (answer.status_code, answer.content) == (200, body)
    assert upstream.connections == (1 if end in {"length", "chunked"} else 2)


async def test_connections_are_used_again(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    for _ in range(5):
        assert (await gateway.chat()).status_code == 200
    assert upstream.connections == 1


async def test_unused_connections_are_closed(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    options = GatewayOptions(pool_idle=0.05)
    async with running_gateway(store, options, [service("chat", upstream)]) as gateway:
        assert (await gateway.chat()).status_code == 200
        await eventually(lambda: not upstream._writers)
        assert upstream.connections == 1
        assert (await gateway.chat()).status_code == 200
        assert upstream.connections == 2


async def test_a_connection_that_went_stale_is_replaced_unnoticed(
    gateway: RunningGateway, upstreams: MakeUpstream
) -> None:
    """An engine closes its connection at the moment when the next request is sent on it."""
    upstream = await upstreams()
    seen: list[int] = []

    async def once(call: Call) -> None:
        seen.append(len(upstream.calls))
        if len(seen) == 2:
            call.die()
        else:
            await upstream.speak(call)

    upstream.behave = once
    await gateway.add(service("chat", upstream))
    assert (await gateway.chat()).status_code == 200
    assert (await gateway.chat()).status_code == 200
    assert (len(seen), upstream.connections) == (3, 2)


async def test_a_replica_that_is_gone_is_passed_over(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    dead, alive = await upstreams("dead"), await upstreams("alive")
    await gateway.add(service("chat", dead, alive))
    await dead.stop()
    for _ in range(6):
        answer = await gateway.chat()
        assert answer.json()["choices"][0]["message"]["content"] == "alive heard chat"
    text = (await gateway.http.get("/metrics")).text
    retries = float(text.split("llmos_gateway_retries_total{")[1].split("} ")[1].split("\n")[0])
    assert retries == 1  # put aside after the first refusal, not asked again each time


@pytest.mark.parametrize("part", [b"", b"HTTP/1.1 200 OK\r\nContent-Ty"])
async def test_a_replica_that_dies_before_its_answer_is_replaced(
    gateway: RunningGateway, upstreams: MakeUpstream, part: bytes
) -> None:
    dying, alive = await upstreams("dying"), await upstreams("alive")

    async def die(call: Call) -> None:
        await call.raw(part)
        call.die()

    dying.behave = die
    await gateway.add(service("chat", dying, alive))
    for _ in range(4):
        answer = await gateway.chat()
        assert answer.json()["choices"][0]["message"]["content"] == "alive heard chat"
    assert dying.calls


async def test_a_request_that_kills_does_not_go_through_all_replicas(
    gateway: RunningGateway, upstreams: MakeUpstream
) -> None:
    replicas = [await upstreams(f"r{i}") for i in range(4)]

    async def die(call: Call) -> None:
        call.die()

    for replica in replicas:
        replica.behave = die
    await gateway.add(service("chat", *replicas))
    answer = await gateway.chat()
    assert answer.status_code == 502
    assert sum(len(r.calls) for r in replicas) == 2


async def test_all_replicas_gone(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    replicas = [await upstreams(f"r{i}") for i in range(3)]
    await gateway.add(service("chat", *replicas))
    for replica in replicas:
        await replica.stop()
    answer = await gateway.chat()
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (502, "upstream_failed", "2")
    assert error["message"].startswith('Model "chat" did not answer: no connection: ')
    assert error["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 70_000,
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 7_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 3000,
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 000 Odd\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_answer_is_an_error(gateway: RunningGateway, upstreams: MakeUpstream, answer: bytes) -> None:
    upstream = await upstreams()

    async def wrong(call: Call) -> None:
        await call.raw(answer)
        await call.gone.wait()

    upstream.behave = wrong
    await gateway.add(service("chat", upstream))
    refused = await asyncio.wait_for(gateway.chat(), 30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_failed")
    if b"Odd" in answer:
        assert f"it answers with status {int(answer[9:12])}" in refused.json()["error"]["message"]


async def test_the_least_busy_replica_is_asked(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    replicas = [await upstreams(f"r{i}") for i in range(3)]
    go_on = asyncio.Event()

    async def hold(call: Call) -> None:
        await go_on.wait()
        await call.answer(completion("done"))

    for replica in replicas:
        replica.behave = hold
    await gateway.add(service("chat", *replicas))
    requests = [asyncio.create_task(gateway.chat()) for _ in range(9)]
    await eventually(lambda: sum(len(r.calls) for r in replicas) == 9)
    assert [len(r.calls) for r in replicas] == [3, 3, 3]
    text = (await gateway.http.get("/metrics")).text
    assert "} 9.0" in next(x for x in text.splitlines() if x.startswith("llmos_gateway_outstanding{"))
    go_on.set()
    assert {(await r).status_code for r in requests} == {200}


async def test_one_slow_replica_does_not_hold_up_the_others(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    slow, fast = await upstreams("slow"), await upstreams("fast")
    go_on = asyncio.Event()

    async def hold(call: Call) -> None:
        await go_on.wait()
        await slow.speak(call)

    slow.behave = hold
    await gateway.add(service("chat", slow, fast))
    first = asyncio.create_task(gateway.chat())
    second = asyncio.create_task(gateway.chat())
    await slow.next_call()
    for _ in range(5):
        assert (await gateway.chat()).json()["choices"][0]["message"]["content"] == "fast heard chat"
    go_on.set()
    await asyncio.gather(first, second)


@pytest.mark.parametrize("when", ["before", "during"])
async def test_a_client_that_leaves_cancels_the_engine(
    gateway: RunningGateway, upstreams: MakeUpstream, when: str
) -> None:
    upstream, other = await upstreams(), await upstreams("other")

    async def endless(call: Call) -> None:
        if when == "during":
            await call.start_events()
            await call.event(delta("first"))
        await call.gone.wait()

    upstream.behave = other.behave = endless
    await gateway.add(service("chat", upstream, other))
    body = json.dumps({"model": "chat", "messages": HELLO, "stream": True})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\n"
    reader, writer = await gateway.raw(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
    call = await upstream.next_call()
    if when == "during":
        await asyncio.wait_for(reader.readuntil(b"first"), 30)
    writer.transport.abort()
    await asyncio.wait_for(call.gone.wait(), 30)
    await eventually(lambda: not gateway.gateway.context.metrics.running)
    assert not other.calls  # and nobody else is asked instead
    text = (await gateway.http.get("/metrics")).text
    assert 'code="499"' in text


@pytest.mark.parametrize("partial", [b"", b"data: {not whole"])
async def test_an_engine_that_dies_in_its_stream(
    gateway: RunningGateway, upstreams: MakeUpstream, partial: bytes
) -> None:
    upstream = await upstreams()

    async def die(call: Call) -> None:
        await call.start_events()
        await call.event(delta("first"))
        await eventually(lambda: words)
        if partial:
            await call.chunk(partial)
        call.die()

    upstream.behave = die
    await gateway.add(service("chat", upstream, await upstreams("other")))
    words: list[str] = []

    async def read(stream) -> None:
        async for chunk in stream:
            words.append(chunk.choices[0].delta.content)  # noqa: PERF401 - kept up to the error

    async with gateway.openai() as client:
        stream = await client.chat.completions.create(model="chat", messages=HELLO, stream=True)
        # after a whole event an error event can follow; within one only the closed connection tells
        with pytest.raises(openai.APIConnectionError if partial else openai.APIError) as caught:
            await read(stream)
    assert words == ["first"]
    if not partial:
        assert "broke off in the middle of its answer" in str(caught.value)


@pytest.mark.parametrize("framing", [b"Content-Length: 1000\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_part_of_an_answer_never_looks_whole(
    gateway: RunningGateway, upstreams: MakeUpstream, framing: bytes
) -> None:
    upstream = await upstreams()

    async def die(call: Call) -> None:
        await call.raw(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + framing + b"\r\n")
        await call.raw(b'5\r\n{"a":\r\n' if b"chunked" in framing else b'{"a":')
        call.die()

    upstream.behave = die
    await gateway.add(service("chat", upstream))
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.chat()


async def test_a_client_that_reads_slowly_slows_the_engine(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    """The gateway buffers a limited part of an answer, however much the engine sends."""
    upstream = await upstreams()
    total, chunk = 64 * 1024 * 1024, b"x" * 65536
    sent = 0

    async def flood(call: Call) -> None:
        nonlocal sent
        await call.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await call.raw(chunk)
            sent += len(chunk)

    upstream.behave = flood
    await gateway.add(service("chat", upstream))
    body = b'{"model": "chat"}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\nconnection: close\r\n"
    reader, writer = await gateway.raw(head.encode() + b"content-length: %d\r\n\r\n%s" % (len(body), body))
    await reader.readuntil(b"\r\n\r\n")

    def still() -> bool:
        """Return whether client and gateway have stopped reading, and the gateway waits for the client."""
        from_engine = any(connection._paused for connection in gateway.gateway._upstreams.active)
        to_client = any(connection.flow.write_paused for connection in gateway.server.server_state.connections)
        return from_engine and to_client and not writer.transport.is_reading()

    await eventually(still)
    assert sent < total / 2
    received = 0
    async with asyncio.timeout(60):
        while data := await reader.read(1 << 20):
            received += len(data)
    writer.close()
    assert received == total


async def test_an_engine_is_not_held_for_a_client_that_takes_nothing(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()

    async def flood(call: Call) -> None:
        await call.start_events()
        while True:
            await call.event(delta("x" * 60_000))

    upstream.behave = flood
    options = GatewayOptions(idle_timeout=0.3)
    async with running_gateway(store, options, [service("chat", upstream)]) as gateway:
        body = b'{"model": "chat"}'
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\n".encode()
        _, writer = await gateway.raw(head + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        call = await upstream.next_call()
        assert await asyncio.wait_for(call.gone.wait(), 30), "the engine's connection is closed"
        writer.transport.abort()


async def test_silent_engines_are_given_up(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()

    async def silent(call: Call) -> None:
        if call.json.get("stream"):
            await call.start_events()
            await call.event(delta("first"))
        await call.gone.wait()

    upstream.behave = silent
    options = GatewayOptions(first_byte_timeout=0.2, idle_timeout=0.2)
    async with running_gateway(store, options, [service("chat", upstream)]) as gateway:
        answer = await gateway.chat()
        assert answer.status_code == 502
        assert "silent for too long" in answer.json()["error"]["message"]
        stream = await gateway.chat(stream=True)
        assert "first" in stream.text
        assert "silent for too long" in stream.text


async def test_a_rollout_drops_nothing(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    """A running request continues at a replica that is no longer ready; the next one goes to the new replica."""
    old, new = await upstreams("old"), await upstreams("new")
    go_on = asyncio.Event()

    async def hold(call: Call) -> None:
        await go_on.wait()
        await old.speak(call)

    old.behave = hold
    await gateway.add(service("chat", old))
    running = asyncio.create_task(gateway.chat())
    await old.next_call()
    await gateway.change(service("chat", new))
    assert (await gateway.chat()).json()["choices"][0]["message"]["content"] == "new heard chat"
    go_on.set()
    assert (await running).json()["choices"][0]["message"]["content"] == "old heard chat"
    await eventually(lambda: not old._writers)


async def test_a_custom_engine_gets_the_key_of_its_service_and_no_other_engine_any(
    store: Store, upstreams: MakeUpstream
) -> None:
    custom, plain = await upstreams("custom", tcp=True), await upstreams("plain")
    services = [service("mine", custom, engine="custom"), service("chat", plain)]
    async with running_gateway(store, services=services, engine_secret="s") as gateway:
        uid = (await store.get(ModelService, "user-ada", "mine")).metadata.uid
        for model in ("mine", "chat"):
            assert (await gateway.chat(model)).status_code == 200
    assert custom.calls[0].header("authorization") == f"Bearer {engine_key('s', uid or '')}"
    assert plain.calls[0].header("authorization") is None
    assert ADA not in str(custom.calls[0].headers)
