"""A gateway that has just started is not ready until the Hub answers."""

from __future__ import annotations

import asyncio

from tests.support.fake_upstream import MakeUpstream
from tests.support.gateway import RunningGateway, service
from tests.support.waiting import eventually


async def test_others_are_better_asked_until_the_hub_is_there(gateway: RunningGateway, upstreams: MakeUpstream) -> None:
    await gateway.add(service("chat", await upstreams()))
    there: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    async with gateway.gateway.settling(there):
        ready = await gateway.http.get("/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "starting")
        assert (await gateway.http.get("/health")).status_code == 200
        assert (await gateway.chat()).status_code == 200  # who asks all the same is answered
        there.set_result(True)

        async def ready_now() -> bool:
            return (await gateway.http.get("/ready")).status_code == 200

        await eventually(ready_now)
    async with gateway.gateway.settling(asyncio.Event().wait()):
        pass  # ends before it was settled, without waiting
