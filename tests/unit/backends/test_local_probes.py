"""Probes of servers that behave, and of those that don't."""

from __future__ import annotations

import asyncio

import pytest

from llmos_hub.backends.local.probes import http_get
from llmos_hub.backends.local.process import free_port


@pytest.fixture
async def server(tmp_path):
    """A function that starts servers which answer with the given bytes; None: not at all."""
    servers = []

    async def make(answer: bytes | None) -> str:
        async def handle(reader, writer):
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answer is None:
                await asyncio.wait([asyncio.ensure_future(reader.read())])
            else:
                writer.write(answer)
            writer.close()

        path = tmp_path / f"{len(servers)}.sock"
        servers.append(await asyncio.start_unix_server(handle, path))
        return f"unix://{path}"

    asked = make.asked = []
    yield make
    for server in servers:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "good", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, "HTTP 200"),
        (b"HTTP/1.1 204\r\n\r\n", True, "HTTP 204"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n{}", False, "HTTP 503"),
        (b"HTTP/1.1 302 Found\r\n\r\n", False, "HTTP 302"),
        (b"SSH-2.0-x\r\n", False, "something else than HTTP"),
        (b"", False, "nothing, it hung up"),
        (b"x" * 200_000, False, "something else than HTTP"),
    ],
)
async def test_answers(server, answer, good, words):
    found = await http_get(await server(answer), "/health", 5)
    assert (found.good, found.words) == (good, words)
    assert server.asked[0].startswith(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")


async def test_no_answer_takes_no_longer_than_the_timeout(server):
    found = await http_get(await server(None), "/health", 0.05)
    assert (found.good, found.words, found.silent) == (False, "nothing within 0.05 s", True)


async def test_nobody_listens(tmp_path):
    for endpoint in (f"unix://{tmp_path}/none.sock", f"http://127.0.0.1:{free_port()}"):
        found = await http_get(endpoint, "/health", 5)
        assert (found.good, found.words) == (False, "nothing, it doesn't listen yet")
