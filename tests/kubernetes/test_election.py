"""Two controllers processes on a real cluster: the leader is killed, stopped, frozen, and the work goes on once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from llmos.resources import ModelService
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.stores.base import Store
from llmos_hub.stores.kubernetes.store import KubernetesStore
from tests.support.cluster import Cluster

ALONE = "counts seconds and writes"
LEASE = 5.0
"""Seconds; short, so that the tests are."""
MANY = 15


@dataclass
class Worker:
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid


@dataclass
class Pair:
    cluster: Cluster
    namespace: str
    directory: Path
    store: Store
    workers: list[Worker] = field(default_factory=list)

    async def start(self) -> Worker:
        log = self.directory / f"worker-{len(self.workers)}.log"
        environment = {**self.cluster.environment, "LLMOS_LEASE_SECONDS": str(LEASE)}
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.kubernetes.election_worker", self.namespace, str(self.record),
                env=environment, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.workers.append(Worker(process, log))
        return self.workers[-1]

    @property
    def record(self) -> Path:
        return self.directory / "record"

    def notes(self) -> list[dict[str, Any]]:
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        return sorted((json.loads(line) for line in lines), key=lambda note: note["at"])

    async def leader(self, *, but: Worker | None = None, within: float = 60.0) -> Worker:
        """Return the process that said last that it leads."""

        def found() -> Worker | None:
            said = [note for note in self.notes() if note["what"] == "leads"]
            if not said or (but is not None and said[-1]["pid"] == but.pid):
                return None
            return next(worker for worker in self.workers if worker.pid == said[-1]["pid"])

        worker = await self.until(found, "a leader", within)
        assert isinstance(worker, Worker)
        return worker

    async def until(self, holds: Any, what: str, within: float = 60.0) -> Any:
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            found = holds()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.1)
        logs = "\n".join(worker.log.read_text()[-2000:] for worker in self.workers)
        message = f"{what}: not within {within:.0f} s\n{logs}"
        raise AssertionError(message)

    async def create(self, *names: str) -> None:
        """Model services whose pods no node takes: what is tested is not whether they run."""
        for name in names:
            spec = {
                "engine": "custom",
                "args": ["my-server", "--port", "{port}"],
                "template": {"spec": {"nodeSelector": {"llmos.ai/test": "none"}}},
            }
            meta = {"name": name, "namespace": self.namespace}
            await self.store.create(ModelService.parse({"kind": "ModelService", "metadata": meta, "spec": spec}))

    async def done(self, count: int) -> bool:
        """Return whether so many services have been reconciled and have their Deployment."""
        services = (await self.store.list(ModelService, self.namespace)).items
        looked_at = [service for service in services if service.status.observed_generation == 1]
        deployments = self.cluster.get("deployments", "-n", self.namespace)["items"]
        owners = [deployment["metadata"]["ownerReferences"][0]["name"] for deployment in deployments]
        assert len(owners) == len(set(owners)), "two Deployments of one service"
        return len(looked_at) == len(owners) == count

    async def calm(self) -> None:
        """Until nothing more is written about what there is."""
        await self.until(lambda: time.monotonic() - self.notes()[-1]["at"] > 2.0, "calm")

    def check_fencing(self) -> None:
        """No term's writes come after a later term's first."""
        notes = self.notes()
        terms = [note["term"] for note in notes if note["what"] not in ("leads", "stands by")]
        assert terms == sorted(terms), notes
        holders = {(note["term"], note["pid"]) for note in notes if note["what"] != "stands by"}
        assert len(holders) == len({term for term, _ in holders}), "two leaders in one term"


@pytest.fixture
async def pair(cluster: Cluster, api: KubernetesAPI, tmp_path: Path) -> AsyncIterator[Pair]:
    namespace = cluster.namespace("k5")
    pair = Pair(cluster, namespace, tmp_path, KubernetesStore(api))
    try:
        yield pair
    finally:
        for worker in pair.workers:
            if worker.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                await worker.process.wait()
        names = cluster.kubectl("get", "modelservices", "-n", namespace, "-o", "name").split()
        if names:  # nobody is left to do it
            patch = '{"metadata": {"finalizers": null}}'
            cluster.kubectl("patch", "-n", namespace, *names, "--type=merge", "-p", patch)


async def test_a_killed_leader_is_followed_and_nothing_is_lost_or_done_twice(pair: Pair) -> None:
    await pair.start()
    await pair.start()
    leader = await pair.leader()
    (standby,) = (worker for worker in pair.workers if worker is not leader)
    await pair.create(*(f"first-{n}" for n in range(MANY)))
    await pair.until(lambda: pair.done(MANY), "all services")
    await pair.calm()

    killed = time.monotonic()
    os.kill(leader.pid, signal.SIGKILL)
    await pair.create(*(f"second-{n}" for n in range(MANY)))  # while nobody works
    assert await pair.leader(but=leader) is standby
    took = max(note["at"] for note in pair.notes() if note["what"] == "leads") - killed
    print(f"\nthe standby led {took:.1f} s after the leader was killed (lease {LEASE:.0f} s)")
    assert took < LEASE + 3.0
    await pair.until(lambda: pair.done(2 * MANY), "all services")
    pair.check_fencing()
    statuses = [note["name"] for note in pair.notes() if note["what"] == "patch_status" and note["pid"] == standby.pid]
    assert not [name for name in statuses if name.startswith("first-")], "what was done is not done again"


async def test_a_leader_that_is_told_to_end_hands_over_at_once(pair: Pair) -> None:
    leader = await pair.start()
    assert await pair.leader() is leader
    standby = await pair.start()
    await asyncio.sleep(3.0)  # for the standby to be up and to have seen the lease
    began = time.monotonic()
    os.kill(leader.pid, signal.SIGTERM)
    assert await pair.leader(but=leader) is standby
    took = time.monotonic() - began
    print(f"\nthe standby led {took:.1f} s after the leader was told to end")
    assert took < LEASE
    assert await asyncio.wait_for(leader.process.wait(), 20) == 0
    await pair.create("chat")
    await pair.until(lambda: pair.done(1), "the service")
    pair.check_fencing()


async def test_a_leader_that_was_frozen_finds_that_its_time_is_over(pair: Pair) -> None:
    leader = await pair.start()
    assert await pair.leader() is leader
    standby = await pair.start()
    await pair.create(*(f"first-{n}" for n in range(3)))
    await pair.until(lambda: pair.done(3), "all services")
    os.kill(leader.pid, signal.SIGSTOP)
    try:
        assert await pair.leader(but=leader) is standby
        await pair.create(*(f"second-{n}" for n in range(3)))
        await pair.until(lambda: pair.done(6), "all services")
    finally:
        os.kill(leader.pid, signal.SIGCONT)
    await pair.create(*(f"third-{n}" for n in range(3)))
    await pair.until(lambda: pair.done(9), "all services")
    await pair.until(
        lambda: any(note["what"] == "stands by" and note["pid"] == leader.pid for note in pair.notes()),
        "the old leader",
    )
    pair.check_fencing()
    assert leader.process.returncode is None, "it stands by from then on"
