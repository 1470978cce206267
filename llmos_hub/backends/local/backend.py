"""The backend that runs workloads as processes on this machine."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from llmos.errors import BackendFailed
from llmos.proc import machine_memory
from llmos_hub.backends.base import Report
from llmos_hub.backends.changes import Changes, Subscription
from llmos_hub.backends.failures import Shortage
from llmos_hub.backends.local.adoption import adopt, clear_sockets, kill_strangers
from llmos_hub.backends.local.deployment import BackendContext, Deployment
from llmos_hub.backends.local.logs import read_logs
from llmos_hub.backends.local.options import Options
from llmos_hub.backends.local.process import ENV_REPLICA, base_environment
from llmos_hub.backends.local.records import WorkloadRecord, load_workloads
from llmos_hub.backends.local.replica import PASSABLE, Replica
from llmos_hub.backends.reports import REPORT_LINES, read_report
from llmos_hub.processes.handle import processes_by_environment
from llmos_hub.processes.logs import rotate
from llmos_hub.processes.memory import MemoryReader, memory_of
from llmos_hub.processes.users import find_user
from llmos_hub.workload import Observation, Workload, WorkloadRef

__all__ = ["LocalBackend"]

log = logging.getLogger(__name__)

_SOCKET_PATH: Final = 107 - len("/0123456789abcdef.sock")  # sun_path less its zero byte and a socket's name (unix(7))
_DEFAULTS: Final = Options()


class LocalBackend:
    """A `Backend` whose replicas are processes in their own sessions, which outlive this object.

    Parameters
    ----------
    directory
        The directory of records and logs.
    runtime_dir
        The directory of sockets; its path must be short.
    options
        Timeouts and limits.
    memory
        Returns the machine's memory.
    """

    def __init__(
        self,
        directory: Path,
        runtime_dir: Path,
        *,
        options: Options = _DEFAULTS,
        memory: MemoryReader = machine_memory,
    ) -> None:
        digest = hashlib.sha256(str(directory.absolute()).encode()).hexdigest()[:12]
        self._directory = directory
        self._runtime_dir = runtime_dir
        self._options = options
        self._memory = memory
        self._marker = f"{digest}/"
        self._changes = Changes()
        self._deployments: dict[WorkloadRef, Deployment] = {}
        self._lock: int | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._context = BackendContext(
            directory=directory,
            runtime_dir=runtime_dir,
            marker=self._marker,
            environment=base_environment(),
            options=options,
            shortage=self._shortage,
            port_taken=self._port_taken,
            notify=lambda deployment: self._changes.notify(deployment.ref),
        )

    # Start and end

    async def start(self) -> None:
        """Start: find workloads that are already running and adopt them.

        Raises
        ------
        BackendFailed
            A directory can't be used, or another controller uses it.
        """
        try:
            self._make_directories()
            await self._take_lock()
            records = await asyncio.to_thread(load_workloads, self._directory)
            found = await asyncio.to_thread(processes_by_environment, ENV_REPLICA, self._marker)
            for record in records.values():
                deployment = self._deployments[record.ref] = Deployment(record, self._context, saved=True)
                await adopt(deployment, self._runtime_dir, found)
            await kill_strangers(found)
            sockets = {replica.paths.socket for replica in self._replicas()}
            await asyncio.to_thread(clear_sockets, self._runtime_dir, sockets)
        except OSError as error:
            raise BackendFailed(f"Workloads can't be run from {self._directory}: {error.strerror or error}.") from error
        for deployment in self._deployments.values():
            deployment.reconcile()
        self._watcher = asyncio.create_task(self._watch(), name="memory and logs of replicas")

    def _make_directories(self) -> None:
        if len(str(self._runtime_dir)) > _SOCKET_PATH:
            raise BackendFailed(
                f"{self._runtime_dir} is too long a path for sockets: {_SOCKET_PATH} characters at most."
            )
        for path in (self._directory, self._runtime_dir):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = self._runtime_dir.stat()
        if status.st_uid != os.geteuid():
            raise BackendFailed(f"{self._runtime_dir} belongs to somebody else; sockets in it would not be safe.")
        if os.geteuid() or status.st_mode & 0o777 != PASSABLE:  # replicas of other users have sockets in it
            self._runtime_dir.chmod(0o700)

    async def _take_lock(self) -> None:
        """Take the exclusive lock of the directory; it is released when the process ends, in whatever way."""
        fd = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        until = time.monotonic() + self._options.lock_timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < until:
                    await asyncio.sleep(0.05)
                    continue
                os.close(fd)
                raise BackendFailed(
                    f"Another controller is in charge of {self._directory}. Is LLMOS running twice on it?"
                ) from None
            self._lock = fd
            return

    async def close(self, *, stop: bool = False) -> None:
        """Close the backend; the workloads continue to run, unless `stop`.

        The desired state is kept on disk either way: the next `start` restores it. A job that was stopped is run
        again; a finished one is not.
        """
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait([self._watcher])
        removals = [d.removal for d in self._deployments.values() if d.removal is not None]
        if stop:
            await asyncio.gather(*(deployment.stop_all() for deployment in self._deployments.values()))
        else:
            for removal in removals:
                removal.cancel()
        if removals:
            await asyncio.wait(removals)
        for deployment in self._deployments.values():
            await deployment.release()
        self._changes.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Called by reconcilers

    async def apply(self, workload: Workload) -> None:
        """Set the desired state of a workload, without waiting; see `Backend.apply`."""
        for role in workload.roles:
            find_user(role.template.user, workload.ref.name)
        while (current := self._deployments.get(workload.ref)) is not None and current.removal is not None:
            await asyncio.wait([current.removal])
            self._forget(current)
        deployment = current
        if deployment is None:
            deployment = Deployment(WorkloadRecord(workload.ref, {}, ()), self._context, saved=False)
            self._deployments[workload.ref] = deployment
        try:
            await deployment.apply(workload)
        except OSError as error:
            if current is None and not deployment.replicas:
                self._deployments.pop(workload.ref, None)
            raise BackendFailed(
                f"{workload.ref.name} can't be recorded in {self._directory}: {error.strerror or error}."
            ) from error

    async def observe(self, ref: WorkloadRef) -> Observation | None:
        """Return the current state of a workload from memory; None if it doesn't exist."""
        deployment = self._deployments.get(ref)
        return deployment.observe() if deployment is not None else None

    async def refs(self) -> Sequence[WorkloadRef]:
        """Return all workloads."""
        return tuple(self._deployments)

    def logs(
        self, ref: WorkloadRef, *, replica: str | None = None, tail: int | None = 200, follow: bool = False
    ) -> AsyncIterator[str]:
        """Yield lines of the log; see `Backend.logs`. In another process, use `read_logs`."""
        return read_logs(self._directory, ref, replica=replica, tail=tail, follow=follow)

    async def progress(self, ref: WorkloadRef, *, replica: str | None = None) -> Report:
        """Return what a workload's job has reported; see `Backend.progress`."""
        return await read_report(self.logs(ref, replica=replica, tail=REPORT_LINES))

    async def delete(self, ref: WorkloadRef) -> None:
        """Stop all processes of a workload, wait until they are gone, and remove its records."""
        deployment = self._deployments.get(ref)
        if deployment is not None:
            removal = deployment.remove()
            removal.add_done_callback(lambda task: None if task.cancelled() else self._forget(deployment))
            await asyncio.shield(removal)

    def _forget(self, deployment: Deployment) -> None:
        if self._deployments.get(deployment.ref) is deployment:
            del self._deployments[deployment.ref]
            self._changes.notify(deployment.ref)

    def changes(self) -> Subscription:
        """Return an iterator over workloads whose observation changes from now on."""
        return self._changes.subscribe()

    # Memory, logs, ports

    def _replicas(self) -> list[Replica]:
        return [replica for deployment in self._deployments.values() for replica in deployment.replicas.values()]

    def _shortage(self, replica: Replica) -> Shortage | None:
        """Return the memory that is missing for a replica, where memory promised to others counts as used; or None."""
        if not replica.memory_request:
            return None
        machine = self._memory()
        promised = sum(
            max(0, other.memory_request - (other.usage.held if other.usage else 0))
            for other in self._replicas()
            if other.admitted and other is not replica
        )
        free = max(0, machine.available - promised)
        if free >= replica.memory_request:
            return None
        return Shortage(replica.memory_request, free, min(promised, machine.available), machine.total)

    def _port_taken(self, port: int) -> bool:
        return any(deployment.has_port(port) for deployment in self._deployments.values()) or any(
            (replica.state.endpoint or "").endswith(f":{port}") for replica in self._replicas()
        )

    async def _watch(self) -> None:
        told = ""
        while True:
            try:
                await self._look_at_memory()
                await asyncio.to_thread(self._rotate_logs, [replica.paths.log for replica in self._replicas()])
            except OSError as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("Memory and logs of replicas can't be looked after: %s", error)
            await asyncio.sleep(self._options.memory_period)

    async def _look_at_memory(self) -> None:
        running = [replica for replica in self._replicas() if replica.pid is not None]
        usage = await asyncio.to_thread(memory_of, [r.pid for r in running if r.pid is not None])
        for replica in running:
            if replica.pid is not None:
                await replica.memory_seen(usage.get(replica.pid))
        for deployment in self._deployments.values():
            deployment.memory_seen()

    def _rotate_logs(self, paths: list[Path]) -> None:
        for path in paths:
            rotate(path, max_bytes=self._options.log_bytes, keep=1)
