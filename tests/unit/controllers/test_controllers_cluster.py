"""The controllers' and the API's processes as in a cluster, on a small API server: election, standby, work."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.names import KEY_PREPARED
from llmos.resources import API_VERSION
from tests.support.fake_hub import FakeHub, fake_hub
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.waiting import eventually

__all__ = ["fake_hub"]

SERVICES = f"/apis/{API_VERSION}/namespaces/user-ada/modelservices"
TOKEN = "token-of-ada-0123456789"


@dataclass
class Process:
    process: asyncio.subprocess.Process
    url: str
    log: Path

    async def get(self, path: str) -> httpx.Response | None:
        assert self.process.returncode is None, self.log.read_text()
        with contextlib.suppress(httpx.TransportError):
            async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
                return await client.get(self.url + path)
        return None

    async def ready(self) -> bool:
        answer = await self.get("/ready")
        return answer is not None and answer.status_code == 200

    async def metric(self, name: str) -> float:
        answer = await self.get("/metrics")
        assert answer is not None
        (line,) = (line for line in answer.text.splitlines() if line.startswith(f"{name} "))
        return float(line.split()[1])


@dataclass
class Platform:
    cluster: FakeKubernetes
    hub: FakeHub
    environment: dict[str, str]
    directory: Path
    processes: list[Process] = field(default_factory=list)

    async def start(self, name: str) -> Process:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = self.directory / f"{name}-{len(self.processes)}.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-P", "-m", "llmos_hub.app", name,
                env={**self.environment, "LLMOS_PORT": str(port)}, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.processes.append(Process(process, f"http://127.0.0.1:{port}", log))
        return self.processes[-1]

    async def leader(self, *processes: Process) -> Process:
        async def leader() -> Process | None:
            for process in processes:
                if await process.metric("llmos_leader") == 1:
                    return process
            return None

        return await eventually(leader)


@pytest.fixture
async def platform(tmp_path: Path, fake_hub: FakeHub, redis_url: str) -> AsyncIterator[Platform]:
    fake_hub.add_token("ada", TOKEN)
    async with fake_kubernetes(tmp_path) as (cluster, _):
        cluster.put("namespaces", {"metadata": {"name": "llmos"}})
        room = {"cpu": "4", "memory": "8Gi"}
        conditions = [{"type": "Ready", "status": "True"}]
        cluster.put("nodes", {"metadata": {"name": "node1"}, "status": {"allocatable": room, "conditions": conditions}})
        platform = Platform(
            cluster,
            fake_hub,
            {
                "PATH": os.environ["PATH"],
                "KUBECONFIG": str(tmp_path / "kubeconfig"),
                "LLMOS_DATA_DIR": str(tmp_path / "data"),
                "LLMOS_STORE": "kubernetes",
                "LLMOS_POD_NAMESPACE": "llmos",
                "LLMOS_LEASE_SECONDS": "4",
                "LLMOS_REDIS_URL": redis_url,
                "JUPYTERHUB_API_URL": fake_hub.url,
                "JUPYTERHUB_API_TOKEN": fake_hub.service_token,
            },
            tmp_path,
        )
        try:
            yield platform
        finally:
            for process in platform.processes:
                if process.process.returncode is None:
                    process.process.kill()
                    await process.process.wait()


def service(name: str) -> dict[str, Any]:
    spec = {"engine": "custom", "args": ["my-server", "--port", "{port}"]}
    return {"metadata": {"name": name}, "spec": spec}


async def test_a_person_who_is_new_gets_a_namespace_and_a_model(platform: Platform) -> None:
    first, second, api = [await platform.start(name) for name in ("controllers", "controllers", "api")]
    for process in (first, second, api):
        await eventually(process.ready, timeout=60)
    leader = await platform.leader(first, second)
    standby = second if leader is first else first
    assert await standby.metric("llmos_leader") == 0, "two lead"

    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=30, trust_env=False) as client:
        created = await client.post(SERVICES, json=service("chat"))
        assert created.status_code == 201, created.text
        made = await client.post(f"/apis/{API_VERSION}/namespaces/user-ada")
        assert made.status_code == 200, made.text
        assert made.json()["status"] == {
            "prepared": True,
            "owner": {"kind": "user", "name": "ada"},
            "serviceAccount": "llmos",
        }
        others = await client.post(f"/apis/{API_VERSION}/namespaces/user-grace")
        assert others.status_code == 403
        nodes = (await client.get(f"/apis/{API_VERSION}/nodes")).json()["items"]
        assert [(node["name"], node["cpus"]) for node in nodes] == [("node1", 4.0)]
        cluster = platform.cluster
        await cluster.until(lambda: cluster.names("deployments", "user-ada"), "the deployment", 20)

        os.kill(leader.process.pid, signal.SIGKILL)
        assert (await client.post(SERVICES, json=service("second"))).status_code == 201
        await cluster.until(lambda: len(cluster.names("deployments", "user-ada")) == 2, "the second deployment", 30)
    assert await standby.metric("llmos_leader") == 1
    assert await standby.metric("llmos_leader_term") == 2
    annotations = cluster.objects["namespaces", "", "user-ada"]["metadata"]["annotations"]
    assert annotations[KEY_PREPARED]

    standby.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(standby.process.wait(), 30) == 0
    lease = cluster.get("leases", "llmos-controllers", "llmos")
    assert lease is not None
    assert lease["spec"]["holderIdentity"] == ""
    assert len(cluster.names("deployments", "user-ada")) == 2, "what runs goes on"
    assert "Traceback" not in standby.log.read_text()


async def test_what_is_missing_or_wrong_is_named(platform: Platform) -> None:
    for variable, value, said in (
        ("LLMOS_POD_NAMESPACE", "", "LLMOS_POD_NAMESPACE is not set"),
        ("LLMOS_LEASE_SECONDS", "soon", '"soon" is not a number of seconds'),
        ("LLMOS_NAMESPACE_SETTINGS", "/nonexistent", "/nonexistent can't be read"),
        (
            "LLMOS_RELEASE",
            "team-llmos",
            'LLMOS_RELEASE is "team-llmos", but LLMOS_NAMESPACE_SETTINGS says instance: "llmos"',
        ),
    ):
        before = platform.environment
        platform.environment = {**before, variable: value}
        process = await platform.start("controllers")
        assert await asyncio.wait_for(process.process.wait(), 30) == 2
        assert said in process.log.read_text()
        platform.environment = before
