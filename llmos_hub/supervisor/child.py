"""One supervised process: started or adopted, watched, restarted when it ends or no longer answers, stopped.

A child has its own session and writes its output to a file, so that it survives the supervisor and the next supervisor
can adopt it. Everything that this needs is in the child's record.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from llmos.errors import LLMOSError, Unavailable
from llmos_hub.processes.handle import ProcessHandle
from llmos_hub.processes.hanging import HangJudge
from llmos_hub.processes.logs import append, last_lines
from llmos_hub.processes.restarts import BackOff
from llmos_hub.processes.running import Exit, Running
from llmos_hub.processes.spawn import spawn
from llmos_hub.supervisor.plan import Program
from llmos_hub.supervisor.probes import Silence
from llmos_hub.supervisor.state import ProcessRecord, StateFiles
from llmos_hub.tasks import cancel

__all__ = ["Child", "State", "exit_words"]

_PROBE_START = 0.05  # seconds between two probes while a process starts
_PROBE = 5.0  # seconds between two probes once it is ready
_BACKOFF_FIRST = 0.1  # seconds before the first restart; doubles with each further one
_BACKOFF_MAX = 30.0
_STEADY = 60.0  # seconds of running after which the back-off is reset
_KILLED = 10.0  # seconds to wait for the end after SIGKILL
_LINES = 50  # of its log that are searched
_START_LINE = "--- "  # before the time and the name, in the log


class State(StrEnum):
    """The state of a process."""

    WAITING = "Waiting"
    STARTING = "Starting"
    READY = "Ready"
    UNHEALTHY = "Unhealthy"
    BACKOFF = "BackOff"
    STOPPING = "Stopping"
    STOPPED = "Stopped"


def exit_words(ending: Exit) -> str:
    """Return in words how a process ended."""
    if ending.signal is not None:
        return f"killed by signal {ending.signal}"
    return "ended" if ending.code is None else f"exit status {ending.code}"


class Child:
    """A program that is kept running.

    Parameters
    ----------
    program
        The program to run.
    files
        The state files, for the record of the process.
    base_environment
        The environment, to which the program's own variables are added.
    say
        Prints a line on the console.
    changed
        Called whenever the state changes.
    restarted
        Called with the name when the program is healthy again after a restart.
    """

    def __init__(
        self,
        program: Program,
        files: StateFiles,
        *,
        base_environment: Mapping[str, str],
        say: Callable[[str], None],
        changed: Callable[[], None],
        restarted: Callable[[str], Awaitable[None]],
    ) -> None:
        self.program = program
        self.state = State.WAITING
        self.since = time.time()
        self.restarts = 0
        self.reason = ""
        self.ready = asyncio.Event()
        self.failed: asyncio.Future[str | LLMOSError] = asyncio.get_running_loop().create_future()
        self._files = files
        self._base = base_environment
        self._say = say
        self._changed = changed
        self._restarted = restarted
        self._running: Running | None = None
        self._ours = False
        self._stopping = False
        self._ever_ready = False
        self._unrecorded: ProcessRecord | None = None
        self._hung = False
        self._no_pause = asyncio.Event()

    @property
    def handle(self) -> ProcessHandle | None:
        """Its process, while it has one."""
        return self._running.handle if self._running else None

    @property
    def log(self) -> Path:
        """The path of its log."""
        return self._files.data_dir.logs / f"{self.program.name}.log"

    def last_lines(self) -> list[str]:
        """Return the last lines of its log, without empty ones."""
        return [line for line in last_lines(self.log, _LINES) if line.strip()]

    def adopt(self, record: ProcessRecord) -> None:
        """Take over a process that an earlier supervisor started."""
        self._running = Running(record.handle)
        self.since = record.since
        self._ours = False
        self._ever_ready = True

    async def run(self) -> None:
        """Start the program unless it was adopted, and keep it running until `stop` is called."""
        pauses = BackOff(_BACKOFF_FIRST, _BACKOFF_MAX, steady=_STEADY)
        while not self._stopping:
            started = time.monotonic()
            if self._running is None:
                try:
                    self._start()
                except OSError as exc:
                    self._died(f"can't be started: {exc.strerror or exc}")
                    await self._pause(pauses.next())
                    continue
            words = await self._watch()
            self._running = None
            self.ready.clear()
            if self._stopping:
                break
            pauses.ran(time.monotonic() - started)
            delay = pauses.next()
            self._died(words, delay)
            await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        """Wait before the next start until `try_again` or for so long."""
        self._no_pause.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._no_pause.wait(), seconds)

    def try_again(self) -> None:
        """Start the program at once if it is waiting for its next start."""
        self._no_pause.set()

    def _died(self, words: str, delay: float = 0.0) -> None:
        self.restarts += 1
        self._files.drop_record(self.program.name)
        self._set(State.BACKOFF, words)
        again = "starting again" if delay < 1 else f"starting again in {delay:.0f} s"
        self._report(f"{self.program.name} stopped ({words}); {again}")
        if self._ever_ready or self.failed.done():
            return
        if self.program.explain and (sentence := self.program.explain(self._lines_of_this_start())):
            self.failed.set_result(Unavailable(sentence))
        elif self.restarts >= 3:
            self.failed.set_result(words)

    def _report(self, sentence: str) -> None:
        if self._ever_ready or not self.failed.done():  # what has failed ends the start, which says so
            self._say(sentence)

    def _lines_of_this_start(self) -> list[str]:
        lines = self.last_lines()
        starts = [number for number, line in enumerate(lines) if line.startswith(_START_LINE)]
        return lines[starts[-1] + 1 :] if starts else lines

    def _start(self) -> None:
        program = self.program
        stamp = datetime.now(UTC).isoformat(timespec="seconds")
        append(self.log, f"{_START_LINE}{stamp} starting {program.name}\n")
        environment = {**self._base, **program.environment}
        self._running = spawn(program.argv, environment, program.cwd, self.log, stdin=program.stdin)
        handle = self._running.handle
        self._ours = True
        self.since = time.time()
        self._unrecorded = ProcessRecord(
            handle.pid, handle.start_time, program.fingerprint, self.since, self._files.mark
        )
        self._record()
        self._set(State.STARTING)

    def _record(self) -> None:
        """Write the record unless it is written already; repeated with each probe, as the disk may be full."""
        if self._unrecorded is not None:
            with contextlib.suppress(OSError):
                self._files.write_record(self.program.name, self._unrecorded)
                self._unrecorded = None

    async def _watch(self) -> str:
        """Wait until the process has ended, and end it if it no longer answers; return how it ended, in words."""
        running = self._running
        assert running is not None
        health = asyncio.ensure_future(self._check_health(running.pid))
        either: set[asyncio.Future[Any]] = {running.exited, health}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if running.exited.done():
                return exit_words(running.exited.result())
            trouble = health.result()
            self._report(f"{self.program.name} does not answer ({trouble}); stopping it")
            # a process that hangs doesn't handle SIGTERM
            first = signal.SIGKILL if self._hung else signal.SIGTERM
            await running.stop(self.program.grace, first, patience=_KILLED)
            return trouble
        finally:
            await cancel(health)
            running.release()

    async def _check_health(self, pid: int) -> str:
        """Probe the process until it has been unhealthy for too long; return what is wrong, in words."""
        well = time.monotonic()
        began = well
        self._hung = False
        judge = HangJudge(pid, spinning=True)
        while True:
            coming_up = self.program.ready if self.program.ready and not self.ready.is_set() else self.program.probe
            try:
                trouble = await coming_up.check()
            except LLMOSError as exc:
                if not self.failed.done():
                    self.failed.set_result(exc)
                return exc.message
            now = time.monotonic()
            self._record()
            if not isinstance(trouble, Silence):
                judge.answered()
            elif (self.ready.is_set() or not self._ours) and (hung := await asyncio.to_thread(judge.silent)):
                self._hung = True
                return hung
            if trouble is None:
                well = now
                if self.state is not State.READY:
                    await self._became_ready(now - began)
            else:
                if self.state is State.READY:
                    self._set(State.UNHEALTHY, trouble)
                elif self.state is State.WAITING:
                    self._set(State.STARTING, trouble)
                limit = self.program.patience if self.ready.is_set() else self.program.start_timeout
                if now - well > limit:
                    return f"{trouble} for {now - well:.0f} s"
            await asyncio.sleep(_PROBE if self.state is State.READY else _PROBE_START if now - began < 20 else 1.0)

    async def _became_ready(self, took: float) -> None:
        again = self._ever_ready and self.restarts > 0 and not self.ready.is_set()
        self._ever_ready = True
        self._set(State.READY)
        self.ready.set()
        if again:
            self._say(f"{self.program.name} is back after {took:.1f} s")
            await self._restarted(self.program.name)

    def _set(self, state: State, reason: str = "") -> None:
        self.state = state
        self.reason = reason
        self._changed()

    async def stop(self) -> None:
        """Stop the program and don't restart it; with SIGKILL if it doesn't end within its grace period."""
        self._stopping = True
        running = self._running
        if running is None:
            self._set(State.STOPPED)
            return
        self._set(State.STOPPING)
        await running.stop(self.program.grace, self.program.end_signal, patience=_KILLED)
        self._files.drop_record(self.program.name)
        self._set(State.STOPPED)
