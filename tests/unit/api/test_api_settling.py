"""Readiness of a new API process in a cluster: not ready until the Hub has answered."""

from __future__ import annotations

import asyncio

import httpx

from tests.unit.api.conftest import Api, status_of


async def test_it_is_ready_once_the_hub_is_there(api: Api, nobody: httpx.AsyncClient) -> None:
    there: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    api.app.state.settling = there
    response = await nobody.get("/ready")
    assert status_of(response)[:2] == (503, "unavailable")
    assert (await nobody.get("/health")).status_code == 200
    there.set_result(True)
    assert (await nobody.get("/ready")).json() == {"status": "ok"}
