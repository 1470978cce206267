"""The model in an answer has the name that was requested, streamed or not, and nothing else is changed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.gateway.renaming import Renaming
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, MakeUpstream, completion, delta
from tests.support.gateway import RunningGateway, running_gateway, service
from tests.support.llamacpp import MACHINE, EngineProcess, demo_model, engine_process

HELLO = [{"role": "user", "content": "hello"}]
SAYS = '"model":"tiny" says \\ "model": "tiny"'


@pytest.fixture
def engine(tmp_path: Path, sockets: Path) -> Iterator[EngineProcess]:
    spec = service("tiny", namespace="public").engine_spec
    with engine_process(LlamaCpp().plan(spec, demo_model("tiny", tmp_path), MACHINE).template, sockets) as started:
        yield started


@pytest.fixture
async def tiny(store: Store, engine: EngineProcess) -> AsyncIterator[RunningGateway]:
    model = service("tiny", f"unix://{engine.socket}", namespace="public", engine="llamacpp", aliases=["gpt-4o"])
    async with running_gateway(store, None, [model]) as gateway:
        yield gateway


@pytest.mark.parametrize("asked", ["tiny", "public/tiny", "gpt-4o", "public/gpt-4o"])
async def test_llama_cpp_answers_under_the_name_that_was_asked_for(tiny: RunningGateway, asked: str) -> None:
    async with tiny.openai() as client:
        answer = await client.chat.completions.create(model=asked, messages=HELLO, max_tokens=4)
        assert answer.model == asked
        stream = await client.chat.completions.create(model=asked, messages=HELLO, max_tokens=4, stream=True)
        assert {chunk.model async for chunk in stream} == {asked}
        completed = await client.completions.create(model=asked, prompt="x", max_tokens=2)
        assert completed.model == asked


@pytest.mark.parametrize("asked", ["tiny", "public/tiny"])
async def test_what_the_model_says_stays(gateway: RunningGateway, upstreams: MakeUpstream, asked: str) -> None:
    upstream = await upstreams()

    async def speak(call: Call) -> None:
        if not call.json.get("stream"):
            await call.answer(completion(SAYS, model="tiny"))
            return
        await call.start_events()
        await call.event({**delta(SAYS), "model": "tiny"})
        await call.event("[DONE]")
        await call.end()

    upstream.behave = speak
    await gateway.add(service("tiny", upstream, namespace="public"))
    answer = (await gateway.chat(asked)).json()
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == (asked, SAYS)
    streamed = (await gateway.chat(asked, stream=True)).text
    event = json.loads(streamed.split("\n\n")[0].removeprefix("data: "))
    assert (event["model"], event["choices"][0]["delta"]["content"]) == (asked, SAYS)


@pytest.mark.parametrize("asked", ["mine", "public/mine"])
async def test_a_program_of_ones_own_may_call_its_model_anything(
    gateway: RunningGateway, upstreams: MakeUpstream, asked: str
) -> None:
    upstream = await upstreams()
    upstream.behave = lambda call: call.answer(completion(SAYS, model="weights/mine.bin"))
    await gateway.add(service("mine", upstream, namespace="public", engine="custom"))
    answer = (await gateway.chat(asked)).json()
    assert (answer["model"], answer["choices"][0]["message"]["content"]) == (asked, SAYS)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_any_name_is_replaced_wherever_pieces_are_cut(size: int) -> None:
    text = b'{"model":"a\\"b"}{"model": ""}{"model":null}{"models":["x"]}"model":'
    renaming = Renaming(None, "chat")
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    out = b"".join(renaming.feed(piece, last=number == len(pieces) - 1) for number, piece in enumerate(pieces))
    assert out == b'{"model":"chat"}{"model": "chat"}{"model":null}{"models":["x"]}"model":'


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_pieces_may_be_cut_anywhere(size: int) -> None:
    text = b'{"model":"a\\u00e4"}{"model": "a\\u00e4"}{"model":"x"}"mod"model":'
    renaming = Renaming("aä", "public/aä")
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    out = b"".join(renaming.feed(piece, last=number == len(pieces) - 1) for number, piece in enumerate(pieces))
    assert out == text.replace(b'"a', b'"public/a')


def test_nothing_waits_without_need() -> None:
    """A streamed word is passed on when it comes."""
    renaming = Renaming("tiny", "gpt-4o")
    event = b'data: {"model":"tiny","content":"Hi"}\n\n'
    assert renaming.feed(event, last=False) == event.replace(b"tiny", b"gpt-4o")
