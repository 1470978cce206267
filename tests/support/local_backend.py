"""Fixtures and templates for the tests of the local backend."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmos_hub.backends.local.backend import LocalBackend
from llmos_hub.backends.local.options import Options
from llmos_hub.workload import Probe, ProcessTemplate, ReplicaState
from tests.support import fake_engine, peers

QUICK = Options(drain=0.05, back_off_first=0.2, memory_period=0.1, memory_retry=0.1, first_probe=0.02, memory_news=60.0)
ENGINE = (sys.executable, "-IS", fake_engine.__file__, "--socket", "{socket}")
HEALTH = Probe("/health", period=0.1, timeout=1.0, failures=2)


def engine(name: str = "fake", *arguments: str, **fields: object) -> ProcessTemplate:
    """Return a template of a fake engine on a socket."""
    return ProcessTemplate((*ENGINE, "--name", name, *arguments), **{"readiness": HEALTH, "grace": 2.0, **fields})


def script(text: str, **fields: object) -> ProcessTemplate:
    """Return a template that runs a shell script."""
    return ProcessTemplate(("/bin/sh", "-c", text), grace=2.0, **fields)


HEAD = ProcessTemplate(
    (sys.executable, "-IS", peers.__file__, "{port}", "{port.hub}"), ports={"hub": 9000}, readiness=HEALTH, grace=2.0
)
WORKER = ProcessTemplate(
    (sys.executable, "-IS", peers.__file__, "{port}", "{head.address}:{head.port.hub}"), readiness=HEALTH, grace=2.0
)


async def kill(_: object, __: object, replica: ReplicaState) -> None:
    """Kill a replica's process."""
    os.kill(replica.pid, signal.SIGKILL)


async def ask(replica: ReplicaState, path: str) -> str:
    """Send one GET request and return the body; raise OSError if there is no response."""
    assert replica.endpoint is not None
    if replica.endpoint.startswith("unix://"):
        reader, writer = await asyncio.open_unix_connection(replica.endpoint.removeprefix("unix://"))
    else:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(replica.endpoint.rpartition(":")[2]))
    try:
        writer.write(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()
    if not answer:
        raise ConnectionResetError
    return answer.decode().partition("\r\n\r\n")[2]


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass
class Kit:
    """A factory of backends on one pair of directories; all are closed after the test."""

    directory: Path
    runtime_dir: Path
    made: list[LocalBackend]

    def make(self, **options: object) -> LocalBackend:
        """Return a backend that isn't started."""
        self.made.append(LocalBackend(self.directory, self.runtime_dir, **{"options": QUICK, **options}))
        return self.made[-1]

    async def started(self, **options: object) -> LocalBackend:
        """Return a started backend."""
        backend = self.make(**options)
        await backend.start()
        return backend

    async def successor(self, backend: LocalBackend) -> LocalBackend:
        """Close a backend and return a started one in its place."""
        await backend.close()
        return await self.started()


@pytest.fixture
async def kit(tmp_path: Path):
    kit = Kit(tmp_path / "workloads", tmp_path / "w", [])
    yield kit
    for backend in kit.made:
        await backend.close(stop=True)


@pytest.fixture
async def backend(kit: Kit) -> LocalBackend:
    return await kit.started()
