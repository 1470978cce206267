"""One replica through all its starts and ends: waiting, starting, probing, restarting, draining, stopping."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from llmos.errors import BackendFailed
from llmos.proc import oom_kills
from llmos_hub.backends import failures
from llmos_hub.backends.failures import Failure, Shortage
from llmos_hub.backends.local.probes import ProbeResult, http_get, probe_delay
from llmos_hub.backends.local.process import ENV_REPLICA, find_program
from llmos_hub.backends.local.records import KnownTemplate, ReplicaPaths, ReplicaRecord, boot_id
from llmos_hub.backends.local.rollout import Member
from llmos_hub.backends.local.threads import in_thread
from llmos_hub.names import ENV_ENGINE_KEY
from llmos_hub.placeholders import fill
from llmos_hub.processes.hanging import HangJudge
from llmos_hub.processes.logs import last_lines
from llmos_hub.processes.memory import MemoryUsage, proportional_set_size
from llmos_hub.processes.restarts import BackOff
from llmos_hub.processes.running import Exit, Running, noted_exit
from llmos_hub.processes.spawn import spawn
from llmos_hub.processes.users import User, find_user
from llmos_hub.workload import Probe, ProcessTemplate, ReplicaState

if TYPE_CHECKING:
    from llmos_hub.backends.local.deployment import Deployment

__all__ = ["PASSABLE", "Replica", "remove_socket"]

log = logging.getLogger(__name__)

PASSABLE: Final = 0o711
"""Mode of directories through which users reach those of their own, without listing those of others."""

_FROM_OUTSIDE: Final = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGKILL})
_STATUS_LINES: Final = 20  # last lines of a log that a status has
_STATUS_LINE: Final = 500  # characters of each
_NO_PROCESS: Final[Mapping[str, None]] = {"pid": None, "memory": None, "ready_at": None}
_SECRET_LENGTH: Final = 8  # shorter values are hardly secret, and masking them would mask common words


def remove_socket(path: Path) -> None:
    """Remove a socket, and its directory if it has one of its own."""
    with contextlib.suppress(OSError):
        path.unlink()
    if path.name == "sock":
        with contextlib.suppress(OSError):
            path.parent.rmdir()


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("%s broke off", task.get_name(), exc_info=error)


class Replica:
    """A replica, which runs from `begin` until `stop` or `release`.

    Parameters
    ----------
    record, known, paths
        Its record, its template and the paths of its files.
    owner
        The workload that it belongs to.
    process
        Its process, if it is one that an earlier controller left running.
    """

    def __init__(
        self,
        record: ReplicaRecord,
        known: KnownTemplate,
        paths: ReplicaPaths,
        owner: Deployment,
        process: Running | None = None,
    ) -> None:
        self._record = record
        self._known = known
        self.paths = paths
        self._owner = owner
        self._process = process
        self._verdict: Failure | None = None  # why the controller ends the process
        self._failure: Failure | None = None  # why it is not running
        options = owner.options
        self._pauses = BackOff(options.back_off_first, options.back_off_limit, steady=options.back_off_reset)
        self._retry = 0.0
        self._shortage: Shortage | None = None
        self._kernel_kills = oom_kills()
        self._secrets = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.usage: MemoryUsage | None = None
        self.admitted = process is not None
        self.state = self._initial_state()

    def _initial_state(self) -> ReplicaState:
        record, process = self._record, self._process
        ready_at = record.ready_at if process is not None else None
        return ReplicaState(
            id=record.id,
            role=record.role,
            index=record.index,
            phase=record.phase or ("Ready" if ready_at else "Starting"),
            endpoint=record.endpoint,
            template=self._known.hash,
            restarts=record.restarts,
            memory_limit=self.template.memory_limit,
            pid=self.pid,
            started_at=record.started_at if process is not None else None,
            ready_at=ready_at,
            # of a finished job
            exit_code=record.exit_code,
            reason=record.reason,
            message=record.message,
            last_log_lines=record.last_log_lines,
        )

    # Called by the owner

    @property
    def finished(self) -> bool:
        """True if it is a finished job."""
        return self.state.phase in {"Succeeded", "Failed"}

    @property
    def pid(self) -> int | None:
        """The process id, while it has a process."""
        return self._process.pid if self._process is not None else None

    @property
    def template(self) -> ProcessTemplate:
        """Its template, possibly without its secrets."""
        return self._known.template

    @property
    def memory_request(self) -> int:
        """The expected memory in bytes."""
        return self.template.memory_request or 0

    def member(self, template: str) -> Member:
        """Return the replica as a `Member` for the rollout, where `template` is the newest template."""
        return Member(
            id=self.state.id,
            index=self.state.index,
            current=self._known.hash == template,
            available=self.state.phase in {"Ready", "Succeeded"},
            stopping=self.state.phase == "Stopping",
            short_by=self._shortage.short_by if self._shortage else 0,
            memory=max(self.memory_request, self.usage.resident if self.usage else 0) if self.admitted else 0,
        )

    def begin(self) -> None:
        """Start the replica's life."""
        if not self.finished:
            self._life = asyncio.create_task(self._live(), name=f"replica {self.state.id}")
            self._life.add_done_callback(_report)

    def hand_over(self, known: KnownTemplate) -> None:
        """Add the secrets, which an earlier controller had and did not record."""
        if known.hash == self._known.hash and not self._known.complete:
            self._known = known
            self._secrets.set()

    async def memory_seen(self, usage: MemoryUsage | None) -> None:
        """Record its memory usage, None if unknown, and kill it if that exceeds the limit."""
        self.usage = usage
        self.state = replace(self.state, memory=usage.resident if usage else None)
        limit = self.template.memory_limit
        if not limit or usage is None or usage.resident <= limit or self._verdict is not None:
            return
        used = usage.resident
        if len(usage.pids) > 1:  # memory that they share was counted several times
            used = await asyncio.to_thread(proportional_set_size, usage)
        if used > limit and self._process is not None and self.state.phase != "Stopping":
            self._verdict = failures.out_of_memory(self._owner.name, used, limit)
            self._process.kill()

    def stop(self, drain: float) -> asyncio.Task[None]:
        """Mark it as stopping; then let it finish requests for `drain` seconds, end it and remove its files."""
        if self._stopping is None:
            serving = self.state.phase == "Ready"
            self._set(phase="Stopping", retry_at=None)
            self._stopping = asyncio.create_task(self._stop(drain if serving else 0.0), name=f"stop {self.state.id}")
            self._stopping.add_done_callback(_report)
        return self._stopping

    async def release(self) -> None:
        """Stop managing it; its process continues to run."""
        for task in (self._life, self._stopping):
            if task is not None and not task.done():
                task.cancel()
                await asyncio.wait([task])
        if self._process is not None:
            self._process.release()

    # Its life

    async def _live(self) -> None:
        if self._process is None and self._record.pid is not None:
            await self._ended_meanwhile()
        while not self.finished:
            try:
                if self._process is None:
                    await self._hold()
                    await self._spawn()
                if self._process is not None:
                    await self._settle(await self._watch(self._process))
            except OSError as error:
                log.warning("%s of %s can't be started: %s", self.state.id, self._owner.name, error)
                reason = f"{self._owner.name} can't be started: {error.strerror or error}."
                await self._fail(Failure("Crashed", reason), None)

    async def _hold(self) -> None:
        """Wait for the end of the back-off, for other roles, for its secrets and for memory."""
        await asyncio.sleep(max(0.0, self._retry - time.monotonic()))
        while others := self._owner.waits_for(self):
            self._wait(failures.waits_for(self._owner.name, self.state.role, others))
            await self._owner.turn()
        if self.state.reason == failures.DEPENDENCY:
            self._set(reason="", message="")
        if not self._known.complete:
            self._wait(failures.credentials_needed(self._failure, self._owner.name))
            await self._secrets.wait()
        while (shortage := self._owner.shortage(self)) is not None:
            self._shortage = shortage
            self._wait(failures.insufficient_memory(self._owner.name, shortage))
            await asyncio.sleep(self._owner.options.memory_retry)
        self._shortage = None
        self.admitted = True

    def _wait(self, failure: Failure) -> None:
        self._set(phase="Waiting", reason=failure.reason, message=failure.message, retry_at=None)

    async def _spawn(self) -> None:
        """Start the process. The attempt is recorded before it, and the pid after it."""
        record, template = self._record, self.template
        try:
            user = find_user(template.user, self._owner.name)
        except BackendFailed as error:
            await self._fail(Failure("Refused", error.message), None)
            return
        for name, mount in template.mounts.items():
            if not await in_thread(Path(mount.source).is_dir) or not mount.source.startswith("/"):
                await self._fail(failures.not_mounted(self._owner.name, name, mount.source), None)
                return
        values = {"index": str(record.index), "dir": str(self.paths.own), "socket": str(self.paths.socket)}
        values |= {f"mount.{name}": mount.source for name, mount in template.mounts.items()}
        values |= self._owner.addresses(self)
        texts = (*template.argv, *template.env.values())
        endpoint: str | None = None
        if any("{port}" in text for text in texts):
            values["port"] = str(self._owner.choose_port())
            endpoint = f"http://127.0.0.1:{values['port']}"
        elif template.readiness or template.liveness or any("{socket}" in text for text in texts):
            endpoint = f"unix://{quote(values['socket'])}"
        await self._owner.save()
        await in_thread(self._prepare, user)
        start = self.paths.log.stat().st_size if self.paths.log.exists() else 0
        attempt = record.attempt + 1
        self._record = replace(
            record, attempt=attempt, endpoint=endpoint, log_start=start, pid=None, started_at=None, ready_at=None
        )
        await self._write()

        argv = [fill(text, values) for text in template.argv]
        home = {"HOME": user.home or str(self.paths.own)} if user else {}
        environment = {**self._owner.environment, **home, **{k: fill(v, values) for k, v in template.env.items()}}
        environment |= {**template.secret_env, ENV_REPLICA: f"{self._owner.marker}{record.id}/{attempt}"}
        if why := find_program(argv[0], environment, self.paths.own):
            await self._fail(failures.missing(self._owner.name, argv[0], why), None)
            return
        note = self.paths.exit if template.completes else None
        self._verdict, self._kernel_kills = None, oom_kills()
        process = spawn(argv, environment, self.paths.own, self.paths.log, user=user, note_exit=note, mark=ENV_REPLICA)
        self._process = process
        now = datetime.now(UTC)
        handle = process.handle
        self._record = replace(
            self._record, pid=handle.pid, start_time=handle.start_time, boot=boot_id(), started_at=now
        )
        self._set(phase="Starting", pid=handle.pid, endpoint=endpoint, started_at=now, ready_at=None, retry_at=None)
        await self._note()

    def _prepare(self, user: User | None) -> None:
        own, socket = self.paths.own, self.paths.socket
        for directory in (own, socket.parent):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        for name, mount in self.template.mounts.items():
            (own / name).unlink(missing_ok=True)
            (own / name).symlink_to(mount.source)
        if user is None:
            return
        for directory in (*self.paths.directory.parents[:2], self.paths.directory, socket.parents[1]):
            directory.chmod(PASSABLE)
        user.own(own, mode=0o700)
        user.own(socket.parent, mode=0o750, group=socket.parents[1].stat().st_gid)  # for the gateway's group

    async def _write(self) -> None:
        await in_thread(self._record.write, self.paths, self._known)

    async def _note(self) -> None:
        """Write the record; on failure only log it, since the process matters more than its record."""
        try:
            await self._write()
        except OSError as error:
            log.warning("The record in %s can't be written: %s", self.paths.directory, error)

    async def _watch(self, process: Running) -> Exit:
        """Probe it until it ends."""
        checks = asyncio.create_task(self._check(process), name=f"probes {self.state.id}")
        try:
            ending = await asyncio.shield(process.exited)
        finally:
            checks.cancel()
            (result,) = await asyncio.gather(checks, return_exceptions=True)
            if isinstance(result, Exception):
                log.error("Probing %s of %s failed", self.state.id, self._owner.name, exc_info=result)
        await process.sweep()
        return ending

    # The end of the process

    async def _ended_meanwhile(self) -> None:
        """Handle an end while no controller was running.

        A job that was ended from outside (probably with the platform or the machine) is run again; one that ended by
        itself is finished. Anything else is started again immediately, since there is no sign that it can't run.
        """
        ending = noted_exit(self.paths.exit) or Exit()
        outside = ending.code is None and ending.signal in {None, *_FROM_OUTSIDE}
        if outside and (self.template.completes or self._record.boot != boot_id()):
            log.info("%s of %s was ended from outside and is started again", self.state.id, self._owner.name)
            return
        await self._settle(ending)
        self._pauses.forget()
        self._retry = 0.0

    async def _settle(self, ending: Exit) -> None:
        """Find out the reason of an end, and schedule the restart if there is one."""
        template = self.template
        ran = (datetime.now(UTC) - self._record.started_at).total_seconds() if self._record.started_at else 0.0
        self._pauses.ran(ran)
        if template.completes and ending.code == 0 and self._verdict is None:
            self._gone()
            self._record = replace(self._record, phase="Succeeded", exit_code=0)
            await self._note()
            self._set(phase="Succeeded", exit_code=0, reason="", message="", last_log_lines=(), **_NO_PROCESS)
            return
        failure = self._verdict
        if failure is None and ending.signal == 9 and oom_kills() > self._kernel_kills:
            failure = failures.killed_by_kernel(self._owner.name)
        failure = failure or failures.crashed(self._owner.name, ending, completes=template.completes)
        await self._fail(failure, ending)

    async def _fail(self, failure: Failure, ending: Exit | None) -> None:
        """Record a failure. A job is finished with it; anything else is restarted later."""
        self._gone()
        code = ending.number if ending else None
        self._failure = failure
        lines = await in_thread(self._last_lines)
        shown: dict[str, Any] = {
            "exit_code": code,
            "reason": failure.reason,
            "message": failure.message,
            "last_log_lines": lines,
        }
        if self.template.completes:
            self._record = replace(self._record, phase="Failed", **shown)
            self._set(phase="Failed", **shown, **_NO_PROCESS)
        else:
            delay = self._pauses.next()
            if failure.reason == "NotFound":
                delay = self._owner.options.missing_retry
            self._retry = time.monotonic() + delay
            self._record = replace(self._record, restarts=self._record.restarts + 1, pid=None, ready_at=None)
            retry_at = datetime.now(UTC) + timedelta(seconds=delay)
            self._set(phase="Waiting", restarts=self._record.restarts, retry_at=retry_at, **shown, **_NO_PROCESS)
        await self._note()

    def _gone(self) -> None:
        self._process = None
        self.usage = None
        self.admitted = False

    def _last_lines(self) -> tuple[str, ...]:
        """Return the last log lines of this start for the status, with the values of secrets masked.

        Empty if the secrets aren't known.
        """
        if not self._known.complete:
            return ()
        lines = last_lines(self.paths.log, _STATUS_LINES, start=self._record.log_start)
        secrets = [value for value in self.template.secret_env.values() if len(value) >= _SECRET_LENGTH]
        for secret in secrets:
            lines = [line.replace(secret, "***") for line in lines]
        return tuple(line[:_STATUS_LINE] for line in lines)

    # Probes

    async def _check(self, process: Running) -> None:
        template, endpoint = self.template, self._record.endpoint
        if self.state.ready_at is None and not await self._get_ready(process):
            return
        probes = []
        if template.readiness and endpoint:
            probes.append(self._keep_ready(process, endpoint, template.readiness))
        if template.liveness and endpoint:
            probes.append(self._keep_alive(process, endpoint, template.liveness))
        await asyncio.gather(*probes)

    async def _get_ready(self, process: Running) -> bool:
        """Probe until it is ready for the first time; stop it after its startup timeout."""
        template, endpoint = self.template, self._record.endpoint
        probe, first = template.readiness, self._owner.options.first_probe
        if probe is not None and endpoint is not None:
            begun = time.monotonic() - process.handle.age
            answer = await self._ask(endpoint, probe)
            while not answer.good:
                waited = time.monotonic() - begun
                if waited >= template.startup_timeout:
                    seconds = template.startup_timeout
                    self._verdict = failures.not_ready_in_time(self._owner.name, seconds, probe.path, answer.words)
                    await process.stop(template.grace)
                    return False
                await asyncio.sleep(probe_delay(waited, first=first, period=probe.period))
                answer = await self._ask(endpoint, probe)
        now = datetime.now(UTC)
        self._record = replace(self._record, ready_at=now)
        await self._note()  # recorded first, so that the next controller finds it ready from its start
        self._set(phase="Ready", ready_at=now, exit_code=None, reason="", message="", last_log_lines=())
        return True

    async def _keep_ready(self, process: Running, endpoint: str, probe: Probe) -> None:
        """Keep the phase ready or not ready by its probe; an adopted replica is probed immediately.

        If it has a liveness probe, it is killed as soon as it is certain that it hangs.
        """
        failed = 0
        judge = HangJudge(process.pid, spinning=False)
        while True:
            answer = await self._ask(endpoint, probe)
            failed = 0 if answer.good else failed + 1
            if not answer.silent:
                judge.answered()
            elif self.template.liveness and (why := await in_thread(judge.silent)):
                self._verdict = failures.hanging(self._owner.name, why)
                process.kill()
                return
            if answer.good and self.state.phase == "NotReady":
                self._set(phase="Ready", message="")
            elif failed >= probe.failures and self.state.phase == "Ready":
                self._set(phase="NotReady", message=self._not_ready(probe, answer))
            await asyncio.sleep(probe.period)

    async def _ask(self, endpoint: str, probe: Probe) -> ProbeResult:
        """Probe once, with the engine's key; while the key is unknown, a refusal for lack of it is a success."""
        key = self.template.secret_env.get(ENV_ENGINE_KEY, "")
        answer = await http_get(endpoint, probe.path, probe.timeout, key)
        return replace(answer, good=True) if answer.wants_key and not self._known.complete else answer

    def _not_ready(self, probe: Probe, answer: ProbeResult) -> str:
        return f"{self._owner.name} gets no requests for now: GET {probe.path} gave {answer.words}."

    async def _keep_alive(self, process: Running, endpoint: str, probe: Probe) -> None:
        """Stop it when its liveness probe has failed too often in a row."""
        failed = 0
        while failed < probe.failures:
            await asyncio.sleep(probe.period)
            answer = await self._ask(endpoint, probe)
            failed = 0 if answer.good else failed + 1
        self._verdict = failures.unhealthy(self._owner.name, failed, probe.path, answer.words)
        await process.stop(self.template.grace)

    # Stopping

    async def _stop(self, drain: float) -> None:
        if self._life is not None:
            self._life.cancel()
            await asyncio.wait([self._life])
        process = self._process
        if process is not None:
            if drain > 0:
                await asyncio.wait([process.exited], timeout=drain)
            await process.stop(self.template.grace)
            await process.sweep()
        await in_thread(self._remove_files)
        self._process, self.admitted = None, False
        self._owner.gone(self)

    def _remove_files(self) -> None:
        self.paths.record.unlink(missing_ok=True)
        shutil.rmtree(self.paths.directory, ignore_errors=True)
        remove_socket(self.paths.socket)

    def _set(self, **fields: Any) -> None:
        """Change the state and notify the owner, unless it is stopping."""
        if self.state.phase == "Stopping":
            return
        before, self.state = self.state, replace(self.state, **fields)
        if self.state != before:
            self._owner.changed(self)
