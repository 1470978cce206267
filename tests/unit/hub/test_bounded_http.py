"""Limits of the API and of the mirror of models that apply with and without a token: heads, time, connections."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from llmos_hub import mirror
from llmos_hub.api.app import make_server
from llmos_hub.bounded_http import Bounds
from tests.support.waiting import eventually

GET = b"GET /health HTTP/1.1\r\nhost: x\r\n"
Make = Callable[[Bounds], uvicorn.Server]


async def _health(_: object) -> JSONResponse:
    return JSONResponse({"status": "ok"})


@pytest.fixture(params=["API", "mirror"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Yield the servers as their processes configure them."""
    if request.param == "mirror":
        return lambda bounds: mirror.make_server(tmp_path, "127.0.0.1", 0, bounds)
    return lambda bounds: make_server(Starlette(routes=[Route("/health", _health)]), bounds)


@contextlib.asynccontextmanager
async def running(server: uvicorn.Server) -> AsyncIterator[int]:
    """Run the server, and yield its port."""
    server.config.port = 0
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def answer_to(port: int, data: bytes, timeout: float = 10) -> bytes:
    """Return all data until the server closes; nothing if it resets the connection while the client still sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), timeout)
    except ConnectionError:
        return b""
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "data",
    [
        GET + b"x-long: " + b"x" * 100_000 + b"\r\n\r\n",
        GET + b"x-long: " + b"x" * 1_000_000,
        GET + b"x-many: 1\r\n" * 40_000,
        b"GET /" + b"x" * 400_000,
    ],
    ids=["long header", "endless header", "many headers", "endless path"],
)
async def test_heads_are_bounded(make: Make, data: bytes) -> None:
    async with running(make(Bounds())) as port:
        answer = await answer_to(port, data)
        if answer or len(data) < 200_000:
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert b"over 65536 bytes" in answer
        assert (await answer_to(port, GET + b"connection: close\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        fits = GET + b"x: " + b"x" * 50_000 + b"\r\nconnection: close\r\n\r\n"
        assert (await answer_to(port, fits)).startswith(b"HTTP/1.1 200 ")


async def test_what_is_no_http(make: Make) -> None:
    async with running(make(Bounds())) as port:
        assert (await answer_to(port, b"SSH-2.0-OpenSSH\r\n\r\n")).startswith(b"HTTP/1.1 400 ")


async def test_a_refusal_of_the_api_is_a_status() -> None:
    async with running(make_server(Starlette())) as port:
        head, _, body = (await answer_to(port, b"nonsense\r\n\r\n")).partition(b"\r\n\r\n")
        assert json.loads(body)["kind"] == "Status"
        # under the Hub's origin no answer is a page
        assert b"\r\nx-content-type-options: nosniff" in head
        assert b"\r\ncontent-security-policy: default-src 'none'" in head


@pytest.mark.parametrize("data", [b"", b"GET", GET, GET + b"x-half: "])
async def test_a_head_that_never_ends(make: Make, data: bytes) -> None:
    async with running(make(Bounds(head_timeout=0.2))) as port:
        assert await answer_to(port, data) == b""


async def test_a_body_that_never_ends_after_its_answer(make: Make) -> None:
    async with running(make(Bounds(head_timeout=0.2))) as port:
        answer = await answer_to(port, b"GET /health HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 200 ")


async def test_who_holds_many_connections_keeps_nobody_out(make: Make) -> None:
    async with running(make(Bounds(max_connections=20, head_timeout=600))) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
        for number, (_, writer) in enumerate(held):
            writer.write((b"", b"GET / HTTP/1.1\r\nx-half", b"G")[number % 3])
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            for _ in range(3):
                assert (await client.get("/health")).status_code == 200
        for reader, _ in held[:20]:  # the oldest were closed first
            with contextlib.suppress(ConnectionError):
                assert await asyncio.wait_for(reader.read(), 30) == b""
        for _, writer in held:
            writer.transport.abort()


def test_connections_are_no_more_than_the_process_may_open(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert Bounds().connections() == 2048
    assert limits[-1] == (2176, 4096)
    limits.append((512, 512))
    assert Bounds().connections() == 384
