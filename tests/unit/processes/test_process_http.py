"""One HTTP request over a plain socket."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from llmos_hub.processes.http import NoHTTP, Response, http_request


@asynccontextmanager
async def listener(path, answer, *, close=True):
    """A server on a socket that answers each request with these bytes."""
    asked = []
    leave = asyncio.Event()

    async def handle(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        await writer.drain()
        if not close:
            await leave.wait()
        writer.close()

    server = await asyncio.start_unix_server(handle, path)
    try:
        yield f"unix://{path}", asked
    finally:
        leave.set()
        server.close()
        await server.wait_closed()


async def test_over_a_socket(tmp_path):
    async with listener(tmp_path / "a b.sock", b"HTTP/1.1 201 Created\r\nX: y\r\n\r\nhello") as (_, asked):
        url = f"unix://{tmp_path}/a%20b.sock"
        answer = await http_request(url, "/x?y", headers={"Authorization": "Bearer k"})
    assert answer == Response(201, b"hello")
    assert answer.good
    assert asked == [b"GET /x?y HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer k\r\n\r\n"]


async def test_a_status_is_known_before_the_answer_ends(tmp_path):
    async with listener(tmp_path / "s", b"HTTP/1.1 503 no\r\n", close=False) as (url, _):
        answer = await http_request(url, "/", whole=False, timeout=30)
        assert answer.status == 503
        assert not answer.good
        with pytest.raises(TimeoutError):
            await http_request(url, "/", timeout=0.05)


@pytest.mark.parametrize(("said", "empty"), [(b"", True), (b"SSH-2.0-x\r\n", False), (b"HTTP/1.1\r\n", False)])
@pytest.mark.parametrize("whole", [True, False])
async def test_what_is_no_http(tmp_path, said, empty, whole):
    async with listener(tmp_path / "s", said) as (url, _):
        with pytest.raises(NoHTTP, match="no HTTP answer") as refused:
            await http_request(url, "/", whole=whole)
    assert refused.value.empty is empty


async def test_a_long_answer_is_cut(tmp_path):
    async with listener(tmp_path / "s", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 500_000) as (url, _):
        assert len((await http_request(url, "/")).body) < 2**18
