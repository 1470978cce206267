"""A complete real platform for tests, used like its users do.

It is started by the same command as `llmos up`, on free ports, in its own directory, and ended by pid.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import llmos
from llmos_hub.names import ENV_INSTANCE, DataDir
from llmos_hub.processes.handle import ProcessHandle, processes_with_environment
from llmos_hub.supervisor.platform_mark import mark_of
from llmos_hub.supervisor.ports import find_free_port
from tests.support.people import HubClient, wait_until

ADMIN_PASSWORD = "correct-horse-battery"
COMMAND = (sys.executable, "-m", "llmos_hub.app")


@dataclass
class Platform(HubClient):
    """A platform that runs on this machine.

    Attributes
    ----------
    root
        Its data directory.
    port, gateway_port
        Its public ports.
    environment
        Environment variables in addition to the test's own.
    """

    root: Path
    port: int = field(default_factory=find_free_port)
    gateway_port: int = field(default_factory=find_free_port)
    environment: dict[str, str] = field(default_factory=lambda: {"LLMOS_ADMIN_PASSWORD": ADMIN_PASSWORD})
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = COMMAND
    process: subprocess.Popen[bytes] | None = None

    # Addresses and secrets

    @property
    def hub_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin_token(self) -> str:
        return self.secrets["supervisor_token"]

    @property
    def api_url(self) -> str:
        return f"{self.hub_url}/services/llmos"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def run_dir(self) -> Path:
        """Directory of sockets and records; elsewhere if the test's own path is too long for a socket."""
        return DataDir(self.root).run

    @property
    def secrets(self) -> dict[str, str]:
        return json.loads((self.root / "secrets.json").read_text())

    @property
    def client(self) -> dict[str, str]:
        """The configuration that the CLI finds: addresses and the admin's token."""
        return json.loads((self.root / "client.json").read_text())

    @property
    def output(self) -> str:
        """The console's output so far."""
        path = self.root.with_name(self.root.name + ".out")
        return path.read_text() if path.exists() else ""

    def sdk(self) -> llmos.Client:
        """Return a client with the admin's token."""
        return llmos.Client(url=self.api_url, token=self.client["token"], gateway_url=f"{self.gateway_url}/v1")

    def log(self, name: str) -> str:
        return (self.root / "logs" / f"{name}.log").read_text()

    # Life

    def run(self, *arguments: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run another command on the same data directory until it ends."""
        command = [*self.command, *arguments, "--data-dir", str(self.root)]
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, check=False)

    def spawn(self) -> None:
        """Start `up` without waiting."""
        arguments = ["--port", str(self.port), "--gateway-port", str(self.gateway_port), *self.options]
        output = self.root.with_name(self.root.name + ".out")
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [*self.command, "up", "--data-dir", str(self.root), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def start(self, timeout: float = 90.0) -> float:
        """Start the platform and wait until it is ready; return the seconds it took."""
        began = time.monotonic()
        self.spawn()
        process = self.process
        assert process is not None

        def ready() -> bool:
            if process.poll() is not None:
                pytest.fail(f"`up` ended with {process.returncode}:\n{self.output}")
            return "LLMOS is ready." in self.output

        wait_until(ready, timeout, f"LLMOS is ready.\n{self.output}")
        return time.monotonic() - began

    def stop(self, timeout: float = 90.0) -> int | None:
        """Stop the platform as Ctrl-C does; return its exit code."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout)
        finally:
            self.clean_up()

    def clean_up(self) -> list[int]:
        """Kill all remaining processes by pid; return the pids."""
        left = self.marked()
        for handle in left:
            handle.send(signal.SIGKILL)
        if self.run_dir.parent != self.root:
            shutil.rmtree(self.run_dir, ignore_errors=True)
        return [handle.pid for handle in left]

    def marked(self) -> list[ProcessHandle]:
        """Return all processes with the platform's mark, and those on record (Valkey overwrites its environment)."""
        found = processes_with_environment(ENV_INSTANCE, mark_of(DataDir(self.root))) if self.root.exists() else []
        for path in (self.run_dir / "processes").glob("*.json"):
            record = json.loads(path.read_text())
            handle = ProcessHandle(record["pid"], record["start_time"])
            if handle.alive and handle not in found:
                found.append(handle)
        return found

    def status(self) -> dict[str, Any]:
        return json.loads(self.run("status", "--json").stdout)

    def handle(self, name: str) -> ProcessHandle:
        """Return the process of a component, or of the supervisor."""
        if name == "supervisor":
            assert self.process is not None
            found = ProcessHandle.of(self.process.pid)
            assert found is not None
            return found
        record = json.loads((self.run_dir / "processes" / f"{name}.json").read_text())
        return ProcessHandle(record["pid"], record["start_time"])

    def kill(self, name: str) -> ProcessHandle:
        """Kill a component with SIGKILL; return its process."""
        handle = self.handle(name)
        assert handle.send(signal.SIGKILL)
        if name == "supervisor" and self.process is not None:
            self.process.wait(10)
        else:
            handle.wait_blocking(10)
        return handle

    def wait_replaced(self, name: str, old: ProcessHandle, timeout: float = 60.0) -> ProcessHandle:
        """Wait until another process is ready in place of `old`, and return it."""

        def replaced() -> bool:
            try:
                said = json.loads((self.run_dir / "status.json").read_text())["processes"][name]
            except (OSError, ValueError, KeyError):
                return False
            return said["state"] == "Ready" and said["pid"] != old.pid

        wait_until(replaced, timeout, f"{name} is back\n{self.output}")
        return self.handle(name)

    # People

    def server_environment(self, user: str, name: str = "") -> dict[str, str]:
        """Return the environment variables that a running server was started with."""
        for handle in self.marked():
            environ = Path(f"/proc/{handle.pid}/environ").read_bytes().decode().split("\0")
            values = dict(line.split("=", 1) for line in environ if "=" in line)
            if values.get("JUPYTERHUB_USER") == user and values.get("JUPYTERHUB_SERVER_NAME", "") == name:
                return values
        pytest.fail(f"{user} has no server {name!r}")


def command_of(handle: ProcessHandle) -> str:
    """Return the command line of a process; empty if it has ended or is a zombie."""
    try:
        return Path(f"/proc/{handle.pid}/cmdline").read_bytes().decode().replace("\0", " ").strip()
    except OSError:
        return ""


@contextmanager
def running_platform(root: Path, **kwargs: Any) -> Iterator[Platform]:
    """Yield a running platform, which is stopped at the end."""
    started = Platform(root, **kwargs)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One platform for all tests that leave it unchanged."""
    with running_platform(tmp_path_factory.mktemp("platform") / "data") as started:
        yield started
