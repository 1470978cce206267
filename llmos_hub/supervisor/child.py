"""One supervised process: started or adopted, watched, restarted when it ends or no longer answers, stopped.

A child has its own session and writes its output to a file, so that it survives the supervisor and the next supervisor
can adopt it. Everything that this needs is in the child's record.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from llmos.errors import LLMOSError, Unavailable
from llmos_hub.hanging import HangJudge
from llmos_hub.processes import ProcessHandle
from llmos_hub.supervisor.plan import Program
from llmos_hub.supervisor.probes import Silence
from llmos_hub.supervisor.state import Record, StateFiles

__all__ = ["Child", "State", "exit_words", "last_lines"]

_PROBE_START = 0.05  # seconds between two probes while a process starts
_PROBE = 5.0  # seconds between two probes once it is ready
_BACKOFF_FIRST = 0.1  # seconds before the first restart; doubles with each further one
_BACKOFF_MAX = 30.0
_STEADY = 60.0  # seconds of running after which the back-off is reset
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


def exit_words(status: int | None) -> str:
    """Return in words how a process ended; `status` is that of ``waitpid``, None if it wasn't our child."""
    if status is None:
        return "ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"killed by signal {number}"
    return f"exit status {os.waitstatus_to_exitcode(status)}"


def last_lines(path: Path, count: int = 5) -> list[str]:
    """Return the last non-empty lines of a log."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()][-count:]


def _input(text: str) -> int:
    """Return a descriptor for a process's standard input that contains `text`."""
    if not text:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    # in memory, not in a file, as the text may contain a password
    fd = os.memfd_create("stdin")
    os.write(fd, text.encode())
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


@dataclass
class _Watch:
    """A wait for the end of a process through a pidfd, which also works if it isn't our child."""

    handle: ProcessHandle
    child: bool

    async def ended(self) -> int | None:
        """Wait until the process has ended; return its ``waitpid`` status, None if it wasn't our child."""
        try:
            fd = os.pidfd_open(self.handle.pid)
        except OSError:
            return self._status()
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(fd, gone.set)
        try:
            if self.handle.alive or self.child:
                await gone.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return self._status()

    def _status(self) -> int | None:
        if not self.child:
            return None
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.handle.pid, os.WNOHANG)
            return status if pid else None
        return None


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
        self.handle: ProcessHandle | None = None
        self.ready = asyncio.Event()
        self.failed: asyncio.Future[str | LLMOSError] = asyncio.get_running_loop().create_future()
        self._files = files
        self._base = base_environment
        self._say = say
        self._changed = changed
        self._restarted = restarted
        self._ours = False
        self._stopping = False
        self._ever_ready = False
        self._unrecorded: Record | None = None
        self._hung = False

    @property
    def log(self) -> Path:
        """The path of its log."""
        return self._files.data_dir.logs / f"{self.program.name}.log"

    def adopt(self, record: Record) -> None:
        """Take over a process that an earlier supervisor started."""
        self.handle = record.handle
        self.since = record.since
        self._ours = False
        self._ever_ready = True

    async def run(self) -> None:
        """Start the program unless it was adopted, and keep it running until `stop` is called."""
        delay = _BACKOFF_FIRST
        while not self._stopping:
            started = time.monotonic()
            if self.handle is None:
                try:
                    self._start()
                except OSError as exc:
                    self._died(f"can't be started: {exc.strerror or exc}")
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _BACKOFF_MAX)
                    continue
            words = await self._watch()
            self.handle = None
            self.ready.clear()
            if self._stopping:
                break
            if time.monotonic() - started > _STEADY:
                delay = _BACKOFF_FIRST
            self._died(words, delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, _BACKOFF_MAX)

    def _died(self, words: str, delay: float = 0.0) -> None:
        self.restarts += 1
        self._files.drop_record(self.program.name)
        self._set(State.BACKOFF, words)
        again = "starting again" if delay < 1 else f"starting again in {delay:.0f} s"
        self._say(f"{self.program.name} stopped ({words}); {again}")
        if self._ever_ready or self.failed.done():
            return
        if self.program.explain and (sentence := self.program.explain(self._lines_of_this_start())):
            self.failed.set_result(Unavailable(sentence))
        elif self.restarts >= 3:
            self.failed.set_result(words)

    def _lines_of_this_start(self) -> list[str]:
        lines = last_lines(self.log, 50)
        starts = [number for number, line in enumerate(lines) if line.startswith(_START_LINE)]
        return lines[starts[-1] + 1 :] if starts else lines

    def _start(self) -> None:
        environment = {**self._base, **self.program.environment}
        fd = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        stdin = _input(self.program.stdin)
        try:
            stamp = datetime.now(UTC).isoformat(timespec="seconds")
            with contextlib.suppress(OSError):  # start it also on a full disk
                os.write(fd, f"{_START_LINE}{stamp} starting {self.program.name}\n".encode())
            process = subprocess.Popen(
                self.program.argv,
                env=environment,
                cwd=self.program.cwd,
                stdin=stdin,
                stdout=fd,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            os.close(fd)
            os.close(stdin)
        # the process is watched through a pidfd; makes Popen neither wait for it nor warn that it still runs
        process.returncode = 0
        handle = ProcessHandle.of(process.pid)
        assert handle is not None
        self.handle = handle
        self._ours = True
        self.since = time.time()
        self._unrecorded = Record(handle.pid, handle.start_time, self.program.fingerprint, self.since, self._files.mark)
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
        assert self.handle is not None
        handle = self.handle
        ended = asyncio.ensure_future(_Watch(handle, self._ours).ended())
        health = asyncio.ensure_future(self._check_health())
        try:
            await asyncio.wait({ended, health}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                trouble = health.result()
                self._say(f"{self.program.name} does not answer ({trouble}); stopping it")
                # a process that hangs doesn't handle SIGTERM
                await self._end(handle, ended, signal.SIGKILL if self._hung else signal.SIGTERM)
                return trouble
            return exit_words(ended.result())
        finally:
            for task in (ended, health):
                task.cancel()
            await asyncio.gather(ended, health, return_exceptions=True)

    async def _end(
        self, handle: ProcessHandle, ended: asyncio.Future[int | None], number: signal.Signals = signal.SIGTERM
    ) -> None:
        handle.signal_group(number)
        done, _ = await asyncio.wait({ended}, timeout=self.program.grace)
        if not done:
            handle.signal_group(signal.SIGKILL)
            await asyncio.wait({ended}, timeout=10.0)

    async def _check_health(self) -> str:
        """Probe the process until it has been unhealthy for too long; return what is wrong, in words."""
        well = time.monotonic()
        began = well
        self._hung = False
        assert self.handle is not None
        judge = HangJudge(self.handle.pid, spinning=True)
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
        handle = self.handle
        if handle is None:
            self._set(State.STOPPED)
            return
        self._set(State.STOPPING)
        ended = asyncio.ensure_future(_Watch(handle, child=False).ended())
        try:
            await self._end(handle, ended, self.program.end_signal)
        finally:
            ended.cancel()
            await asyncio.gather(ended, return_exceptions=True)
        self._files.drop_record(self.program.name)
        self._set(State.STOPPED)
