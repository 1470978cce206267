"""A process that has just started waits for the Hub."""

from __future__ import annotations

import asyncio
import logging

import pytest

from llmos_hub.identity import HubIdentity
from llmos_hub.identity.settling import until_settled
from tests.support.fake_hub import FakeHub, fake_hub

__all__ = ["fake_hub"]


class Answers:
    """The Hub's answers, one for each request; the last one is repeated."""

    def __init__(self, *script: bool) -> None:
        self.script = list(script)
        self.asked = 0

    async def __call__(self) -> bool:
        self.asked += 1
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]


async def test_the_last_answers_of_a_hub_that_goes_do_not_count():
    answers = Answers(True, True, False, False, False, True)
    assert await until_settled(answers, calm=0.05, pause=0.01)
    assert answers.asked > 6  # all of the script, and the calm from its end


async def test_nobody_waits_for_ever(caplog):
    with caplog.at_level(logging.WARNING):
        assert not await until_settled(Answers(False), patience=0.05, pause=0.01)
    assert "going on without it" in caplog.text


async def test_a_hub_answers_without_a_token(fake_hub: FakeHub):
    identity = HubIdentity(fake_hub.url, fake_hub.service_token)
    try:
        assert await identity.answers()
    finally:
        await identity.close()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"])
async def test_what_is_no_hub_does_not(answer: bytes):
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        identity = HubIdentity(f"http://127.0.0.1:{port}/hub/api", "token")
        try:
            assert not await identity.answers()
        finally:
            await identity.close()
