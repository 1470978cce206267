"""Handles on processes that may not be children of this one and may outlive it.

A pid alone doesn't identify a process, since it is reused. A process is identified by its pid and its start time
(field 22 of ``/proc/PID/stat``, in clock ticks since boot, proc(5)), and signalled through a pidfd
(pidfd_open(2)), so that a signal never reaches another process that got the same pid later.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass

from llmos import proc

__all__ = ["ProcessHandle", "end_all", "processes_by_environment", "processes_with_environment"]


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
        fields = proc.stat(pid)
        return cls(pid, int(fields[19])) if fields else None

    @property
    def alive(self) -> bool:
        """True while it runs; a zombie doesn't."""
        return proc.start_time(self.pid) == self.start_time

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return max(0.0, proc.uptime() - self.start_time / os.sysconf("SC_CLK_TCK"))

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
        now = ProcessHandle.of(self.pid)
        if now is not None and now != self:
            return False
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def wait_blocking(self, timeout: float) -> bool:
        """Wait until it is gone; return False if it still runs after `timeout` seconds.

        This works for processes that are not children of this one. A child is reaped.
        """
        fd = self._open()
        if fd is not None:
            try:
                ends = select.poll()
                ends.register(fd, select.POLLIN)
                if not ends.poll(timeout * 1000):
                    return False
            finally:
                os.close(fd)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return True


def end_all(handles: Iterable[ProcessHandle], number: signal.Signals, patience: float) -> None:
    """Send a signal to each process, and wait until all are gone, `patience` seconds at most."""
    deadline = time.monotonic() + patience
    for handle in [handle for handle in handles if handle.send(number)]:
        handle.wait_blocking(max(0.0, deadline - time.monotonic()))


def processes_by_environment(name: str, prefix: str = "") -> dict[str, list[ProcessHandle]]:
    """Return all processes whose initial environment has this variable with a value that begins with `prefix`.

    They are returned by that value, without this process and without those of other accounts. It takes long enough for
    a thread of its own.
    """
    found: dict[str, list[ProcessHandle]] = {}
    for pid in proc.pids():
        value = proc.environment_value(pid, name)
        if value is None or not value.startswith(prefix) or pid == os.getpid():
            continue
        if (handle := ProcessHandle.of(pid)) is not None and handle.alive:
            found.setdefault(value, []).append(handle)
    return found


def processes_with_environment(name: str, value: str) -> list[ProcessHandle]:
    """Return all processes whose initial environment has ``name=value``, as `processes_by_environment`."""
    return processes_by_environment(name, value).get(value, [])
