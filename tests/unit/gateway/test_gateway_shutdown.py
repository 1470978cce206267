"""A gateway that stops while others continue: no request is lost."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from llmos_hub.gateway.options import GatewayOptions
from llmos_hub.stores.base import Store
from tests.support.fake_upstream import Call, MakeUpstream, delta
from tests.support.gateway import ADA, refused, running_gateway, service
from tests.support.waiting import eventually

REQUEST = f"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADA}\r\n\r\n".encode()


async def head(reader: asyncio.StreamReader) -> bytes:
    """Return status line and headers of the next answer; its body is read too."""
    found = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
    length = next(line for line in found.split(b"\r\n") if line.startswith(b"content-length:"))
    await reader.readexactly(int(length.split(b":")[1]))
    return found


async def test_clients_are_sent_elsewhere_between_two_requests(store: Store) -> None:
    async with running_gateway(store, GatewayOptions(shutdown_delay=600)) as gateway:
        kept = [await gateway.raw(REQUEST) for _ in range(3)]
        for reader, _ in kept:
            assert b"connection: close" not in await head(reader)
        asked, idle, slow = kept
        gateway.server.stop()

        # who keeps a connection is answered on it, and told that it ends
        asked[1].write(REQUEST)
        answer = await head(asked[0])
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        assert await asyncio.wait_for(asked[0].read(), 30) == b""

        # who has not heard that it goes is answered too; load balancers hear it at /ready
        async with httpx.AsyncClient(base_url=gateway.url) as late:
            assert (await late.get("/ready")).status_code == 503
            answer = await late.get("/v1/models", headers={"authorization": f"Bearer {ADA}"})
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")

        # who says nothing keeps the connection until the end of the delay
        waiting = asyncio.ensure_future(idle[0].read())
        slow[1].write(REQUEST)
        assert (await head(slow[0])).startswith(b"HTTP/1.1 200 ")
        assert not waiting.done()
        gateway.server._until = 0.0  # the delay is over
        assert await asyncio.wait_for(waiting, 30) == b""
        with pytest.raises(ConnectionRefusedError):
            await gateway.raw(REQUEST)
        for _, writer in kept:
            writer.close()
        assert gateway.httpd is not None
        await asyncio.wait_for(asyncio.shield(gateway.httpd), 30)


@pytest.mark.parametrize("begun", [True, False])
async def test_an_answer_under_way_outlives_the_delay(store: Store, upstreams: MakeUpstream, *, begun: bool) -> None:
    engine = await upstreams()
    go_on = asyncio.Event()

    async def slowly(call: Call) -> None:
        if not begun:
            await go_on.wait()
        await call.start_events()
        await call.event(delta("first"))
        await go_on.wait()
        await call.event("[DONE]")
        await call.end()

    engine.behave = slowly
    async with running_gateway(store, GatewayOptions(shutdown_delay=0.2), [service("chat", engine)]) as gateway:
        running = asyncio.create_task(gateway.chat(stream=True))
        await engine.next_call()
        gateway.server.stop()
        await eventually(lambda: refused(gateway.raw(b"")))  # until the delay is over
        go_on.set()
        answer = await asyncio.wait_for(running, 30)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert ("connection" in answer.headers) is not begun


async def test_without_a_delay_it_stops_at_once(store: Store) -> None:
    async with running_gateway(store) as gateway:
        gateway.server.stop()
        assert gateway.server._until <= asyncio.get_running_loop().time()
        assert gateway.httpd is not None
        await asyncio.wait_for(asyncio.shield(gateway.httpd), 30)
