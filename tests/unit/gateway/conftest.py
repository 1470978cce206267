from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from llmos_hub.stores.base import Store
from tests.support.fake_upstream import FakeUpstream, MakeUpstream
from tests.support.gateway import RunningGateway, running_gateway


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    """On uvloop, as the gateway runs outside of tests."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory with a short path, for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="llmos-gw-") as path:
        yield Path(path)


@pytest.fixture
async def upstreams(sockets: Path) -> AsyncIterator[MakeUpstream]:
    """Makes fake engines: ``await upstreams("a")``, or ``await upstreams("a", tcp=True)``."""
    made: list[FakeUpstream] = []

    async def make(name: str = "a", *, tcp: bool = False) -> FakeUpstream:
        upstream = FakeUpstream(name)
        made.append(upstream)
        return await (upstream.start_tcp() if tcp else upstream.start_unix(sockets / f"{name}.sock"))

    yield make
    for upstream in made:
        await upstream.stop()


@pytest.fixture
async def gateway(store: Store) -> AsyncIterator[RunningGateway]:
    """A gateway as it is started, on a real store."""
    async with running_gateway(store) as running:
        yield running
