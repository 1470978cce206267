"""Probes against real listeners."""

import asyncio
from contextlib import asynccontextmanager

import pytest

from llmos_hub.processes.http import http_request
from llmos_hub.supervisor.probes import HttpProbe, RedisProbe
from tests.support.waiting import eventually


@asynccontextmanager
async def listener(answer):
    received = bytearray()

    async def handle(reader, writer):
        try:
            await answer(reader, writer, received)
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], received


def saying(text):
    async def answer(reader, writer, received):
        received += await reader.readuntil(b"\r\n\r\n")
        writer.write(text)
        await writer.drain()

    return answer


async def test_http():
    async with listener(saying(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello")) as (port, received):
        assert await HttpProbe(f"http://127.0.0.1:{port}/health").check() is None
        answer = await http_request(
            f"http://127.0.0.1:{port}/a?b=c", method="POST", headers={"Authorization": "x"}, body=b"12"
        )
    assert (answer.status, answer.body) == (200, b"hello")
    assert b"POST /a?b=c HTTP/1.0\r\n" in received
    assert b"Content-Length: 2\r\n" in received


@pytest.mark.parametrize(
    ("text", "trouble"),
    [
        (b"HTTP/1.1 503 no\r\n\r\n", "answers with HTTP 503"),
        (b"hello\r\n\r\n", "no HTTP answer"),
        (b"", "no HTTP answer"),
    ],
)
async def test_http_trouble(text, trouble):
    async with listener(saying(text)) as (port, _):
        assert await HttpProbe(f"http://127.0.0.1:{port}/").check() == trouble


async def test_nobody_and_nothing():
    async def silence(reader, writer, received):
        await reader.read()

    async with listener(silence) as (port, _):
        assert await HttpProbe(f"http://127.0.0.1:{port}/", timeout=0.2).check() == "no answer within 0.2 s"
        assert await RedisProbe(f"redis://127.0.0.1:{port}/0", timeout=0.2).check() == "no answer within 0.2 s"
    assert "refused" in (await HttpProbe(f"http://127.0.0.1:{port}/").check()).lower()
    assert await RedisProbe("unix://:pw@/nowhere/valkey.sock").check() == "No such file or directory"


async def test_redis_with_and_without_the_right_password(tmp_path):
    from llmos_hub.valkey.server import ServerConfig, find_valkey

    config = ServerConfig(socket=tmp_path / "v.sock", directory=tmp_path, password="p@ss/word")
    process = await asyncio.create_subprocess_exec(
        *find_valkey().command(), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
    )
    process.stdin.write(config.render().encode())
    process.stdin.close()
    try:

        async def well():
            return await RedisProbe(config.url).check() is None

        await eventually(well)
        wrong = f"unix://:wrong@{tmp_path / 'v.sock'}"
        assert "WRONGPASS" in await RedisProbe(wrong).check()
        assert "NOAUTH" in await RedisProbe(f"unix://{tmp_path / 'v.sock'}").check()
    finally:
        process.terminate()
        await process.wait()
