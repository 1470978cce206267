"""The API as its own process: start, requests, stop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from llmos_hub.processes.handle import ProcessHandle
from llmos_hub.processes.memory import memory_of
from tests.support.fake_hub import FakeHub
from tests.support.waiting import eventually
from tests.unit.api.conftest import manifest, models, token_of, watching

IDLE, BUSY = 64 * 2**20, 76 * 2**20


@dataclass
class Running:
    process: asyncio.subprocess.Process
    url: str
    log: Path

    def client(self) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {token_of('ada')}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=10, trust_env=False)


def environment(hub: FakeHub, redis_url: str, key: str, tmp_path: Path, port: int) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "LLMOS_DATA_DIR": str(tmp_path),
        "LLMOS_REDIS_URL": redis_url,
        "LLMOS_ENCRYPTION_KEY": key,
        "LLMOS_PORT": str(port),
        "JUPYTERHUB_API_URL": hub.url,
        "JUPYTERHUB_API_TOKEN": hub.service_token,
    }


async def start(environ: dict[str, str], log: Path) -> asyncio.subprocess.Process:
    with log.open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "llmos_hub.app", "api", env=environ, stdout=output, stderr=output, start_new_session=True
        )  # fmt: skip


@pytest.fixture
async def running(fake_hub: FakeHub, redis_url: str, encryption_key: str, tmp_path: Path) -> AsyncIterator[Running]:
    fake_hub.add_token("ada", token_of("ada"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environ = environment(fake_hub, redis_url, encryption_key, tmp_path, port)
    process = await start(environ, tmp_path / "log")
    made = Running(process, f"http://127.0.0.1:{port}", tmp_path / "log")
    try:
        async with httpx.AsyncClient(base_url=made.url, trust_env=False) as client:

            async def ready() -> bool:
                assert process.returncode is None, made.log.read_text()
                with contextlib.suppress(httpx.TransportError):
                    return (await client.get("/ready")).status_code == 200
                return False

            await eventually(ready)
        yield made
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_cleanly_with_streams_open(running: Running, number: signal.Signals) -> None:
    async with running.client() as client, watching(client, models()) as watch:
        assert (await watch.next())[0] == "BOOKMARK"
        running.process.send_signal(number)
        assert await watch.change() == ("ERROR", "unavailable")
        assert await asyncio.wait_for(running.process.wait(), 30) == 0
    log = running.log.read_text()
    assert "Traceback" not in log
    assert "listens on http://127.0.0.1:" in log
    assert token_of("ada") not in log


async def test_it_is_small(running: Running) -> None:
    idle = memory_of([running.process.pid])[running.process.pid].resident
    assert idle < IDLE, f"{idle / 2**20:.1f} MiB"
    async with running.client() as client:
        for n in range(50):
            assert (await client.post(models(), json=manifest(f"m{n}"))).status_code == 201
        for _ in range(20):
            assert len((await client.get(models())).json()["items"]) == 50
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):
                watch = await stack.enter_async_context(watching(client, models()))
                await watch.next()
            used = memory_of([running.process.pid])[running.process.pid].resident
    assert used < BUSY, f"{used / 2**20:.1f} MiB"


async def test_a_port_that_is_taken(running: Running, fake_hub: FakeHub, redis_url: str, tmp_path: Path) -> None:
    port = int(running.url.rpartition(":")[2])
    process = await start(environment(fake_hub, redis_url, "x" * 43 + "=", tmp_path, port), tmp_path / "second")
    assert await asyncio.wait_for(process.wait(), 30) == 2
    text = (tmp_path / "second").read_text()
    assert (
        text
        == f"The API's address 127.0.0.1:{port} is taken by another program. LLMOS_HOST and LLMOS_PORT set another.\n"
    )
    handle = ProcessHandle.of(running.process.pid)
    assert handle is not None
    assert handle.alive


@pytest.mark.parametrize("missing", ["JUPYTERHUB_API_TOKEN", "LLMOS_ENCRYPTION_KEY"])
async def test_what_is_missing_is_named(missing: str, fake_hub: FakeHub, redis_url: str, tmp_path: Path) -> None:
    environ = environment(fake_hub, redis_url, "key", tmp_path, 1)
    del environ[missing]
    process = await start(environ, tmp_path / "log")
    assert await asyncio.wait_for(process.wait(), 30) == 2
    assert missing in (tmp_path / "log").read_text()
