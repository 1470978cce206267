"""Preparations of a database by those who keep something in it."""

from __future__ import annotations

import contextlib

import pytest

from llmos.errors import Unavailable
from llmos_hub.valkey.database import Database
from llmos_hub.valkey.schema import SCHEMA_VERSION, Keys
from tests.support.valkey import ValkeyServer


async def test_preparations_run_once_and_again_in_a_database_that_replaces_the_first(
    redis_url: str, valkey_server: ValkeyServer
) -> None:
    database = Database(redis_url)
    calls: list[str] = []
    for name in ("one", "other"):

        async def prepare(name: str = name) -> None:
            assert await database.run("GET", Keys.schema) == str(SCHEMA_VERSION).encode()
            calls.append(name)

        database.prepare_with(prepare)
    first = await database.epoch()
    assert await database.epoch() == first
    assert calls == ["one", "other"]
    with contextlib.closing(valkey_server.client()) as client:
        client.flushall()
    database.forget()
    assert await database.epoch() != first
    assert calls == ["one", "other"] * 2
    await database.close()


async def test_nothing_is_prepared_in_a_newer_layout(redis_url: str, valkey_server: ValkeyServer) -> None:
    database = Database(redis_url)
    await database.epoch()
    with contextlib.closing(valkey_server.client()) as client:
        client.set(Keys.schema, SCHEMA_VERSION + 1)
    database.forget()

    async def prepare() -> None:
        raise AssertionError("it was prepared")

    database.prepare_with(prepare)
    with pytest.raises(Unavailable, match="newer LLMOS"):
        await database.epoch()
    await database.close()
