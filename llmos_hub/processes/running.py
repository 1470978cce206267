"""A running process that is watched until its end, whether or not it is a child of this one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from llmos import proc
from llmos_hub.processes.handle import ProcessHandle, end_all

__all__ = ["Exit", "Running", "kill_leftovers", "noted_exit"]


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process; without code and signal if it isn't known, as that of another one's child.

    Attributes
    ----------
    code
        The exit status.
    signal
        The number of the signal that killed it.
    """

    code: int | None = None
    signal: int | None = None

    @classmethod
    def from_return_code(cls, code: int) -> Exit:
        """Return the end for a return code of `subprocess`, which is negative for a signal."""
        return cls(signal=-code) if code < 0 else cls(code=code)

    @classmethod
    def from_shell(cls, code: int) -> Exit:
        """Return the end for a shell's ``$?``, which is over 128 for a signal."""
        return cls(signal=code - 128) if 128 < code <= 128 + signal.NSIG else cls(code=code)

    @property
    def number(self) -> int | None:
        """One number for both, as in shells and Kubernetes: 137 for SIGKILL."""
        return 128 + self.signal if self.signal is not None else self.code


def noted_exit(note: Path) -> Exit | None:
    """Return the end that a process noted in a file (see `spawn`); None if it noted nothing."""
    try:
        # the directory may be the process's own: neither follow a link nor wait for a pipe
        fd = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="ascii") as file:  # noqa: PTH123 - by descriptor
            return Exit.from_shell(int(file.read(16)))
    except (OSError, ValueError):
        return None


class Running:
    """A process in its own session that was started by this process or an earlier one.

    Parameters
    ----------
    handle
        Its handle.
    mark
        Name and value of a variable in its environment and that of its children, by which `sweep` finds them.
    note_exit
        The file in which it notes its exit code.

    Attributes
    ----------
    exited
        Done when it has ended. Wait for it with `asyncio.shield` or `asyncio.wait`: it is shared.
    """

    def __init__(
        self, handle: ProcessHandle, *, mark: tuple[str, str] | None = None, note_exit: Path | None = None
    ) -> None:
        self.handle = handle
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._mark = mark
        self._note_exit = note_exit
        self._fd: int | None = None
        with contextlib.suppress(ProcessLookupError):
            self._fd = os.pidfd_open(handle.pid)
        if self._fd is None or not handle.alive:
            self._set_exit()
        else:
            asyncio.get_running_loop().add_reader(self._fd, self._set_exit)

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group and session."""
        return self.handle.pid

    def _set_exit(self) -> None:
        self._stop_watching()
        if not self.exited.done():
            self.exited.set_result(self._how())

    def _how(self) -> Exit:
        found = Exit()
        with contextlib.suppress(ChildProcessError):
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                found = Exit.from_return_code(os.waitstatus_to_exitcode(status))
        return noted_exit(self._note_exit) or found if self._note_exit else found

    def _stop_watching(self) -> None:
        if self._fd is not None:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = None

    def kill(self) -> None:
        """Kill it and its group."""
        self.handle.signal_group(signal.SIGKILL)

    async def stop(
        self, grace: float, first: signal.Signals = signal.SIGTERM, *, patience: float | None = None
    ) -> None:
        """End it and its group, and wait until it is gone.

        Parameters
        ----------
        grace
            Seconds after which SIGKILL is sent.
        first
            The signal that is sent first.
        patience
            Seconds to wait for it to be gone after SIGKILL; None: without a limit.
        """
        for number, timeout in ((first, grace), (signal.SIGKILL, patience)):
            if not self.exited.done():
                self.handle.signal_group(number)
                await asyncio.wait([self.exited], timeout=timeout)

    async def sweep(self) -> None:
        """Kill the processes that it left behind."""
        await asyncio.to_thread(kill_leftovers, self.pid, self._mark)

    def release(self) -> None:
        """Stop watching it; it continues to run."""
        self._stop_watching()
        self.exited.cancel()


def kill_leftovers(leader: int, mark: tuple[str, str] | None) -> None:
    """Kill the processes of a session whose leader is gone, and those that left it but have its mark.

    It returns when they are gone, which takes a moment after SIGKILL.
    """
    left = [
        pid
        for pid in proc.pids()
        if proc.session(pid) == leader or (mark and proc.environment_value(pid, mark[0]) == mark[1])
    ]
    end_all([handle for handle in map(ProcessHandle.of, left) if handle is not None], signal.SIGKILL, 5.0)
