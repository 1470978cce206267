"""A spawner of notebook servers as processes of this machine, all under the platform's own uid.

Each user has a home of their own, but files are not protected from other users: whoever runs code here can read what the
platform's account can read. The console and the README say so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar, Final

from jupyterhub.spawner import LocalProcessSpawner
from tornado import web
from traitlets import Unicode, default

from llmos.names import slug, user_namespace
from llmos.proc import machine_memory, start_time
from llmos.proxies import LOOPBACK_HOSTS, hosts_of, with_no_proxy
from llmos.python.layer import ENV_BASE
from llmos.python.notebook import notebook_environment
from llmos.resources.quantities import format_bytes
from llmos_spawners.base import PlatformSpawner, own_default
from llmos_spawners.environment import chosen_options, mint_invoke_token
from llmos_spawners.processes import listens, processes_of, used_by
from llmos_spawners.profiles.choices import BadOptions, workstation
from llmos_spawners.profiles.form import render_form
from llmos_spawners.refusals import refusal, too_slow
from llmos_spawners.start_phases import Phase, died, last_lines, phase_of, server_log_size

__all__ = ["LLMOSLocalSpawner"]

# Variables of the Hub's environment that servers inherit. Not more, as it contains the Hub's secrets.
_KEEP = (
    *("LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    *("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "HF_ENDPOINT"),
)
_KILLED = 128 + signal.SIGKILL  # the exit status in a shell
_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


_PORTS: Final = 3
"""Number of ports to try. A port is taken between its choice and its use once in thousands of starts."""
_LOOKS: Final = 20
"""Number of checks for the port's owner, which take a second in total: the list of processes may be half a second old,
and the server may have just started the process that listens."""
_TAKEN: Final = (
    "The server didn't start: another program listens on its port {port} (ss -tlnp shows which). Start it again; where the "
    "configuration sets LLMOSLocalSpawner.port, leave that out."
)


async def _is_open(host: str, port: int) -> bool:
    """Return whether something listens on a port."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


class LLMOSLocalSpawner(PlatformSpawner, LocalProcessSpawner):
    """A spawner of local processes with a home, a token for models and the platform's addresses."""

    homes = Unicode(
        "",
        config=True,
        help="The directory of the users' homes, each with mode 0700 and created when its user first starts a server.",
    )
    volumes = Unicode(
        "",
        config=True,
        help="""
        The directory with a directory of links to volumes for each namespace. The user's own is ``~/volumes``, unless
        they have something else of that name; if empty, there is none.
        """,
    )
    logs = Unicode(
        "",
        config=True,
        help="The directory of the servers' logs, each with mode 0600; if empty, servers write to the Hub's log.",
    )
    notebook_environment = Unicode(
        config=True,
        help="""
        Prefix of the Python environment of kernels and terminals, over which each user's own packages take precedence.
        The default is the one that set-up creates beside the platform's own, or the platform's if there is none.
        """,
    )

    popen_kwargs: dict[str, Any]
    port: int
    # messages by user and server, at the class: the Hub discards a spawner when its server has ended
    _endings: ClassVar[dict[tuple[str, str], str]] = {}

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._start_time = 0
        self._log_size = 0
        self._site_port = self.port  # 0: any free port
        self.profiles = workstation(machine_memory().total)

    # Defaults, which a site's configuration can override

    @default("notebook_environment")
    def _default_notebook_environment(self) -> str:
        return str(notebook_environment())

    _default_env_keep = own_default("env_keep", list(_KEEP))
    # with the full path of the interpreter, independent of PATH; -P: don't import modules from the home
    _default_cmd = own_default("cmd", [sys.executable, "-P", "-m", "llmos_spawners.singleuser"])
    # a start takes about two seconds of one core
    _default_concurrent_starts = own_default("concurrent_starts", 2 * (os.cpu_count() or 1))
    # cheap, as it reads a few files of /proc; until the next poll the tokens of a server that died remain valid, and a
    # server over its memory limit continues
    _default_poll_interval = own_default("poll_interval", 2)
    _default_interrupt_timeout = own_default("interrupt_timeout", 5)
    _default_term_timeout = own_default("term_timeout", 5)

    @default("options_form")
    def _default_options_form(self) -> Any:
        return type(self).render_options

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self.profiles.from_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        return type(self).apply_options

    @property
    def home(self) -> Path:
        """The user's home; a name such as ``../x`` can't lead out of the directory of homes."""
        return Path(self.homes) / slug(self.user.name)

    @property
    def log_path(self) -> Path | None:
        """The path of the server's log; None if it is the Hub's."""
        if not self.logs:
            return None
        server = f"--{slug(self.name)}" if self.name else ""
        return Path(self.logs) / f"{slug(self.user.name)}{server}.log"

    def get_args(self) -> list[str]:
        """Return the server's arguments."""
        args = [*super().get_args(), f"--ServerApp.root_dir={self.home}"]
        if os.geteuid() == 0:
            args.append("--allow-root")
        return args

    def user_env(self, env: dict[str, str]) -> dict[str, str]:
        """Return the environment with the user's own variables; the passwd entry is that of the platform's account."""
        env = {
            **env,
            "USER": self.user.name,
            "LOGNAME": self.user.name,
            "HOME": str(self.home),
            "SHELL": "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh",
            "PATH": _SYSTEM_PATH,  # the server prepends the Python of kernels and terminals
            ENV_BASE: self.notebook_environment,
            "JUPYTER_CONFIG_PATH": str(Path(__file__).parent / "jupyter"),  # defaults that users can override
            "LANG": env.get("LANG") or "C.UTF-8",
            **self.platform_environment(),
        }
        platform = hosts_of(self.openai_base_url, self.llmos_url, env.get("JUPYTERHUB_API_URL", ""))
        return with_no_proxy(env, [*LOOPBACK_HOSTS, *platform])

    def make_preexec_fn(self, name: str) -> None:  # noqa: ARG002 - the Hub's signature
        """Return None: all servers share one uid, so there is nothing to change between fork and exec."""
        return

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Return the paths of internal certificates unchanged, as all servers share one uid."""
        return paths

    def render_options(self) -> str:
        """Return the form; empty if there is nothing to choose and no message about the last server."""
        notice = self._endings.get((self.user.name, self.name), "")
        if len(self.profiles.sizes) == 1 and not notice:
            return ""
        return render_form(self.profiles, chosen_options(self), notice=notice)

    def apply_options(self, options: dict[str, Any]) -> None:
        """Apply a start's options from the form or the API.

        Raises
        ------
        HTTPError
            400: an option or a value doesn't exist.
        """
        try:
            size = self.profiles.choose(options).size
        except BadOptions as exc:
            raise web.HTTPError(400, str(exc)) from exc
        self.mem_limit = size.memory

    async def start(self) -> tuple[str, int]:
        """Create the home and the token for models, and start the server.

        Raises
        ------
        HTTPError
            409: the server ended while it was starting (the message has its last lines), or its port is taken.
        """
        try:
            return await self._start()
        finally:
            self.leave_queue()

    async def _start(self) -> tuple[str, int]:
        self._endings.pop((self.user.name, self.name), None)
        deadline = time.monotonic() + max(1, self.start_timeout - 2)  # before the Hub's own time limit
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.home.chmod(0o700)
        self._link_volumes()
        self._token = mint_invoke_token(self)
        tries = 1 if self._site_port else _PORTS
        for _ in range(tries):
            self.port = self._site_port
            self._log_size = server_log_size(self.log_path)
            with self._output() as output:
                self.popen_kwargs = {**self.popen_kwargs, "cwd": str(self.home), "umask": 0o077, **output}
                address: tuple[str, int] = await super().start()
            self._start_time = start_time(self.pid)
            # store the state now: if the Hub is killed from here on, the next one must find the process
            self.orm_spawner.state = self.get_state()
            self.db.commit()
            if await self._listens(*address, deadline):
                return address
            self.log.warning("Port %d was taken by another program before %s had it", self.port, self._log_name)
            await self.stop(now=True)
        raise refusal(_TAKEN.format(port=address[1]), reason="port", status=409)

    def _link_volumes(self) -> None:
        """Make ``~/volumes`` lead to the user's volumes: those that are made later appear there, too."""
        if not self.volumes:
            return
        link, own = self.home / "volumes", Path(self.volumes) / user_namespace(self.user.name)
        with contextlib.suppress(OSError):  # no server should fail for it
            own.mkdir(mode=0o700, parents=True, exist_ok=True)
            if link.is_symlink() and link.readlink() != own:
                link.unlink()
            link.symlink_to(own)

    async def _listens(self, host: str, port: int, deadline: float) -> bool:
        """Wait until the server listens; the Hub itself asks at growing intervals and would notice seconds later.

        Returns
        -------
        bool
            False if another program listens on the port, which it may take between the choice of the port and its use.

        Raises
        ------
        HTTPError
            The server has died, which the Hub would only notice after `http_timeout`; or it takes too long.
        """
        foreign = 0
        while (status := await self.poll()) is None:
            if await _is_open(host, port):
                if await asyncio.to_thread(listens, self.pid, port):
                    return True
                foreign += 1
                if foreign > _LOOKS:
                    return False
            if time.monotonic() > deadline:
                raise too_slow(self.start_timeout, self._phase().message)
            await asyncio.sleep(0.05)
        if await _is_open(host, port):
            return False  # the server died because its port is taken
        if ended := self._endings.get((self.user.name, self.name)):  # killed for exceeding its memory
            raise refusal(ended, reason="memory", status=409)
        text, html = died(status, last_lines(self.log_path, self._log_size))
        raise refusal(text, reason="died", status=409, html=html)

    @contextlib.contextmanager
    def _output(self) -> Any:
        """Yield the arguments that redirect the server's output to a file, so that it survives the Hub."""
        path = self.log_path
        if path is None:
            yield {"stdin": subprocess.DEVNULL}
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            yield {"stdin": subprocess.DEVNULL, "stdout": fd, "stderr": fd}
        finally:
            os.close(fd)

    async def poll(self) -> int | None:
        """Return None while the server runs, otherwise its exit status; a reused pid is not the server."""
        if self.proc is None and self.pid and self._start_time and start_time(self.pid) != self._start_time:
            self.clear_state()
            return 0
        status: int | None = await super().poll()
        if status is None and self.mem_limit and await asyncio.to_thread(self._end_over_limit):
            return _KILLED
        return status

    def _end_over_limit(self) -> bool:
        """Kill the server and its descendants if they exceed its memory; return whether they did."""
        pids = processes_of(self.pid)
        used, limit = used_by(pids, self.mem_limit), self.mem_limit
        if used <= limit:
            return False
        larger = any(size.memory > limit for size in self.profiles.sizes)
        advice = "choose a larger size" if larger else "work on less at once: there is no larger size here"
        said = self._endings[self.user.name, self.name] = (
            f"Your last server was stopped: it used {format_bytes(used)} of {format_bytes(limit)} of memory. What was "
            f"saved is there; {advice}."
        )
        if self.log_path is not None:
            with contextlib.suppress(OSError), self.log_path.open("a", encoding="utf-8") as log:
                log.write(f"--- {said}\n")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return True

    async def stop(self, now: bool = False) -> None:
        """Stop the server, then kill the rest of its process group."""
        pid, started = self.pid, self._start_time
        await super().stop(now=now)
        if pid and started and start_time(pid) in (0, started):
            # a process group exists as long as it has members, and its id isn't reused until then
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)

    def get_state(self) -> dict[str, Any]:
        """Return the state with which the next Hub finds the process."""
        state: dict[str, Any] = super().get_state()
        if self.pid and self._start_time:
            state |= {"start_time": self._start_time, "instance": self._instance, "memory": self.mem_limit}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Load the state; that of another platform, found in a copy of the database, is ignored."""
        if state.get("instance", "") != self._instance:
            state = {}
        super().load_state(state)
        self._start_time = int(state.get("start_time", 0))
        self.mem_limit = int(state.get("memory") or 0)

    @property
    def _instance(self) -> str:
        """The mark of the platform that starts the servers, derived from its data directory."""
        return os.environ.get("LLMOS_INSTANCE", "")

    def clear_state(self) -> None:
        """Clear the state."""
        super().clear_state()
        self._start_time = 0

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the phases of the start for the progress page."""
        said, reached = "", 0
        while True:
            phase = self._phase()
            if phase.message != said and phase.progress >= reached:  # after a failure there is no process
                said, reached = phase.message, phase.progress
                yield {"progress": phase.progress, "message": phase.message}
            await asyncio.sleep(0.25)

    def _phase(self) -> Phase:
        if waiting := self.waiting:
            return Phase(5, waiting)
        if not self.pid:
            return Phase(10, "Getting your home and a key for models ready")
        return phase_of(self.log_path, self._log_size)
