"""A backend without processes, for tests of the code that uses backends: states change when the test says so.

It uses the rollout rules of the local backend and passes the same contract suite.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from llmos.errors import BackendFailed, NotFound
from llmos_hub.backends.base import Report
from llmos_hub.backends.changes import Changes, Subscription
from llmos_hub.backends.failures import DEPENDENCY, waits_for
from llmos_hub.backends.local.rollout import Member, Start, decide
from llmos_hub.backends.reports import REPORT_LINES, read_report
from llmos_hub.workload import Observation, ReplicaState, Role, Workload, WorkloadRef, start_order

__all__ = ["Behaviour", "FakeBackend", "World"]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The state of a replica right after its start.

    Attributes
    ----------
    state
        Fields of `ReplicaState`; without a phase it is ``Ready``.
    log
        The lines that it writes.
    """

    state: dict[str, Any] = field(default_factory=dict)
    log: tuple[str, ...] = ()


@dataclass
class _Entry:
    workload: Workload
    replicas: dict[str, ReplicaState] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    serial: int = 0


@dataclass
class World:
    """State that outlives the backend object, as processes and records do."""

    entries: dict[WorkloadRef, _Entry] = field(default_factory=dict)


def _always_ready(workload: Workload, role: Role, index: int) -> Behaviour:
    del workload, role, index
    return Behaviour()


class FakeBackend:
    """A `Backend` in memory.

    Parameters
    ----------
    behave
        Called at each start of a replica; by default all are ready immediately.
    world
        The state of an earlier backend, to take it over.

    Attributes
    ----------
    applied
        Every workload that was applied, in order.
    deleted
        Every workload that was deleted.
    failure
        When set, `apply` raises `BackendFailed` with this message.
    """

    def __init__(
        self, behave: Callable[[Workload, Role, int], Behaviour] = _always_ready, *, world: World | None = None
    ) -> None:
        self.behave = behave
        self.world = world or World()
        self.applied: list[Workload] = []
        self.deleted: list[WorkloadRef] = []
        self.failure: str | None = None
        self._changes = Changes()

    # What tests say

    def set(self, ref: WorkloadRef, replica: str | None = None, **fields: Any) -> None:
        """Change the state of one replica, or of all existing ones, and continue the rollout.

        Raises
        ------
        KeyError
            There is no such workload or replica.
        """
        entry = self.world.entries[ref]
        for name in [replica] if replica is not None else list(entry.replicas):
            state = replace(entry.replicas[name], **fields)
            if state.phase == "Ready" and state.ready_at is None:
                state = replace(state, ready_at=datetime.now(UTC))
            entry.replicas[name] = state
        self._roll_out(entry)
        self._changes.notify(ref)

    def say(self, ref: WorkloadRef, line: str, replica: str | None = None) -> None:
        """Have a replica, or all, write a line to its log."""
        entry = self.world.entries[ref]
        for name in [replica] if replica is not None else list(entry.logs):
            entry.logs[name].append(line)
        self._changes.notify(ref)

    # What reconcilers call

    async def start(self) -> None:
        """Do nothing: `world` already has what an earlier backend left."""

    async def apply(self, workload: Workload) -> None:
        """Set the desired state of a workload, and reach it immediately."""
        if self.failure is not None:
            raise BackendFailed(self.failure)
        self.applied.append(workload)
        new = workload.ref not in self.world.entries
        entry = self.world.entries.setdefault(workload.ref, _Entry(workload))
        before = (entry.workload, dict(entry.replicas))
        entry.workload = workload
        self._roll_out(entry)
        if new or before != (workload, entry.replicas):
            self._changes.notify(workload.ref)

    async def observe(self, ref: WorkloadRef) -> Observation | None:
        """Return the current state of a workload; None if it doesn't exist."""
        entry = self.world.entries.get(ref)
        if entry is None:
            return None
        workload = entry.workload
        wanted = sorted((role.name, role.template.hash) for role in workload.roles for _ in range(role.count))
        there = sorted((state.role, state.template) for state in entry.replicas.values())
        states = sorted(entry.replicas.values(), key=lambda s: (s.role, s.index, int(s.id.rpartition("-")[2])))
        return Observation(ref, tuple(states), updated=wanted == there, labels=dict(workload.labels))

    async def refs(self) -> Sequence[WorkloadRef]:
        """Return all workloads."""
        return tuple(self.world.entries)

    async def logs(
        self, ref: WorkloadRef, *, replica: str | None = None, tail: int | None = 200, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield lines of the log."""
        entry = self.world.entries.get(ref)
        if entry is None or (replica is not None and replica not in entry.logs):
            raise NotFound(f"There is no log of {replica or ref.name}.")
        changed = self.changes()
        shown: dict[str, int] = {}
        for name in [replica] if replica is not None else list(entry.logs):
            lines = list(entry.logs[name])
            shown[name] = len(lines)
            for line in lines if tail is None else lines[max(0, len(lines) - tail) :]:
                yield line
        while follow and not self._over(ref, entry, replica):
            async for _ in changed:
                break
            else:
                return
            for name in [replica] if replica is not None else list(entry.logs):
                lines = entry.logs.get(name, [])[shown.get(name, 0) :]
                shown[name] = shown.get(name, 0) + len(lines)
                for line in lines:
                    yield line

    def _over(self, ref: WorkloadRef, entry: _Entry, replica: str | None) -> bool:
        if self.world.entries.get(ref) is not entry or (replica is not None and replica not in entry.replicas):
            return True
        states = [state for state in entry.replicas.values() if replica in {None, state.id}]
        return bool(states) and all(state.phase in {"Succeeded", "Failed"} for state in states)

    async def progress(self, ref: WorkloadRef, *, replica: str | None = None) -> Report:
        """Return what a workload's job has reported; see `Backend.progress`."""
        return await read_report(self.logs(ref, replica=replica, tail=REPORT_LINES))

    async def delete(self, ref: WorkloadRef) -> None:
        """Remove a workload."""
        self.deleted.append(ref)
        if self.world.entries.pop(ref, None) is not None:
            self._changes.notify(ref)

    def changes(self) -> Subscription:
        """Return an iterator over workloads whose observation changes from now on."""
        return self._changes.subscribe()

    async def close(self, *, stop: bool = False) -> None:
        """End all subscriptions; with `stop`, also all replicas."""
        if stop:
            for entry in self.world.entries.values():
                entry.replicas.clear()
        self._changes.close()

    # Rollout

    def _roll_out(self, entry: _Entry) -> None:
        names = {role.name for role in entry.workload.roles}
        for state in [s for s in entry.replicas.values() if s.role not in names]:
            self._stop(entry, state.id)
        roles = {role.name: role for role in entry.workload.roles}
        for name in itertools.chain(*start_order({role.name: role.after for role in entry.workload.roles})):
            role = roles[name]
            others = [other for other in role.after if self._available(entry, roles[other]) < roles[other].count]
            waiting = [s for s in entry.replicas.values() if s.role == name and s.reason == DEPENDENCY]
            for state in waiting if not others else ():
                self._begin(entry, role, state)
            exclusive = bool(role.template.ports)
            while steps := decide(
                role.count, self._members(entry, role), completes=role.template.completes, exclusive=exclusive
            ):
                for step in steps:
                    if isinstance(step, Start):
                        self._start(entry, role, step.index, others)
                    else:
                        self._stop(entry, step.id)

    def _available(self, entry: _Entry, role: Role) -> int:
        return sum(member.available for member in self._members(entry, role))

    @staticmethod
    def _members(entry: _Entry, role: Role) -> list[Member]:
        return [
            Member(state.id, state.index, state.template == role.template.hash, state.phase in {"Ready", "Succeeded"})
            for state in entry.replicas.values()
            if state.role == role.name
        ]

    def _start(self, entry: _Entry, role: Role, index: int, others: Sequence[str]) -> None:
        entry.serial += 1
        name = f"{role.name}-{index}-{entry.serial}"
        failure = waits_for(entry.workload.ref.name, role.name, others)
        state = ReplicaState(
            id=name,
            role=role.name,
            index=index,
            phase="Waiting",
            template=role.template.hash,
            memory_limit=role.template.memory_limit,
            reason=failure.reason,
            message=failure.message,
        )
        if others:
            entry.replicas[name] = state
            entry.logs[name] = []
        else:
            self._begin(entry, role, state)

    def _begin(self, entry: _Entry, role: Role, state: ReplicaState) -> None:
        name, now = state.id, datetime.now(UTC)
        behaviour = self.behave(entry.workload, role, state.index)
        state = replace(
            state,
            phase="Ready",
            endpoint=f"unix:///fake/{entry.workload.ref.id}/{name}.sock",
            pid=next(_PIDS),
            started_at=now,
            reason="",
            message="",
        )
        state = replace(state, **behaviour.state)
        if state.phase in {"Ready", "NotReady"}:
            state = replace(state, ready_at=now)
        elif state.phase not in {"Starting", "Stopping"}:
            state = replace(state, pid=None)
        entry.replicas[name] = state
        entry.logs[name] = list(behaviour.log)

    @staticmethod
    def _stop(entry: _Entry, name: str) -> None:
        del entry.replicas[name]
        del entry.logs[name]


_PIDS = itertools.count(2**22 + 1)  # over the kernel's PID_MAX_LIMIT: no real process has such a pid
