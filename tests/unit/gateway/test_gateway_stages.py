"""The stages of a request: a refusal by any of them leaves nothing held, and no later one runs."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmos.resources import ModelService
from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import FakeUpstream, MakeUpstream
from tests.support.gateway import ADA, NARROW, RunningGateway, running_gateway, service

PICTURE = {"type": "image_url", "image_url": {"url": "http://10.0.0.1/secret"}}


def nothing_is_held(gateway: RunningGateway, options: GatewayOptions) -> bool:
    context = gateway.gateway.context
    held = [shares.held("ada") for shares in (context.budget, context.receiving, context.places)]
    return held == [0, 0, 0] and context.metrics.running == 0 and context.places.left == options.max_requests


@pytest.mark.parametrize(
    ("stage", "body", "token", "status", "code"),
    [
        ("authenticate", {"model": "chat"}, NARROW, 403, "forbidden"),
        ("parse", {"messages": []}, ADA, 400, "bad_request"),
        ("resolve", {"model": "nothing"}, ADA, 404, "model_not_found"),
        ("authorise", {"model": "embed"}, ADA, 400, "unsupported"),
        ("authorise", {"model": "chat", "messages": [{"role": "user", "content": [PICTURE]}]}, ADA, 400, "bad_request"),
        ("wait", {"model": "paused"}, ADA, 503, "model_not_ready"),
        ("forward", {"model": "gone"}, ADA, 502, "upstream_failed"),
        ("none", {"model": "chat"}, ADA, 200, None),
    ],
)
async def test_a_refused_request_holds_nothing(
    store: Store, upstreams: MakeUpstream, stage: str, body: dict[str, Any], token: str, status: int, code: str | None
) -> None:
    upstream = await upstreams()
    options = GatewayOptions(max_requests=4)
    services = [
        service("chat", upstream),
        service("embed", upstream, task="embed"),
        service("paused", phase="Paused"),
        service("gone", "unix:///nowhere.sock"),
    ]
    async with running_gateway(store, options, services) as gateway:
        answer = await gateway.post("/v1/chat/completions", body, token)
        assert answer.status_code == status
        if code is not None:
            assert answer.json()["error"]["code"] == code
        assert len(upstream.calls) == (stage == "none")
        assert nothing_is_held(gateway, options)
        counted = (await gateway.http.get("/metrics")).text
        for_the_model = f'code="{status}",endpoint="/v1/chat/completions",model=""' not in counted
        assert for_the_model == (stage in {"forward", "none"})


async def test_who_has_their_share_is_refused_before_anything_waits(store: Store, upstreams: MakeUpstream) -> None:
    upstream: FakeUpstream = await upstreams()
    options = GatewayOptions(max_requests=1)
    async with running_gateway(
        store, options, [service("chat", upstream), service("paused", phase="Paused")]
    ) as gateway:
        assert gateway.gateway.context.places.take("grace")
        refused = await gateway.chat("paused")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
        gateway.gateway.context.places.give("grace")
        assert (await gateway.chat("paused")).json()["error"]["code"] == "model_not_ready"
        assert (await gateway.chat()).status_code == 200
        assert nothing_is_held(gateway, options)


async def test_who_asks_a_moment_too_early_waits(store: Store, upstreams: MakeUpstream) -> None:
    """The client may hear that a model is ready before the gateway does."""
    upstream = await upstreams()
    options = GatewayOptions(ready_wait=30)
    async with running_gateway(store, options, [service("chat", phase="Starting")]) as gateway:
        early = asyncio.create_task(gateway.chat())
        while not gateway.gateway.context.metrics.running:
            await asyncio.sleep(0)
        assert not early.done()
        await gateway.change(service("chat", upstream))
        assert (await early).status_code == 200
        assert nothing_is_held(gateway, options)


async def test_who_waits_for_a_model_that_is_deleted_is_told(store: Store) -> None:
    options = GatewayOptions(ready_wait=30)
    async with running_gateway(store, options, [service("chat", phase="Starting")]) as gateway:
        early = asyncio.create_task(gateway.chat())
        while not gateway.gateway.context.metrics.running:
            await asyncio.sleep(0)
        await store.delete(ModelService, "user-ada", "chat")
        answer = await early
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert nothing_is_held(gateway, options)
