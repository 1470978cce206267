"""The pages for probes: short answers, also to invalid requests."""

from __future__ import annotations

import asyncio

import pytest

from llmos_hub.controllers import health
from llmos_hub.controllers.health import serve_pages


async def exchange(port: int, data: bytes) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = (await asyncio.wait_for(reader.read(), 30)).decode()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition("\r\n\r\n")
    return head.partition("\r\n")[0], body


async def well() -> tuple[int, str]:
    return 200, "ok\n"


async def ill() -> tuple[int, str]:
    return 503, "The database does not answer.\n"


async def test_pages_are_served_with_their_status() -> None:
    async with serve_pages("127.0.0.1", 0, {"/health": well, "/ready": ill}) as port:
        assert await exchange(port, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")
        assert await exchange(port, b"GET /health?x=1 HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")
        assert await exchange(port, b"HEAD /health HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "")
        answer = await exchange(port, b"GET /ready HTTP/1.1\r\n\r\n")
        assert answer == ("HTTP/1.1 503 Service Unavailable", "The database does not answer.\n")


@pytest.mark.parametrize("noise", [b"\x16\x03\x01\x02\r\n\r\n", b"hello\r\n\r\n", b"A" * 20_000 + b"\r\n\r\n"])
async def test_noise_is_answered_with_bad_request(noise: bytes) -> None:
    async with serve_pages("127.0.0.1", 0, {"/health": well}) as port:
        assert (await exchange(port, noise))[0] == "HTTP/1.1 400 Bad Request"


async def test_one_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_TIMEOUT", 0.1)
    async with serve_pages("127.0.0.1", 0, {"/health": well}) as port:
        assert await exchange(port, b"GET /hea") == ("", "")
        assert await exchange(port, b"GET /health HTTP/1.1\r\n\r\n") == ("HTTP/1.1 200 OK", "ok\n")
