"""Nobody can guess another's prompt by the timing or the cached tokens of an answer; with a real llama.cpp."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.gateway.body import SMALL
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import MakeUpstream
from tests.support.gateway import ADA, GRACE, RunningGateway, running_gateway, service
from tests.support.llamacpp import MACHINE, EngineProcess, demo_model, engine_process

SECRET = "4821"
BEFORE = "The pin of the safe is "


def planned(namespace: str, **spec: Any) -> Any:
    """The model as the controllers plan it."""
    return service("chat", namespace=namespace, **spec).engine_spec


@pytest.fixture
def engine(request: pytest.FixtureRequest, tmp_path: Path, sockets: Path) -> Iterator[EngineProcess]:
    spec = planned("public", promptCache=getattr(request, "param", "auto"))
    with engine_process(LlamaCpp().plan(spec, demo_model("tiny", tmp_path), MACHINE).template, sockets) as started:
        yield started


@pytest.fixture
async def public(store: Store, engine: EngineProcess, request: pytest.FixtureRequest) -> AsyncIterator[RunningGateway]:
    cache = request.node.callspec.params.get("engine", "auto") if hasattr(request.node, "callspec") else "auto"
    model = service("chat", f"unix://{engine.socket}", namespace="public", engine="llamacpp", promptCache=cache)
    async with running_gateway(store, None, [model]) as gateway:
        yield gateway


async def known(gateway: RunningGateway, prompt: str, **more: Any) -> tuple[int, int]:
    """Return the numbers of cached and of computed tokens of a prompt, as a stranger sees them."""
    body = {"model": "chat", "prompt": prompt, "max_tokens": 1, **more}
    answer = (await gateway.post("/v1/completions", body, GRACE)).json()
    details = answer["usage"].get("prompt_tokens_details", {})
    total = answer["usage"]["prompt_tokens"]
    return details.get("cached_tokens", 0) + answer["timings"]["cache_n"], total - answer["timings"]["prompt_n"]


async def guess(gateway: RunningGateway, **more: Any) -> str:
    """Return the digits for which most tokens were cached, one after the other."""
    found = ""
    for _ in SECRET:
        tried = {digit: await known(gateway, BEFORE + found + digit + "!", **more) for digit in "0123456789"}
        best = max(tried.values())
        leaders = [digit for digit, value in tried.items() if value == best]
        if len(leaders) != 1:
            return found
        found += leaders[0]
    return found


async def ask(gateway: RunningGateway, **more: Any) -> None:
    """The victim's prompt."""
    body = {"model": "chat", "prompt": f"{BEFORE}{SECRET}! Keep it to yourself.", "max_tokens": 1, **more}
    assert (await gateway.post("/v1/completions", body, ADA)).status_code == 200


@pytest.mark.parametrize("engine", ["shared"], indirect=True)
async def test_where_an_admin_has_it_shared_the_attack_succeeds(public: RunningGateway) -> None:
    """The control: without the field the attack below works, and the field prevents it."""
    await ask(public)
    assert (await known(public, f"{BEFORE}{SECRET}! Keep it"))[0] > (await known(public, "Something else"))[0]


@pytest.mark.parametrize(
    "more",
    [{}, {"cache_prompt": True}, {"n_cache_reuse": 1, "cache_prompt": True}, {"id_slot": 0, "cache_prompt": True}],
)
async def test_a_secret_of_four_digits_is_not_found(public: RunningGateway, more: dict[str, Any]) -> None:
    await ask(public, **more)
    assert await guess(public, **more) == ""
    assert await known(public, f"{BEFORE}{SECRET}! Keep it to yourself.", **more) == (0, 0)


@pytest.mark.parametrize(
    "written",
    [
        '{"cache_prompt": false, "model": "chat", "max_tokens": 1, "prompt": %s, "cache_prompt": true}  \r\n',
        '{"model": "chat", "max_tokens": 1, "prompt": %s, "cache\\u005fprompt": true}',
        '\n{"model":"chat","max_tokens":1,"cache_prompt":true,"prompt":%s\t}\t',
    ],
)
async def test_however_the_body_is_written(public: RunningGateway, written: str) -> None:
    """Repeated, escaped, in a body too large to be decoded: the gateway's field counts."""
    for prompt in (f"{BEFORE}{SECRET}!", f"{BEFORE}{SECRET}!"):
        for padding in ("", " " * SMALL):
            content = (written % json.dumps(prompt)).replace('"max_tokens"', padding + '"max_tokens"').encode()
            headers = {"authorization": f"Bearer {GRACE}"}
            answer = await public.http.post("/v1/completions", content=content, headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["timings"]["cache_n"] == 0


async def test_through_chat(public: RunningGateway) -> None:
    for token in (ADA, GRACE, GRACE):
        answer = await public.chat(token=token, max_tokens=1, cache_prompt=True)
        assert answer.json()["timings"]["cache_n"] == 0


def test_an_engine_keeps_nothing_that_nobody_may_take_up(tmp_path: Path) -> None:
    model = demo_model("tiny", tmp_path)
    parted = LlamaCpp().plan(planned("group-vision"), model, MACHINE)
    own = LlamaCpp().plan(planned("user-ada"), model, MACHINE)
    argv = " ".join(parted.template.argv)
    assert "--cache-ram 0 " in argv
    assert "--slot-prompt-similarity 0" in argv
    assert "--cache-ram 0 " not in " ".join(own.template.argv)
    assert any("promptCache: shared" in note for note in parted.notes)
    assert not any("promptCache" in note for note in own.notes)


@pytest.mark.parametrize(
    ("namespace", "cache", "parted"),
    [
        ("public", "auto", True),
        ("group-vision", "auto", True),
        ("user-ada", "auto", False),
        ("user-ada", "perCaller", True),
        ("public", "shared", False),
    ],
)
def test_who_shares(namespace: str, cache: str, parted: bool) -> None:
    assert service("chat", namespace=namespace, promptCache=cache).parts_prompts is parted


async def test_engines_that_can_tell_callers_apart_get_a_salt(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    """The salt of vLLM's and SGLang's caches depends on caller and model, never on what the caller sends."""
    upstream = await upstreams()
    await gateway.add(
        service("a", upstream, namespace="public"),
        service("b", upstream, namespace="public"),
        service("mine", upstream, namespace="user-ada"),
    )
    for model, token in (("a", ADA), ("a", ADA), ("a", GRACE), ("b", ADA)):
        assert (await gateway.chat(model, token, cache_salt="mine", cache_prompt=True)).status_code == 200
    salts = [call.json["cache_salt"] for call in upstream.calls]
    assert salts[0] == salts[1]
    assert len({"mine", *salts}) == 4
    assert all(
        len(salt) == 43 and call.json["cache_prompt"] is False for salt, call in zip(salts, upstream.calls, strict=True)
    )
    await gateway.chat("mine", ADA, cache_salt="my own")
    assert upstream.calls[-1].json["cache_salt"] == "my own"


async def test_all_gateways_make_the_same_salt(store: Store, upstreams: MakeUpstream) -> None:
    from llmos_hub.gateway.prompt_cache import PromptCaches

    one, other, stranger = PromptCaches(b"secret"), PromptCaches(b"secret"), PromptCaches(b"another")
    assert one.fields("custom", "u", "ada") == other.fields("custom", "u", "ada")
    assert one.fields("custom", "u", "ada") != stranger.fields("custom", "u", "ada")
    assert one.fields("custom", "ua", "da") != one.fields("custom", "u", "ada")
