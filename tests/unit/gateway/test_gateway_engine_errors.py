"""Clients' errors are answered with a 400 that says what to change, although a real llama.cpp answers with 500."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, MakeUpstream
from tests.support.gateway import RunningGateway, running_gateway, service
from tests.support.llamacpp import MACHINE, EngineProcess, demo_model, engine_process

PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
SOUND = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
LIMIT = 512


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture
def engine(sockets: Path, directory: Path) -> Iterator[EngineProcess]:
    """A process that answers all endpoints: a chat model that is started with embeddings."""
    args = ["--ctx-size", str(LIMIT), "--parallel", "1"]
    spec = ModelServiceSpec(model="demo://tiny", task="embed", args=args)
    with engine_process(LlamaCpp().plan(spec, demo_model("tiny", directory), MACHINE).template, sockets) as started:
        yield started


@pytest.fixture
async def gateway(store: Store, engine: EngineProcess) -> AsyncIterator[RunningGateway]:
    url = f"unix://{engine.socket}"
    services = [service("embed", url, task="embed", engine="llamacpp"), service("chat", url, engine="llamacpp")]
    async with running_gateway(store, None, services) as running:
        yield running


@pytest.mark.parametrize(
    ("given", "says", "param"),
    [
        (["short", "word " * 3000, "short"], r"Input\[1\] has [\d,]{5,} tokens, and", "input[1]"),
        ("word " * 3000, r"Input has [\d,]{5,} tokens, and", "input"),
        ([[1, 2, 3], [1, 2, 3] * 1000], r"Input\[1\] has 3,000 tokens, and", "input[1]"),
        ([1, 2, 3] * 1000, r"Input has 3,000 tokens, and", "input"),
        (
            ["word " * 3000, "x", "word " * 4000],
            r"Input\[0\] has .* tokens, input\[2\] has .* tokens, and",
            "input[0]",
        ),
        (["word " * 3000, 5], r"Input\[0\] has [\d,]{5,} tokens, and", "input[0]"),
        (["word", *[5] * 3000], r"A text has 3,0\d\d tokens, and", "input"),
    ],
    ids=["one of several", "a text", "tokens of several", "tokens", "two of several", "both", "both, long together"],
)
async def test_a_text_that_is_too_long_to_embed(gateway: RunningGateway, given: Any, says: str, param: str) -> None:
    async with gateway.openai() as client:
        with pytest.raises(openai.BadRequestError, match=says) as caught:
            await client.embeddings.create(model="embed", input=given, encoding_format="float")
        assert f'model "embed" takes {LIMIT} for a text. Shorten it or split it.' in str(caught.value)
        assert caught.value.param == param
        again = await client.embeddings.create(model="embed", input=["word " * 100], encoding_format="float")
        assert len(again.data) == 1


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"messages": [{"role": "user", "content": [PICTURE]}]}, 'Model "chat" takes no pictures.'),
        ({"messages": [{"role": "user", "content": [SOUND]}]}, 'Model "chat" takes no sounds.'),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "Failed to parse messages: "),
        ({"messages": [{"role": "assistant", "tool_calls": [{"x": 1}]}]}, "Failed to parse messages: "),
        ({"tools": [{"x": 1}]}, "Failed to parse tools: Missing tool type"),
        ({"tools": "x"}, "Failed to parse tools: Expected 'tools' to be an array"),
        ({"tools": [{"type": "function", "function": {}}]}, "Failed to parse tools: "),
        ({"reasoning_format": "x"}, "Unknown reasoning format: x"),
        ({"grammar": "root ::= ((("}, "failed to parse grammar"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}, "unrecognized type x"),
        ({"messages": [{"role": "user", "content": "word " * 3000}]}, "exceeds the available context size"),
        ({"messages": "x"}, "Expected 'messages' to be an array"),
        ({"temperature": "hot"}, "type must be number"),
    ],
    ids=lambda value: str(value)[:50],
)
async def test_a_request_that_can_not_be_answered(gateway: RunningGateway, more: dict[str, Any], says: str) -> None:
    answer = await gateway.chat(max_tokens=2, **more)
    assert answer.status_code == 400, answer.text
    assert says in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [b'{"error":{"code":500,"message":"Compute error.","type":"server_error"}}', b"<h1>oops</h1>", b"", b"x" * 200_000],
)
async def test_an_engines_own_mistakes_stay_its_own(store: Store, upstreams: MakeUpstream, body: bytes) -> None:
    upstream = await upstreams()

    async def fail(call: Call) -> None:
        head = b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n" % len(
            body
        )
        await call.raw(head + body)

    upstream.behave = fail
    async with running_gateway(store, None, [service("chat", upstream)]) as running:
        answer = await running.chat()
        assert (answer.status_code, answer.content) == (500, body)
        assert len(upstream.calls) == 1
