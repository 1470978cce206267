"""One workload: its desired state, its replicas and its observation."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmos_hub.backends.local.failures import Shortage
from llmos_hub.backends.local.options import Options
from llmos_hub.backends.local.records import KnownTemplate, ReplicaPaths, ReplicaRecord, WorkloadRecord
from llmos_hub.backends.local.replica import Replica
from llmos_hub.backends.local.rollout import Member, Start, decide
from llmos_hub.backends.local.threads import in_thread
from llmos_hub.workload import Observation, ReplicaState, Workload

__all__ = ["BackendContext", "Deployment"]


@dataclass(frozen=True, slots=True)
class BackendContext:
    """The parts of a backend that all its workloads share.

    Attributes
    ----------
    directory, runtime_dir
        The directory of records and logs, and that of sockets.
    marker
        The beginning of ``LLMOS_REPLICA`` in all processes of this backend.
    environment
        Environment variables of all processes.
    shortage
        Returns the memory that is missing for a replica to start; None if there is enough.
    port_taken
        Returns whether a replica uses that port.
    notify
        Called when the observation of a workload changed.
    """

    directory: Path
    runtime_dir: Path
    marker: str
    environment: Mapping[str, str]
    options: Options
    shortage: Callable[[Replica], Shortage | None]
    port_taken: Callable[[int], bool]
    notify: Callable[[Deployment], None]


class Deployment:
    """A workload, which keeps the desired number of replicas of each role and template; the `Owner` of its replicas.

    Parameters
    ----------
    record
        The desired state.
    saved
        True if the record is on disk.
    """

    def __init__(self, record: WorkloadRecord, context: BackendContext, *, saved: bool) -> None:
        self.record = record
        self.ref = record.ref
        self.name = record.ref.name
        self.marker = f"{context.marker}{record.ref.id}/"
        self.environment = context.environment
        self.options = context.options
        self.directory = context.directory / record.ref.id
        self.replicas: dict[str, Replica] = {}
        self.removal: asyncio.Task[None] | None = None
        self._context = context
        self._saving = asyncio.Lock()
        self._saved_serial = record.serial if saved else -1
        self._step: asyncio.Handle | None = None
        self._shown: Observation | None = None
        self._memory_told = 0.0
        self._closed = False

    # The desired state

    async def apply(self, workload: Workload) -> None:
        """Set the desired state, which is recorded before it is acted upon.

        Raises
        ------
        OSError
            It can't be recorded.
        """
        fresh = {role.name: KnownTemplate.of(role.template) for role in workload.roles}
        for replica in self.replicas.values():
            if replica.state.role in fresh:
                replica.hand_over(fresh[replica.state.role])
        roles = tuple((role.name, role.count, fresh[role.name]) for role in workload.roles)
        new = self._saved_serial < 0
        same = self.record.same(workload.roles, workload.labels)
        before = self.record
        self.record = replace(self.record, roles=roles, labels=dict(workload.labels))
        if new or not same:
            try:
                await self._save()
            except OSError:
                self.record = replace(before, serial=self.record.serial)
                raise
        self.reconcile()

    async def save(self) -> None:
        """Make sure that the number of the newest replica is on disk."""
        if self._saved_serial < self.record.serial:
            await self._save()

    async def _save(self) -> None:
        async with self._saving:
            record = self.record
            await in_thread(record.write, self.directory)
            self._saved_serial = record.serial

    def reconcile(self) -> None:
        """Start and stop replicas as the rollout decides."""
        self._step = None
        if self.removal is not None or self._closed:
            return
        wanted = {name for name, _, _ in self.record.roles}
        for replica in [r for r in self.replicas.values() if r.state.role not in wanted]:
            replica.stop(self.options.drain)
        for name, count, known in self.record.roles:
            for step in decide(count, self._members(name, known), completes=known.template.completes):
                if isinstance(step, Start):
                    self._start(name, step.index, known)
                else:
                    self.replicas[step.id].stop(self.options.drain)
        self._publish()

    def _members(self, role: str, known: KnownTemplate) -> list[Member]:
        return [r.member(known.hash) for r in self.replicas.values() if r.state.role == role]

    def _start(self, role: str, index: int, known: KnownTemplate) -> None:
        serial = self.record.serial + 1
        self.record = replace(self.record, serial=serial)
        record = ReplicaRecord(id=f"{role}-{index}-{serial}", role=role, index=index)
        paths = ReplicaPaths.of(self.directory, self._context.runtime_dir, record.id)
        self.adopt(Replica(record, known, paths, self))

    def adopt(self, replica: Replica) -> None:
        """Add a replica and begin its life."""
        self.replicas[replica.state.id] = replica
        replica.begin()

    # Called by replicas (see `replica.Owner`)

    def changed(self, replica: Replica) -> None:
        """Publish a replica's changed state, and schedule a reconciliation."""
        del replica
        self._publish()
        if self._step is None and not self._closed:
            self._step = asyncio.get_running_loop().call_soon(self.reconcile)

    def gone(self, replica: Replica) -> None:
        """Remove a replica that was stopped."""
        self.replicas.pop(replica.state.id, None)
        self.changed(replica)

    def shortage(self, replica: Replica) -> Shortage | None:
        """Return the memory that is missing for a replica to start; None if there is enough."""
        return self._context.shortage(replica)

    def port_taken(self, port: int) -> bool:
        """Return whether a replica of any workload uses that port."""
        return self._context.port_taken(port)

    # The current state

    def observe(self) -> Observation:
        """Return the current state."""
        states = sorted((r.state for r in self.replicas.values()), key=_order)
        return Observation(self.ref, tuple(states), updated=self._updated(), labels=self.record.labels)

    def _updated(self) -> bool:
        wanted = sorted((name, known.hash) for name, count, known in self.record.roles for _ in range(count))
        there = sorted((r.state.role, r.state.template) for r in self.replicas.values())
        stopping = any(r.state.phase == "Stopping" for r in self.replicas.values())
        return wanted == there and not stopping

    def _publish(self) -> None:
        now = self.observe()
        now = replace(now, replicas=tuple(replace(state, memory=None) for state in now.replicas))
        if now != self._shown:
            self._shown = now
            self._memory_told = time.monotonic()
            self._context.notify(self)

    def memory_seen(self) -> None:
        """Notify of new memory usage, at most once per `Options.memory_news`."""
        running = any(replica.usage for replica in self.replicas.values())
        if running and time.monotonic() - self._memory_told >= self.options.memory_news:
            self._memory_told = time.monotonic()
            self._context.notify(self)

    # Its end

    def remove(self) -> asyncio.Task[None]:
        """Stop all replicas without draining, and remove the workload's records."""
        if self.removal is None:
            self.removal = asyncio.create_task(self._remove(), name=f"remove {self.ref.id}")
        return self.removal

    async def _remove(self) -> None:
        await self.stop_all()
        async with self._saving:
            await in_thread(shutil.rmtree, self.directory, ignore_errors=True)
        self._context.notify(self)

    async def stop_all(self) -> None:
        """Stop all running replicas; keep the desired state and, unless the workload is removed, finished jobs."""
        keep = self.removal is None
        self._closed = self._closed or keep
        tasks = [r.stop(0.0) for r in tuple(self.replicas.values()) if not (keep and r.finished)]
        if tasks:
            await asyncio.wait(tasks)

    async def release(self) -> None:
        """Release all replicas; their processes continue to run."""
        self._closed = True
        if self._step is not None:
            self._step.cancel()
        for replica in tuple(self.replicas.values()):
            await replica.release()


def _order(state: ReplicaState) -> tuple[str, int, int]:
    return state.role, state.index, int(state.id.rpartition("-")[2])
