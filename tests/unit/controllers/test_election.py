"""Leader election: one leader at a time, soon replaced when it is gone, and never leading beyond its lease."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pytest

from llmos.errors import AlreadyExists, Conflict, Unavailable
from llmos.resources import ModelService
from llmos.resources.base import utcnow
from llmos_hub.backends.base import Backend
from llmos_hub.controllers.election import Alone, Election, Lease, Timing
from llmos_hub.controllers.fencing import fenced
from llmos_hub.controllers.leases import KubernetesLeases, make_lease, read_lease
from llmos_hub.stores.base import Store
from llmos_hub.workload import Workload, WorkloadRef
from tests.support.fake_kubernetes import fake_kubernetes
from tests.support.virtual_time import in_virtual_time
from tests.support.waiting import eventually

TIMING = Timing()
LONGEST_PAUSE = 1.2 * TIMING.period
"""Maximum seconds between two attempts to acquire the lease."""


class MemoryLeases:
    """A lease shared by several elections, with faults on demand."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.version = 0
        self.away: set[str] = set()
        self.hanging: set[str] = set()

    def of(self, name: str) -> OneSide:
        return OneSide(self, name)


@dataclass
class OneSide:
    shared: MemoryLeases
    name: str

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.name in self.shared.hanging:
            await asyncio.sleep(60)
        if self.name in self.shared.away:
            raise Unavailable("The API server does not answer.")

    async def read(self) -> Lease | None:
        await self._reach()
        return self.shared.lease

    async def write(self, lease: Lease) -> Lease:
        await self._reach()
        there = self.shared.lease
        if there is None and lease.version:
            raise Conflict("gone")
        if there is not None and not lease.version:
            raise AlreadyExists("there")
        if there is not None and there.version != lease.version:
            raise Conflict("changed")
        self.shared.version += 1
        self.shared.lease = replace(lease, version=str(self.shared.version))
        return self.shared.lease


@dataclass
class Worker:
    """A record of working processes; two at once must never happen."""

    name: str
    election: Election
    working: list[str]
    log: list[tuple[str, int]]
    task: asyncio.Task[None] | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self) -> None:
        assert not self.working, f"{self.name} begins while {self.working} works"
        self.working.append(self.name)
        self.log.append((self.name, self.election.term))
        self.started.set()
        try:
            await asyncio.sleep(3600)
        finally:
            self.working.remove(self.name)
            self.started.clear()

    def start(self) -> None:
        self.task = asyncio.create_task(self.election.run(self.work))

    async def end(self) -> None:
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    def kill(self) -> None:
        """Stop without releasing the lease, as after SIGKILL."""
        assert self.task is not None
        self.election._held = None
        self.task.cancel()


@contextlib.asynccontextmanager
async def pair() -> AsyncIterator[tuple[MemoryLeases, Worker, Worker]]:
    """Yield two elections that share a lease and the loop's time."""
    leases, working, log = MemoryLeases(), [], []
    now = asyncio.get_running_loop().time
    workers = [
        Worker(name, Election(leases.of(name), name, timing=TIMING, clock=now), working, log)
        for name in ("first", "second")
    ]
    yield leases, workers[0], workers[1]
    for worker in workers:
        if worker.task is not None:
            leases.away.clear()
            leases.hanging.clear()
            await worker.end()


async def lead(worker: Worker) -> float:
    """Wait until it leads; return the seconds that took."""
    began = asyncio.get_running_loop().time()
    await asyncio.wait_for(worker.started.wait(), 10 * TIMING.duration)
    return asyncio.get_running_loop().time() - began


@in_virtual_time
async def test_one_leads_and_the_other_waits() -> None:
    async with pair() as (leases, first, second):
        first.start()
        await lead(first)
        second.start()
        await asyncio.sleep(20 * TIMING.duration)
        assert first.log == [("first", 1)]
        assert first.election.leading
        assert not second.election.leading
        assert leases.lease is not None
        assert leases.lease.holder == "first"


@in_virtual_time
async def test_who_ends_gives_the_lease_up_at_once() -> None:
    async with pair() as (leases, first, second):
        first.start()
        await lead(first)
        second.start()
        await asyncio.sleep(2.5 * TIMING.period)
        await first.end()
        assert leases.lease is not None
        assert leases.lease.holder in ("", "second")
        assert await lead(second) <= LONGEST_PAUSE
        assert second.election.term == 2


@in_virtual_time
async def test_a_killed_leader_is_followed_within_the_leases_length() -> None:
    async with pair() as (_, first, second):
        first.start()
        await lead(first)
        second.start()
        await asyncio.sleep(2.5 * TIMING.period)
        first.kill()
        took = await lead(second)
        # the last renewal was up to a period before the end, and is seen and outlived with a pause each
        assert TIMING.duration - TIMING.period <= took <= TIMING.duration + 2 * LONGEST_PAUSE
        assert second.election.term == 2


@pytest.mark.parametrize("fault", ["away", "hanging"])
@in_virtual_time
async def test_a_leader_that_cannot_renew_stops_before_another_begins(fault: str) -> None:
    async with pair() as (leases, first, second):
        first.start()
        await lead(first)
        second.start()
        await asyncio.sleep(2.5 * TIMING.period)
        getattr(leases, fault).add("first")
        await lead(second)  # `Worker.work` fails where both work
        assert not first.election.leading
        assert first.working == ["second"]
        getattr(leases, fault).clear()
        await second.end()
        second.task = None
        await lead(first)
        assert [term for _, term in first.log] == [1, 2, 3]


@in_virtual_time
async def test_a_lost_answer_is_not_a_lost_lease() -> None:
    async with pair() as (leases, first, _):
        first.start()
        await lead(first)
        assert leases.lease is not None
        # written, but the answer was lost: the known version is old
        leases.version += 1
        leases.lease = replace(leases.lease, version=str(leases.version))
        await asyncio.sleep(20 * TIMING.duration)
        assert first.election.leading
        assert first.log == [("first", 1)]


@in_virtual_time
async def test_who_finds_another_holder_stops_at_once() -> None:
    async with pair() as (leases, first, _):
        first.start()
        await lead(first)
        leases.version += 1
        leases.lease = Lease("somebody", 60.0, utcnow(), utcnow(), 7, str(leases.version))
        await asyncio.sleep(1.01 * TIMING.period)  # the next renewal finds it
        assert not first.working
        assert not first.election.leading
        assert leases.lease.holder == "somebody"


async def test_what_the_work_raises_ends_the_run_and_the_lease() -> None:
    leases = MemoryLeases()
    told: list[tuple[bool, int]] = []
    election = Election(leases.of("a"), "a", timing=TIMING, told=lambda *now: told.append(now))

    async def fail() -> None:
        message = "no"
        raise KeyError(message)

    with pytest.raises(KeyError):
        await asyncio.wait_for(election.run(fail), 30)
    assert told == [(True, 1), (False, 1)]
    assert leases.lease is not None
    assert leases.lease.holder == ""


async def test_after_a_freeze_nothing_is_written_any_more() -> None:
    """The process resumes in the middle of its work, long after its lease has expired."""
    now = 0.0
    leases, writes = MemoryLeases(), []
    election = Election(leases.of("a"), "a", timing=Timing(), clock=lambda: now)

    class Database:
        async def update(self, resource: Any) -> Any:
            writes.append(resource)
            return resource

        async def apply(self, workload: Any) -> None:
            writes.append(workload)

        async def get(self, *_: Any) -> str:
            return "read"

    store = fenced(cast("Store", Database()), election)
    backend = fenced(cast("Backend", Database()), election)
    resource = ModelService.parse(
        {
            "kind": "ModelService",
            "metadata": {"name": "chat", "namespace": "user-ada"},
            "spec": {"model": "demo://tiny"},
        }
    )
    done = asyncio.Event()

    async def work() -> None:
        nonlocal now
        await store.update(resource)
        now = 11.0  # seconds have passed without this process
        assert await store.get(ModelService, "user-ada", "chat") == "read"
        with pytest.raises(Conflict, match="Another process leads"):
            await store.update(resource)
        with pytest.raises(Conflict):
            await backend.apply(Workload(WorkloadRef("ModelService", "user-ada", "chat", "u"), ()))
        done.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(election.run(work))
    await asyncio.wait_for(done.wait(), 30)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert writes == [resource]


async def test_alone_everything_is_done() -> None:
    done = []

    async def work() -> None:
        done.append(1)

    alone = Alone()
    await alone.run(work)
    assert (done, alone.leading) == ([1], True)


# As an object of the cluster


def test_the_object() -> None:
    moment = utcnow().replace(year=2026, month=5, day=4, hour=3, minute=2, second=1, microsecond=5)
    lease = Lease("pod-a_1_x", 15.0, moment, moment, 4, "77")
    made = make_lease("llmos", "llmos-controllers", lease)
    assert made == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": "llmos-controllers",
            "namespace": "llmos",
            "labels": {"app.kubernetes.io/name": "llmos", "app.kubernetes.io/managed-by": "llmos"},
            "resourceVersion": "77",
        },
        "spec": {
            "holderIdentity": "pod-a_1_x",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-05-04T03:02:01.000005Z",
            "renewTime": "2026-05-04T03:02:01.000005Z",
            "leaseTransitions": 4,
        },
    }
    assert read_lease(made) == lease
    empty = read_lease({"metadata": {"resourceVersion": "1"}, "spec": {"renewTime": "nonsense"}})
    assert (empty.holder, empty.duration, empty.transitions) == ("", 0.0, 0)


class CountingLeases(KubernetesLeases):
    """A lease on an API server that counts its operations."""

    reads = writes = 0

    async def read(self) -> Lease | None:
        self.reads += 1
        return await super().read()

    async def write(self, lease: Lease) -> Lease:
        self.writes += 1
        return await super().write(lease)


async def test_on_an_api_server_one_of_two_gets_it(tmp_path: Path) -> None:
    timing = Timing(duration=60, renew_within=40, period=0.05)  # no answer is too late, however busy the machine is
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": "llmos"}})
        working: list[str] = []
        log: list[tuple[str, int]] = []
        leases = {name: CountingLeases(api, "llmos") for name in ("a", "b")}
        workers = [Worker(name, Election(leases[name], name, timing=timing), working, log) for name in leases]
        for worker in workers:
            worker.start()
        await cluster.until(lambda: log, "a leader")
        leader = next(worker for worker in workers if worker.name == log[0][0])
        (other,) = (worker for worker in workers if worker is not leader)
        await cluster.until(lambda: leases[leader.name].writes > 10, "renewals", timeout=30)
        await eventually(lambda: leases[other.name].reads > 10, "attempts of the other")
        assert len(log) == 1
        await leader.end()
        await lead(other)
        lease = cluster.get("leases", "llmos-controllers", "llmos")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == other.name
        assert lease["spec"]["leaseTransitions"] == 2
        await other.end()


async def test_a_lease_that_is_deleted_is_made_again_and_a_refusal_says_what_to_do(tmp_path: Path) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": "llmos"}})
        leases = KubernetesLeases(api, "llmos")
        assert await leases.read() is None
        first = await leases.write(Lease("a", 15.0, utcnow(), utcnow(), 1))
        with pytest.raises(AlreadyExists):
            await leases.write(Lease("b", 15.0, utcnow(), utcnow(), 1))
        renewed = await leases.write(replace(first, renewed=utcnow()))
        with pytest.raises(Conflict):
            await leases.write(first)
        cluster.remove("leases", "llmos-controllers", "llmos")
        with pytest.raises(Conflict):
            await leases.write(renewed)
        assert await leases.read() is None
