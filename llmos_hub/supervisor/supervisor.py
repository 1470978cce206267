"""The supervisor of a workstation's processes: starts, watches, adopts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any

from llmos import proc
from llmos.errors import BackendFailed, LLMOSError
from llmos.proxies import LOOPBACK_HOSTS, with_no_proxy
from llmos.python.variables import without_tool_settings
from llmos_hub.names import ENV_INSTANCE
from llmos_hub.processes.handle import ProcessHandle, end_all, processes_with_environment
from llmos_hub.processes.http import http_request
from llmos_hub.processes.logs import rotate_all
from llmos_hub.processes.running import Running
from llmos_hub.supervisor.child import Child, State
from llmos_hub.supervisor.console import Console, tilde
from llmos_hub.supervisor.disk import DiskGuard
from llmos_hub.supervisor.plan import Program
from llmos_hub.supervisor.state import ProcessRecord, StateFiles
from llmos_hub.tasks import cancel

__all__ = ["Supervisor", "adoptable", "base_environment", "stop_recorded", "sweep"]

_GRACE = 40.0  # seconds for a process of an earlier supervisor to end, as the longest of `Program.grace`
_PATIENCE = 5.0  # seconds for any other to end, or for one to be gone after SIGKILL
_SHOWN = 5  # last lines of a log in a message
_ROTATE = 30.0  # seconds between two checks of the sizes of the logs
_LOG_BYTES = 20 * 1024 * 1024  # at which a log is rotated: a few days of a busy gateway
_LOGS_KEPT = 3  # older logs beside the current one
# The plan sets these for each program; the values in the environment of `llmos up` may be meant for something else.
_NOT_INHERITED = ("JUPYTERHUB_", "CONFIGPROXY_", "LLMOS_", "JPY_")
_SETTINGS = (
    "LLMOS_GATEWAY_ALLOWED_ORIGINS",
    "LLMOS_MODELS_MIRROR",
    "LLMOS_SETTING_",
)  # except what is meant for the parts


def base_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for all programs: `environ` without variables that may be meant for others.

    These are variables of LLMOS, except settings of its parts, and of JupyterHub, Python and Node.
    Loopback addresses are added to ``NO_PROXY``, as the parts must not reach each other through a web proxy.
    """
    passed = without_tool_settings(environ)
    kept = {
        key: value for key, value in passed.items() if key.startswith(_SETTINGS) or not key.startswith(_NOT_INHERITED)
    }
    return with_no_proxy(kept, LOOPBACK_HOSTS)


def adoptable(programs: Sequence[Program], records: Mapping[str, ProcessRecord]) -> dict[str, ProcessRecord]:
    """Return the recorded processes whose command and environment are the planned ones."""
    planned = {program.name: program.fingerprint for program in programs}
    return {name: record for name, record in records.items() if record.fingerprint == planned.get(name)}


async def stop_recorded(
    records: Mapping[str, ProcessRecord], order: Sequence[str], signals: Mapping[str, signal.Signals]
) -> None:
    """Stop processes of an earlier supervisor in reverse order, with SIGTERM unless `signals` has another signal."""
    known = [name for name in reversed(order) if name in records]
    for name in [*(name for name in records if name not in order), *known]:
        handle = records[name].handle
        await Running(handle).stop(_GRACE, signals.get(name, signal.SIGTERM), patience=_PATIENCE)
        handle.signal_group(signal.SIGKILL)  # to what is left of its group


async def sweep(instance: str) -> int:
    """End all processes that carry the platform's mark, such as servers and models; return their number."""
    left = await asyncio.to_thread(_marked, instance)
    total = len(left)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if left:
            await asyncio.to_thread(end_all, left, number, _PATIENCE)
            left = await asyncio.to_thread(_marked, instance)  # again, for processes started meanwhile
    return total


def _marked(instance: str) -> list[ProcessHandle]:
    """Return the processes with the platform's mark, without the ancestors of this one.

    ``llmos down`` may be typed in a terminal of a notebook server, which carries the mark.
    """
    ancestors, pid = set(), os.getpid()
    while pid > 1:
        ancestors.add(pid)
        pid = int((proc.stat(pid) or ["", "0"])[1])
    return [handle for handle in processes_with_environment(ENV_INSTANCE, instance) if handle.pid not in ancestors]


class Supervisor:
    """A set of programs that run until it is told to stop.

    Parameters
    ----------
    programs
        The programs in the order of their start.
    files
        The state files.
    console
        The console for messages.
    about
        Further contents of the status file, such as addresses.
    refresh_routes
        URL and headers of a request to the Hub after a restart of the proxy.
    valkey_url
        The embedded Valkey, which refuses writes while the disk is nearly full; empty if there is none.
    """

    def __init__(
        self,
        programs: Sequence[Program],
        files: StateFiles,
        console: Console,
        *,
        about: Mapping[str, Any],
        refresh_routes: tuple[str, Mapping[str, str]],
        valkey_url: str,
    ) -> None:
        self._files = files
        self._console = console
        self._instance = files.mark
        self._about = about
        self._refresh_routes = refresh_routes
        self._began = time.time()
        self.stop_requested = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        environment = base_environment(os.environ)
        self.children = [
            Child(
                program,
                files,
                base_environment=environment,
                say=self._say,
                changed=self._changed,
                restarted=self._child_restarted,
            )
            for program in programs
        ]
        self._quiet = False
        self._stopping = False
        self._announced = False
        self._guard = DiskGuard(files.data_dir.root, valkey_url, self._say, self._try_again)

    def announced(self) -> None:
        """Note in the status that the platform is ready and its address has been printed."""
        self._announced = True
        self._changed()

    def _try_again(self) -> None:
        """Start what could not be started while the disk was full."""
        for child in self.children:
            child.try_again()

    def _terminal_closed(self) -> None:
        """Continue without the terminal, as users and models depend on the platform."""
        self._say("the terminal was closed; LLMOS continues to run. Stop it: llmos down")

    async def start(self, adopted: Mapping[str, ProcessRecord]) -> None:
        """Start the programs that don't run yet; return when all are ready or a stop is requested.

        Programs start concurrently, except those that have to wait for others (`Program.after`).

        Raises
        ------
        LLMOSError
            A program doesn't start; the message has the reason or the last lines of its log.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop_requested.set)
        loop.add_signal_handler(signal.SIGHUP, self._terminal_closed)
        by_name = {child.program.name: child for child in self.children}
        for name, record in adopted.items():
            by_name[name].adopt(record)
        self._changed()
        self._tasks = [
            asyncio.create_task(self._run(child, [by_name[name] for name in child.program.after]))
            for child in self.children
        ]
        self._tasks += [asyncio.create_task(self._rotate()), asyncio.create_task(self._guard.run())]
        everything = asyncio.gather(*(child.ready.wait() for child in self.children))
        stopped = asyncio.ensure_future(self.stop_requested.wait())
        failures = [child.failed for child in self.children]
        try:
            waited: set[asyncio.Future[Any]] = {everything, stopped, *failures}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(everything, stopped)
        for child in self.children:
            if child.failed.done() and not self.stop_requested.is_set():
                raise self._why(child)

    @staticmethod
    def _why(child: Child) -> LLMOSError:
        why = child.failed.result()
        if isinstance(why, LLMOSError):
            return why
        lines = "".join(f"\n    {line[:200]}" for line in child.last_lines()[-_SHOWN:])
        name = child.program.name
        return BackendFailed(f"{name} does not start ({why}). The end of {tilde(child.log)}:{lines}")

    @staticmethod
    async def _run(child: Child, after: Sequence[Child]) -> None:
        for other in after:
            await other.ready.wait()
        await child.run()

    async def stop(self) -> None:
        """Stop all programs in the reverse order of their start, then all other processes with the platform's mark."""
        self._quiet = True
        self._stopping = True
        self._changed()
        for child in reversed(self.children):
            await child.stop()
        await cancel(*self._tasks)
        await sweep(self._instance)
        with contextlib.suppress(OSError):
            # still "stopping", as this process has the lock until it ends
            self._files.write_status({**self._about, "supervisor": None, "processes": {}, "stopping": True})

    async def _rotate(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE)
            await asyncio.to_thread(rotate_all, self._files.data_dir.logs, max_bytes=_LOG_BYTES, keep=_LOGS_KEPT)

    async def _child_restarted(self, name: str) -> None:
        """Make the Hub set the routes of a restarted proxy, which it would only check after five minutes."""
        if name != "proxy":
            return
        url, headers = self._refresh_routes
        # a Hub that doesn't answer is starting, and will set all routes itself
        with contextlib.suppress(OSError):
            await http_request(url, method="POST", headers=headers, timeout=10.0)

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._console.event(text)

    def _changed(self) -> None:
        own = ProcessHandle.of(os.getpid())
        assert own is not None
        processes = {
            child.program.name: {
                "state": str(child.state),
                "reason": child.reason,
                "pid": child.handle.pid if child.handle and child.state is not State.STOPPED else None,
                "start_time": child.handle.start_time if child.handle else None,
                "since": child.since,
                "restarts": child.restarts,
                "log": str(child.log),
            }
            for child in self.children
        }
        supervisor = {"pid": own.pid, "start_time": own.start_time, "since": self._began}
        # a full disk must not stop what runs
        with contextlib.suppress(OSError):
            self._files.write_status(
                {
                    **self._about,
                    "instance": self._instance,
                    "supervisor": supervisor,
                    "announced": self._announced,
                    "stopping": self._stopping,
                    "processes": processes,
                }
            )
