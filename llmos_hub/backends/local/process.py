"""One process of a replica: starting, finding, watching and ending it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from llmos_hub.backends.local.failures import Exit
from llmos_hub.backends.local.users import User
from llmos_hub.names import ENV_INSTANCE
from llmos_hub.processes import ProcessHandle

__all__ = [
    "ENV_REPLICA",
    "Running",
    "base_environment",
    "find_program",
    "free_port",
    "is_free",
    "kill_leftovers",
    "marked_processes",
    "noted_exit",
    "spawn",
]

ENV_REPLICA: Final = "LLMOS_REPLICA"
"""Variable that marks a replica's processes, so that one that was started but not recorded can be found."""

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", ENV_INSTANCE)

# Records a job's exit code for a controller that wasn't running when it ended. The shell ignores a SIGTERM to the
# group, which the job gets too, and exits as the job does.
_NOTE_EXIT = (
    'out=$1; shift; trap : TERM INT; "$@"; code=$?; trap - TERM INT; '
    'echo $code >"$out.new" && mv "$out.new" "$out"; exit $code'
)


def base_environment() -> dict[str, str]:
    """Return the few variables of this process that every replica gets."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def free_port() -> int:
    """Return a loopback port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Return whether a server could listen on a loopback port at the moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of a server that ended linger
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_program(program: str, environment: Mapping[str, str], directory: Path) -> str | None:
    """Return why the program can't be run, as the end of a sentence; None if it can."""
    if "/" not in program:
        path = environment.get("PATH", os.defpath)
        return None if shutil.which(program, path=path) else f"is not in PATH ({path})"
    file = directory / program
    if not file.exists():
        return "does not exist"
    return None if os.access(file, os.X_OK) and file.is_file() else "may not be executed"


def spawn(
    argv: Sequence[str],
    environment: Mapping[str, str],
    *,
    directory: Path,
    log: Path,
    note_exit: Path | None,
    user: User | None = None,
) -> Running:
    """Start a process that leads its own session and writes to `log`.

    Parameters
    ----------
    note_exit
        A file to which its exit code is written; None: no file.
    user
        The user that it runs as; None: that of this process.

    Raises
    ------
    OSError
        It can't be started.
    """
    command = list(argv)
    if note_exit is not None:
        note_exit.unlink(missing_ok=True)
        command = ["/bin/sh", "-c", _NOTE_EXIT, "llmos-job", str(note_exit), *command]
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=dict(environment),
            start_new_session=True,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
        )
    finally:
        os.close(output)
    handle = ProcessHandle.of(child.pid)
    assert handle is not None, "a child stays, if as a zombie, until it is waited for"
    try:
        return Running(handle, child=child, note_exit=note_exit, marker=environment[ENV_REPLICA])
    except OSError:
        child.kill()
        child.wait()
        raise


def noted_exit(note: Path) -> Exit | None:
    """Return the recorded end of a job; None if nothing was recorded."""
    try:
        # the directory may be the process's own: neither follow a link nor wait for a pipe
        fd = os.open(note, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, encoding="ascii") as file:  # noqa: PTH123 - by descriptor
            return Exit.from_shell(int(file.read(16)))
    except (OSError, ValueError):
        return None


class Running:
    """A process that was started by this controller or an earlier one.

    Parameters
    ----------
    handle
        Its handle.
    marker
        The value of ``LLMOS_REPLICA`` in its environment and that of its children.
    child
        The child process, if it is one of this process.
    note_exit
        The file to which its exit code is written, if it is a job.

    Attributes
    ----------
    exited
        Done when it has ended. Wait for it with `asyncio.shield` or `asyncio.wait`: it is shared.
    """

    def __init__(
        self,
        handle: ProcessHandle,
        *,
        marker: str,
        child: subprocess.Popen[bytes] | None = None,
        note_exit: Path | None = None,
    ) -> None:
        self.handle = handle
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._marker = marker
        self._child = child
        self._note_exit = note_exit
        self._fd: int | None = None
        try:
            self._fd = os.pidfd_open(handle.pid)
        except ProcessLookupError:
            self._set_exit()
            return
        if child is None and not handle.alive:
            self._set_exit()
            return
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
        if self._child is not None:
            found = Exit.from_return_code(self._child.wait())
        else:
            # It may be a child of this process that an earlier backend object started.
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

    async def stop(self, grace: float) -> Exit:
        """Send SIGTERM to its group, SIGKILL after `grace` seconds, and wait until it is gone, without a timeout."""
        if not self.exited.done():
            self.handle.signal_group(signal.SIGTERM)
            await asyncio.wait([self.exited], timeout=grace)
        if not self.exited.done():
            self.kill()
        ending = await asyncio.shield(self.exited)
        await self.sweep()
        return ending

    async def sweep(self) -> None:
        """Kill the processes that it left behind."""
        await asyncio.to_thread(kill_leftovers, self.pid, self._marker)

    def release(self) -> None:
        """Stop watching it; it continues to run."""
        self._stop_watching()
        self.exited.cancel()
        if self._child is not None and self._child.returncode is None:
            self._child.returncode = 0  # otherwise Popen warns that it is still running, which is intended
            self._child = None


def _environment_value(pid: str, name: bytes) -> str | None:
    try:
        environment = Path("/proc", pid, "environ").read_bytes()
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(name):
            return entry[len(name) :].decode(errors="replace")
    return None


def marked_processes(prefix: str) -> dict[str, list[ProcessHandle]]:
    """Return processes whose ``LLMOS_REPLICA`` begins with `prefix`, by its value. This is slow: use a thread."""
    found: dict[str, list[ProcessHandle]] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        value = _environment_value(entry.name, f"{ENV_REPLICA}=".encode())
        handle = ProcessHandle.of(int(entry.name)) if value is not None and value.startswith(prefix) else None
        if value is not None and handle is not None and handle.alive:
            found.setdefault(value, []).append(handle)
    return found


def kill_leftovers(session: int, marker: str) -> None:
    """Kill the processes of a session whose leader is gone, and those that left it but have the marker.

    It returns when they are gone, which takes a moment after SIGKILL.
    """
    killed = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        pid = int(entry.name)
        with contextlib.suppress(OSError):
            if os.getsid(pid) == session or _environment_value(entry.name, f"{ENV_REPLICA}=".encode()) == marker:
                handle = ProcessHandle.of(pid)
                if handle is not None and handle.send(signal.SIGKILL):
                    killed.append(handle)
    for handle in killed:
        handle.wait_blocking(5.0)
