"""Handles on processes that may not be children of this one and may outlive it.

A pid alone doesn't identify a process, since it is reused. A process is identified by its pid and its start time
(field 22 of ``/proc/PID/stat``, in clock ticks since boot, proc(5)), and signalled through a pidfd
(pidfd_open(2)), so that a signal never reaches another process that got the same pid later.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ProcessHandle", "memory_of_group", "processes_with_environment", "share_one_heap"]

_PAGE = os.sysconf("SC_PAGE_SIZE")
_M_ARENA_MAX = -8
"""The constant of malloc.h."""


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` after the command's name, from field 3 (state) on."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


@dataclass(frozen=True, slots=True)
class ProcessHandle:
    """A handle on one process, for as long as it lives.

    Attributes
    ----------
    pid
        Its process id.
    start_time
        Its start time, in clock ticks since boot.
    """

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> ProcessHandle | None:
        """Return the handle of the process that has this pid now; None if there is no such process."""
        fields = _stat(pid)
        return cls(pid, int(fields[19])) if fields else None

    @property
    def alive(self) -> bool:
        """True while it runs; a zombie doesn't."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.start_time and fields[0] not in "ZX"

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
        return max(0.0, uptime - self.start_time / os.sysconf("SC_CLK_TCK"))

    def _open(self) -> int | None:
        """Return a pidfd of this process; None if it is gone."""
        try:
            fd = os.pidfd_open(self.pid)
        except OSError:
            return None
        if self.alive:
            return fd
        os.close(fd)
        return None

    def send(self, number: signal.Signals) -> bool:
        """Send a signal to the process alone; return False if it is gone."""
        fd = self._open()
        if fd is None:
            return False
        try:
            signal.pidfd_send_signal(fd, number)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def signal_group(self, number: signal.Signals) -> bool:
        """Send a signal to the process group that the process leads; return False if nothing is left of it.

        A group outlives its leader while it has members, and its id is not reused until then; so the group is also
        signalled if the leader is gone.
        """
        fields = _stat(self.pid)
        if fields is not None and int(fields[19]) != self.start_time:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is gone; return False if it still runs after `timeout` seconds.

        This works for processes that are not children of this one. A child is reaped.
        """
        fd = self._open()
        if fd is None:
            self._reap()
            return True
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        loop.add_reader(fd, gone.set)
        try:
            await asyncio.wait_for(gone.wait(), timeout)
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        self._reap()
        return True

    def wait_blocking(self, timeout: float) -> bool:
        """As `wait`, for programs without an event loop."""
        fd = self._open()
        if fd is None:
            self._reap()
            return True
        try:
            ready, _, _ = select.select([fd], [], [], timeout)
        finally:
            os.close(fd)
        if ready:
            self._reap()
        return bool(ready)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError, OSError):
            os.waitpid(self.pid, os.WNOHANG)

    async def stop_group(self, grace: float = 10.0, first: signal.Signals = signal.SIGTERM) -> None:
        """End the process and its group: send `first`, and after `grace` seconds SIGKILL to what is left."""
        self.signal_group(first)
        await self.wait(grace)
        if self.signal_group(signal.SIGKILL):
            await self.wait(5.0)


def memory_of_group(leader: int) -> int:
    """Return the resident bytes of all processes in the session that `leader` leads."""
    total = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        fields = _stat(int(entry.name))
        if fields and (int(entry.name) == leader or int(fields[3]) == leader):
            total += int(fields[21]) * _PAGE
    return total


def processes_with_environment(name: str, value: str) -> list[ProcessHandle]:
    """Return all processes of this user whose initial environment has ``name=value``, except this one."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environment = Path(f"/proc/{entry.name}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in environment and (handle := ProcessHandle.of(int(entry.name))):
            found.append(handle)
    return found


def share_one_heap() -> None:
    """Let all threads of this process share one heap; to be called before any are started.

    glibc gives each thread its own heap (mallopt(3), M_ARENA_MAX), and memory freed in the heap of an executor's thread
    is not used by others: after a thousand changed services the controllers used a quarter more memory. Threads that
    rarely allocate at the same time gain nothing from separate heaps. Without glibc, nothing happens.
    """
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
