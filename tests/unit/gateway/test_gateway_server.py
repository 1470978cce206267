"""The gateway's process: limits on connections, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from llmos.errors import UsageError
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.gateway.server import listen
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, MakeUpstream, delta
from tests.support.gateway import ADA, RunningGateway, refused, running_gateway, service
from tests.support.waiting import eventually

HEAD = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\n".encode()


async def answer_to(gateway: RunningGateway, data: bytes, timeout: float = 30) -> bytes:
    """Return all bytes until the gateway closes; empty if it resets the connection of a client that still sends."""
    reader, writer = await gateway.raw(data)
    try:
        return await asyncio.wait_for(reader.read(), timeout)
    except ConnectionResetError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "data",
    [
        b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 400_000,
        b"GET /health HTTP/1.1\r\nhost: x\r\nx-long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\n" + b"x-many: 1\r\n" * 40_000,
        b"GET /" + b"x" * 400_000,
    ],
    ids=["endless header", "long header", "many headers", "endless path"],
)
async def test_heads_are_bounded(gateway: RunningGateway, data: bytes) -> None:
    answer = await answer_to(gateway, data)
    if len(data) > 200_000 and not answer:
        return
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "payload_too_large"


async def test_what_is_no_http(gateway: RunningGateway) -> None:
    answer = await answer_to(gateway, b"SSH-2.0-OpenSSH\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "bad_request"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\n{}",
        HEAD + b"content-length: -5\r\n\r\n{}",
        HEAD + b"content-length: 5x\r\n\r\n{}",
        HEAD + b"x: a\nb: c\r\n bad\r\n\r\n",
    ],
)
async def test_ambiguous_requests_are_refused(gateway: RunningGateway, data: bytes) -> None:
    """Request smuggling needs two servers that parse a request differently."""
    assert (await answer_to(gateway, data)).startswith(b"HTTP/1.1 400 ")


async def test_endless_trailers_and_chunk_extensions(gateway: RunningGateway) -> None:
    for rest in (b"0\r\nx: " + b"x" * 1_000_000, b"5;ext=" + b"x" * 1_000_000):
        answer = await answer_to(gateway, HEAD + b"transfer-encoding: chunked\r\n\r\n" + rest)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "data", [b"", b"GET /health HTTP/1.1\r\nhost", b"GET /health HTTP/1.1\r\nhost: x\r\n\r\nGET /"]
)
async def test_a_head_that_never_ends(store: Store, data: bytes) -> None:
    async with running_gateway(store, GatewayOptions(head_timeout=0.2)) as gateway:
        answer = await answer_to(gateway, data, 20)  # that it ends is the point
        assert answer.startswith(b"HTTP/1.1 200 ") is data.endswith(b"GET /")


async def test_a_body_that_never_ends(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    async with running_gateway(store, GatewayOptions(body_gap_timeout=0.2), [service("chat", upstream)]) as gateway:
        answer = await answer_to(gateway, HEAD + b"connection: close\r\ncontent-length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code": "request_timeout"' in answer
        assert gateway.gateway.context.metrics.running == 0
    assert upstream.calls == []


async def test_a_body_that_drips(store: Store) -> None:
    options = GatewayOptions(body_gap_timeout=600, body_timeout=0.5)
    async with running_gateway(store, options) as gateway:
        reader, writer = await gateway.raw(HEAD + b"connection: close\r\ncontent-length: 1000\r\n\r\n")

        async def drip() -> None:
            while True:
                writer.write(b"x")
                await asyncio.sleep(0.05)

        task = asyncio.create_task(drip())
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
        task.cancel()
        writer.transport.abort()
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_refused_body_that_never_comes(store: Store) -> None:
    async with running_gateway(store, GatewayOptions(head_timeout=0.2)) as gateway:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n"
        assert (await answer_to(gateway, head)).startswith(b"HTTP/1.1 401 ")


async def test_connections_are_bounded_and_the_oldest_without_a_request_goes(
    store: Store, upstreams: MakeUpstream
) -> None:
    """Opening connections needs no token, so idle ones must not keep out requests."""
    upstream = await upstreams()
    go_on = asyncio.Event()

    async def hold(call: Call) -> None:
        await go_on.wait()
        await upstream.speak(call)

    upstream.behave = hold
    async with running_gateway(
        store, GatewayOptions(max_connections=3, head_timeout=600), [service("chat", upstream)]
    ) as gateway:
        body = b'{"model":"chat"}'
        busy, busy_writer = await gateway.raw(HEAD + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        await upstream.next_call()
        oldest, oldest_writer = await gateway.raw(b"")
        kept, kept_writer = await gateway.raw(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await kept.readuntil(b'{"status": "ok"}')
        for _ in range(2):  # each in the place of the oldest that is without a request
            new, new_writer = await gateway.raw(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await asyncio.wait_for(new.read(), 30)).startswith(b"HTTP/1.1 200 ")
            new_writer.close()
            assert await asyncio.wait_for(oldest.read(), 30) == b""
        kept_writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert await asyncio.wait_for(kept.readuntil(b'{"status": "ok"}'), 30)
        go_on.set()  # who was asking was never in question
        assert (await asyncio.wait_for(busy.readuntil(b"\r\n"), 30)).startswith(b"HTTP/1.1 200 ")
        for writer in (busy_writer, oldest_writer, kept_writer):
            writer.transport.abort()


async def test_a_connection_more_than_are_allowed_is_refused_where_all_are_busy(
    store: Store, upstreams: MakeUpstream
) -> None:
    upstream = await upstreams()
    upstream.behave = lambda call: call.gone.wait()
    async with running_gateway(store, GatewayOptions(max_connections=1), [service("chat", upstream)]) as gateway:
        body = b'{"model":"chat"}'
        _, busy = await gateway.raw(HEAD + b"content-length: %d\r\n\r\n%s" % (len(body), body))
        await upstream.next_call()
        reader, writer = await gateway.raw(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.transport.abort()
        busy.transport.abort()


async def test_pipelined_requests_are_answered_in_order(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    await gateway.add(service("chat", upstream))
    body = b'{"model":"chat"}'
    one = HEAD + b"content-length: %d\r\n\r\n%s" % (len(body), body)
    last = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await answer_to(gateway, one + one + last)
    assert [x[:3] for x in answer.split(b"HTTP/1.1 ")[1:]] == [b"200"] * 3
    assert answer.endswith(b'{"status": "ok"}')


async def test_expect_continue(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    await gateway.add(service("chat", await upstreams()))
    body = b'{"model":"chat"}'
    reader, writer = await gateway.raw(HEAD + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(body))
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 100 ")
    writer.write(body)
    assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()


def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"Port {port} is taken"):
            listen("127.0.0.1", port)
    with pytest.raises(UsageError, match="no address of this machine"):
        listen("no such host", 0)


PROGRAM = """
import logging, sys, uvloop
from llmos_hub.gateway.app import serve
from llmos_hub.settings import ProcessSettings
logging.basicConfig(level="INFO", stream=sys.stderr)
uvloop.run(serve(ProcessSettings.from_environment()))
print("ended well")
"""


class GatewayProcess:
    """Run `serve` as the platform does, with a Hub that knows ada."""

    def __init__(self, url: str, hub: str, drain: float, directory: Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        env = {
            **os.environ,
            "LLMOS_DATA_DIR": str(directory),
            "LLMOS_REDIS_URL": url,
            "LLMOS_PORT": str(self.port),
            "JUPYTERHUB_API_URL": f"{hub}/hub/api",
            "JUPYTERHUB_API_TOKEN": "service",
            "LLMOS_GATEWAY_DRAIN_SECONDS": str(drain),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", headers={"authorization": "Bearer ada-hub-token"}, trust_env=False
        )

    async def ready(self, wanted: int = 200) -> None:
        async def answers() -> bool:
            try:
                return (await self.http.get("/ready")).status_code == wanted
            except httpx.TransportError:
                assert self.process.poll() is None, self.process.communicate()
                return False

        await eventually(answers)

    async def end(self) -> tuple[int, str, str]:
        out, err = await asyncio.to_thread(self.process.communicate, timeout=20)
        await self.http.aclose()
        return self.process.returncode, out, err


async def answer_as_hub(call: Call) -> None:
    scopes = ["custom:llmos:invoke"]
    await call.answer({"kind": "user", "name": "ada", "admin": False, "groups": [], "scopes": scopes, "token_id": "a1"})


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
async def test_what_runs_is_finished_when_the_process_ends(
    store: Store, redis_url: str, upstreams: MakeUpstream, tmp_path: Path, sig: signal.Signals
) -> None:
    upstream, hub = await upstreams(), await upstreams("hub", tcp=True)
    hub.behave = answer_as_hub
    go_on = asyncio.Event()

    async def slowly(call: Call) -> None:
        await call.start_events()
        await call.event(delta("first"))
        await go_on.wait()
        await call.event("[DONE]")
        await call.end()

    upstream.behave = slowly
    created = await store.create(service("chat", upstream))
    await store.patch_status(created.model_copy(update={"status": service("chat", upstream).status}))
    gateway = GatewayProcess(redis_url, hub.url, 10, tmp_path)
    try:
        await gateway.ready()
        running = asyncio.create_task(gateway.http.post("/v1/chat/completions", json={"model": "chat"}, timeout=20))
        await upstream.next_call()
        gateway.process.send_signal(sig)
        # no new connection is taken any more
        await eventually(lambda: refused(asyncio.open_connection("127.0.0.1", gateway.port)))
        go_on.set()
        assert (await running).text.endswith("data: [DONE]\n\n")
    finally:
        code, out, err = await gateway.end()
    assert (code, out) == (0, "ended well\n"), err
    assert "Traceback" not in err
    assert "caller=ada model=user-ada/chat" in err
    assert "ada-hub-token" not in err


async def test_what_takes_too_long_is_broken_off(
    store: Store, redis_url: str, upstreams: MakeUpstream, tmp_path: Path
) -> None:
    upstream, hub = await upstreams(), await upstreams("hub", tcp=True)
    hub.behave = answer_as_hub

    async def endless(call: Call) -> None:
        await call.start_events()
        await call.event(delta("first"))
        await call.gone.wait()

    upstream.behave = endless
    created = await store.create(service("chat", upstream))
    await store.patch_status(created.model_copy(update={"status": service("chat", upstream).status}))
    gateway = GatewayProcess(redis_url, hub.url, 0.3, tmp_path)
    try:
        await gateway.ready()
        running = asyncio.create_task(gateway.http.post("/v1/chat/completions", json={"model": "chat"}, timeout=20))
        call = await upstream.next_call()
        gateway.process.terminate()
        with pytest.raises(httpx.RemoteProtocolError):
            await running
        await asyncio.wait_for(call.gone.wait(), 30)
    finally:
        code, out, err = await gateway.end()
    assert (code, out) == (0, "ended well\n"), err
    assert "was broken off: the gateway is stopping" in err
    assert "Traceback" not in err
