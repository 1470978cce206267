"""One workload: its desired state, its replicas and its observation."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from llmos_hub.backends.failures import Shortage
from llmos_hub.backends.local.options import Options
from llmos_hub.backends.local.process import free_port
from llmos_hub.backends.local.records import ReplicaPaths, ReplicaRecord, RoleRecord, WorkloadRecord
from llmos_hub.backends.local.replica import Replica
from llmos_hub.backends.local.rollout import Member, Start, decide
from llmos_hub.backends.local.threads import in_thread
from llmos_hub.processes.ports import listen_error
from llmos_hub.workload import Observation, ReplicaState, Workload, start_order

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
    """A workload, which keeps the desired number of replicas of each role and template.

    Parameters
    ----------
    record
        The desired state.
    saved
        True if the record is on disk.

    Attributes
    ----------
    name
        The resource's name, for messages.
    marker
        The beginning of ``LLMOS_REPLICA`` in its processes.
    """

    def __init__(self, record: WorkloadRecord, context: BackendContext, *, saved: bool) -> None:
        self.record = record
        self.ref = record.ref
        self.name = record.ref.name
        self.marker = f"{context.marker}{record.ref.id}/"
        self.environment = context.environment
        self.options = context.options
        self.shortage = context.shortage
        self.directory = context.directory / record.ref.id
        self.replicas: dict[str, Replica] = {}
        self.removal: asyncio.Task[None] | None = None
        self._context = context
        self._saving = asyncio.Lock()
        self._saved = record if saved else None
        self._turn = asyncio.Event()
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
        roles = tuple(map(RoleRecord.of, workload.roles))
        for role in roles:
            for replica in self._replicas_of(role.name):
                replica.hand_over(role.known)
        new = self._saved is None
        same = self.record.same(roles, workload.labels)
        before = self.record
        self.record = replace(self.record, roles=roles, labels=dict(workload.labels))
        if new or not same:
            try:
                await self._save()
            except OSError:
                self.record = replace(before, serial=self.record.serial, ports=self.record.ports)
                raise
        self.reconcile()

    async def save(self) -> None:
        """Make sure that the number of the newest replica and the ports are on disk."""
        now, saved = self.record, self._saved
        if saved is None or (saved.serial, saved.ports) != (now.serial, now.ports):
            await self._save()

    async def _save(self) -> None:
        async with self._saving:
            record = self.record
            await in_thread(record.write, self.directory)
            self._saved = record

    def reconcile(self) -> None:
        """Start and stop replicas as the rollout decides."""
        self._step = None
        if self.removal is not None or self._closed:
            return
        wanted = {role.name for role in self.record.roles}
        for replica in [r for r in self.replicas.values() if r.state.role not in wanted]:
            replica.stop(self.options.drain)
        for role in self.record.roles:
            template = role.known.template
            members = self._members(role)
            for step in decide(role.count, members, completes=template.completes, exclusive=bool(template.ports)):
                if isinstance(step, Start):
                    self._start(role, step.index)
                else:
                    self.replicas[step.id].stop(self.options.drain)
        self._turn.set()
        self._turn = asyncio.Event()
        self._publish()

    def _replicas_of(self, role: str) -> list[Replica]:
        return [replica for replica in self.replicas.values() if replica.state.role == role]

    def _members(self, role: RoleRecord) -> list[Member]:
        return [replica.member(role.known.hash) for replica in self._replicas_of(role.name)]

    def _start(self, role: RoleRecord, index: int) -> None:
        serial = self.record.serial + 1
        self.record = replace(self.record, serial=serial)
        record = ReplicaRecord(id=f"{role.name}-{index}-{serial}", role=role.name, index=index)
        user = role.known.template.user
        paths = ReplicaPaths.of(self.directory, self._context.runtime_dir, record.id, user=user)
        self.adopt(Replica(record, role.known, paths, self))

    def adopt(self, replica: Replica) -> None:
        """Add a replica and begin its life."""
        self.replicas[replica.state.id] = replica
        replica.begin()

    # Called by replicas

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

    def choose_port(self) -> int:
        """Return a free port that no replica of any workload has."""
        while self._context.port_taken(port := free_port()):
            pass
        return port

    def has_port(self, port: int) -> bool:
        """Return whether it is a named port of this workload."""
        return any(port in ports.values() for ports in self.record.ports.values())

    def waits_for(self, replica: Replica) -> list[str]:
        """Return the roles that must be ready before a replica starts and aren't."""
        roles = {role.name: role for role in self.record.roles}
        mine = roles.get(replica.state.role)
        others = [roles[name] for name in mine.after if name in roles] if mine is not None else []
        return [role.name for role in others if sum(m.available for m in self._members(role)) < role.count]

    async def turn(self) -> None:
        """Wait until `waits_for` may have changed."""
        await self._turn.wait()

    def addresses(self, replica: Replica) -> dict[str, str]:
        """Return the values of the placeholders for a replica's ports, and for the addresses and ports of all roles.

        A port that has been taken by another program is replaced, and so are the processes that were told the old one.
        """
        role, index = replica.state.role, replica.state.index
        own = self._reserve(role, index, replica.template.ports)
        if taken := [name for name, port in own.items() if listen_error("127.0.0.1", port) is not None]:
            own = self._reserve(role, index, taken, again=True)
            for other in self.replicas.values() if index == 0 else ():
                if other is not replica and other.pid is not None and role in other.template.peers:
                    other.stop(self.options.drain)
        values = {f"port.{name}": str(port) for name, port in own.items()}
        for other_role in self.record.roles:
            ports = self._reserve(other_role.name, 0, other_role.known.template.ports)
            values[f"{other_role.name}.address"] = "127.0.0.1"
            values |= {f"{other_role.name}.port.{name}": str(port) for name, port in ports.items()}
        return values

    def _reserve(self, role: str, index: int, names: Iterable[str], *, again: bool = False) -> Mapping[str, int]:
        """Return the ports of a role's replica after choosing those that it doesn't have, or all if `again`."""
        slot = f"{role}-{index}"
        ports = self.record.ports.get(slot, {})
        for name in names:
            if again or name not in ports:
                ports = {**ports, name: self.choose_port()}
                self.record = replace(self.record, ports={**self.record.ports, slot: ports})
        return ports

    # The current state

    def observe(self) -> Observation:
        """Return the current state."""
        states = sorted((r.state for r in self.replicas.values()), key=_order)
        return Observation(self.ref, tuple(states), updated=self._updated(), labels=self.record.labels)

    def _updated(self) -> bool:
        wanted = sorted((role.name, role.known.hash) for role in self.record.roles for _ in range(role.count))
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
        """Stop all running replicas; keep the desired state and, unless the workload is removed, finished jobs.

        Those of a role that is started after others are gone before the others are stopped.
        """
        keep = self.removal is None
        self._closed = self._closed or keep
        after = {role.name: role.after for role in self.record.roles}
        first = [replica.state.role for replica in self.replicas.values() if replica.state.role not in after]
        for roles in (first, *reversed(start_order(after))):
            stopping = [r for r in tuple(self.replicas.values()) if r.state.role in roles and not (keep and r.finished)]
            tasks = [replica.stop(0.0) for replica in stopping]
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
