"""The fake API of the client's tests behaves as the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from llmos import AsyncClient
from tests.support.api_contract import ApiContract


@pytest.fixture
async def sdk(environment: dict[str, str]) -> AsyncIterator[AsyncClient]:
    async with AsyncClient() as client:
        yield client


class TestFakeApi(ApiContract):
    """The contract, for the fake."""
