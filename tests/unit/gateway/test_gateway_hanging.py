"""An engine that hangs is told from one that is slow."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx
import pytest

from llmos.resources.modelservice import ModelServiceSpec
from llmos_hub.engines.llamacpp import LlamaCpp
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, FakeUpstream, MakeUpstream, delta
from tests.support.gateway import ADA, RunningGateway, running_gateway, service
from tests.support.llamacpp import MACHINE, demo_model, engine_process
from tests.support.waiting import eventually

QUICK = GatewayOptions(check_after=0.2, check_timeout=0.2)


def hang(upstream: FakeUpstream) -> asyncio.Event:
    """Make an engine answer nothing at all until the event is set, like one that was stopped."""
    awake = asyncio.Event()

    async def nothing(call: Call) -> None:
        waiting = [asyncio.create_task(each.wait()) for each in (awake, call.gone)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        if call.path == "/health":
            await call.answer({"status": "ok"})
        else:
            await upstream.speak(call)

    upstream.behave = nothing
    return awake


def chats(upstream: FakeUpstream) -> int:
    return sum(call.path != "/health" for call in upstream.calls)


async def until_well(gateway: RunningGateway) -> None:
    async def well() -> bool:
        return (await gateway.chat()).status_code == 200

    await eventually(well)


@pytest.mark.parametrize("tcp", [False, True])
async def test_another_replica_answers(store: Store, upstreams: MakeUpstream, tcp: bool) -> None:
    hanging, well = await upstreams("a", tcp=tcp), await upstreams("b", tcp=tcp)
    awake = hang(hanging)
    services = [service("chat", hanging, well, engine="llamacpp")]
    async with running_gateway(store, QUICK, services) as gateway:
        answers = [await gateway.chat() for _ in range(4)]
        assert [a.status_code for a in answers] == [200] * 4
        assert chats(hanging) == 1  # who comes later doesn't wait for it
        awake.set()


async def test_a_pooled_connection_is_no_excuse(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    async with running_gateway(store, QUICK, [service("chat", upstream, engine="llamacpp")]) as gateway:
        assert (await gateway.chat()).status_code == 200
        awake = hang(upstream)
        assert (await gateway.chat()).status_code == 503
        assert chats(upstream) == 2
        awake.set()


async def test_where_there_is_no_other_it_is_said_and_tried_again(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    awake = hang(upstream)
    async with running_gateway(store, QUICK, [service("chat", upstream, engine="llamacpp")]) as gateway:
        answers = await asyncio.gather(*(gateway.chat() for _ in range(5)))
        answers.append(await gateway.chat())  # at once: it is known
        assert chats(upstream) == 5
        for answer in answers:
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (503, "model_not_ready")
            assert error["message"].startswith('Model "chat" hangs: its engine accepts requests, but answers nothing')
            assert answer.headers["retry-after"] == "20"
        awake.set()
        await until_well(gateway)


async def test_an_engine_that_takes_its_time_is_waited_for(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()
    asked = asyncio.Event()

    async def slowly(call: Call) -> None:
        if call.path == "/health":
            await call.answer({"status": "ok"})
            if sum(c.path == "/health" for c in upstream.calls) >= 4:
                asked.set()
            return
        await asked.wait()
        await upstream.speak(call)

    upstream.behave = slowly
    async with running_gateway(store, QUICK, [service("chat", upstream, engine="llamacpp")]) as gateway:
        assert (await gateway.chat()).status_code == 200
    assert chats(upstream) == 1


@pytest.mark.parametrize("engine", ["custom", ""])
async def test_a_command_of_a_users_is_never_given_up(store: Store, upstreams: MakeUpstream, engine: str) -> None:
    """It may have one thread for computing and for its health."""
    upstream, hanging = await upstreams("a"), await upstreams("b")
    awake, known = hang(upstream), hang(hanging)
    services = [service("chat", upstream, engine=engine), service("hanging", hanging, engine="llamacpp")]
    async with running_gateway(store, QUICK, services) as gateway:
        answer = asyncio.create_task(gateway.chat())
        await upstream.next_call()
        assert (await gateway.chat("hanging")).status_code == 503, "asked later, and given up"
        assert not answer.done()
        awake.set()
        assert (await answer).status_code == 200
        known.set()
    assert len(upstream.calls) == 1


async def test_a_stream_in_which_the_engine_hangs_ends_with_words(store: Store, upstreams: MakeUpstream) -> None:
    upstream = await upstreams()

    async def begin(call: Call) -> None:
        if call.path != "/health":
            await call.start_events()
            await call.event(delta("first"))
        await call.gone.wait()

    upstream.behave = begin
    async with running_gateway(store, QUICK, [service("chat", upstream, engine="llamacpp")]) as gateway:
        answer = await gateway.chat(stream=True)
    assert "first" in answer.text
    assert "broke off in the middle of its answer" in answer.text


async def test_a_llama_cpp_that_was_stopped_and_goes_on(store: Store, sockets: Path, tmp_path: Path) -> None:
    """A stopped process: its kernel accepts connections and acknowledges requests. A long answer is not given up."""
    spec = ModelServiceSpec(model="demo://tiny", args=["--ctx-size", "200000", "--parallel", "1"])
    plan = LlamaCpp().plan(spec, demo_model("tiny", tmp_path), MACHINE)
    with engine_process(plan.template, sockets) as engine:
        model = service("chat", f"unix://{engine.socket}", engine="llamacpp")
        async with running_gateway(store, GatewayOptions(check_after=0.5, check_timeout=2.0), [model]) as gateway:
            headers = {"authorization": f"Bearer {ADA}"}
            body = {"model": "chat", "prompt": "x", "max_tokens": 15_000, "ignore_eos": True}
            loop = asyncio.get_running_loop()
            began = loop.time()
            long = await gateway.http.post("/v1/completions", json=body, headers=headers, timeout=httpx.Timeout(120))
            assert long.status_code == 200
            assert loop.time() - began > 0.5  # it was silent for long enough to be asked
            os.kill(engine.process.pid, signal.SIGSTOP)
            try:
                answer = await gateway.chat(max_tokens=2)
                assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_not_ready")
            finally:
                os.kill(engine.process.pid, signal.SIGCONT)
            await until_well(gateway)
