"""The real API does what its client, and the fake API of the client's tests, rely on."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llmos import AsyncClient
from llmos_hub.names import API_PREFIX
from tests.support.api_contract import ApiContract

from .conftest import Api, token_of


@pytest.fixture
async def sdk(api: Api) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(api.url + API_PREFIX, token_of("ada"), gateway_url="http://127.0.0.1:1/v1") as client:
        yield client


class TestApi(ApiContract):
    """The contract, for the real API on a real Valkey."""
