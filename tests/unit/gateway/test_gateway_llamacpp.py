"""The gateway with a real llama.cpp: answers, streams, and the end of computing when the client left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.stores.base import Store
from tests.support.gateway import RunningGateway, running_gateway, service
from tests.support.llamacpp import MACHINE, EngineProcess, demo_model, engine_process
from tests.support.waiting import eventually

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def engine(tmp_path: Path, sockets: Path) -> Iterator[EngineProcess]:
    spec = ModelServiceSpec(model="demo://tiny", args=["--slots", "--ctx-size", "100000"])
    plan = LlamaCpp().plan(spec, demo_model("tiny", tmp_path), MACHINE)
    with engine_process(plan.template, sockets) as started:
        yield started


@pytest.fixture
async def chat(store: Store, engine: EngineProcess) -> RunningGateway:
    async with running_gateway(store, None, [service("chat", f"unix://{engine.socket}")]) as gateway:
        yield gateway


async def read_all(chunks: AsyncIterator[Any]) -> None:
    async for _ in chunks:
        pass


async def busy(engine: EngineProcess) -> bool:
    transport = httpx.AsyncHTTPTransport(uds=str(engine.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
        return any(slot["is_processing"] for slot in (await client.get("/slots")).json())


async def test_answers_and_streams(chat: RunningGateway) -> None:
    async with chat.openai() as client:
        for _ in range(3):
            answer = await client.chat.completions.create(
                model="chat", messages=HELLO, max_tokens=8, seed=1, temperature=0
            )
            stream = await client.chat.completions.create(
                model="chat", messages=HELLO, max_tokens=8, seed=1, temperature=0, stream=True
            )
            words = [c.choices[0].delta.content or "" async for c in stream if c.choices]
            assert "".join(words) == answer.choices[0].message.content
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "x " * 100_000}])


async def test_a_client_that_leaves_frees_the_slot(chat: RunningGateway, engine: EngineProcess) -> None:
    endless = {"model": "chat", "messages": HELLO, "stream": True, "ignore_eos": True, "max_tokens": 1_000_000}
    headers = {"authorization": "Bearer ada-token"}
    async with chat.http.stream("POST", "/v1/chat/completions", json=endless, headers=headers) as answer:
        chunks = answer.aiter_raw()  # held: an iterator that is let go of closes the stream
        await anext(chunks)
        assert await busy(engine)

    async def idle() -> bool:
        return not await busy(engine)

    await eventually(idle)
    assert "cancel" in engine.log.read_text()


async def test_an_engine_that_is_killed_in_its_stream(chat: RunningGateway, engine: EngineProcess) -> None:
    endless = {"messages": HELLO, "max_tokens": 1_000_000, "extra_body": {"ignore_eos": True}}
    async with chat.openai() as client:
        stream = await client.chat.completions.create(model="chat", stream=True, **endless)
        chunks = aiter(stream)
        await anext(chunks)
        engine.process.kill()
        with pytest.raises(openai.APIError, match="broke off in the middle"):
            await read_all(chunks)
        with pytest.raises(openai.InternalServerError, match="did not answer: "):
            await client.chat.completions.create(model="chat", messages=HELLO)
