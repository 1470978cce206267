"""A real llama.cpp process, started like the backend starts it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from llmos_hub.engines.base import Machine
from llmos_hub.engines.llamacpp_arguments import Parameter
from llmos_hub.sources import demo
from llmos_hub.sources.base import ModelFiles
from llmos_hub.workload import ProcessTemplate

__all__ = ["MACHINE", "EngineProcess", "demo_model", "engine_process", "installed_parameters", "start_engine"]

MACHINE = Machine(cpus=2, memory=8 * 2**30)


def installed_parameters() -> dict[str, Parameter]:
    """Return the options of the installed llama.cpp."""
    # in a process like the platform does: without OpenMP in the system, it loads only with the packaged one in its
    # environment
    done = subprocess.run(
        [sys.executable, "-I", "-m", "llmos_hub.engines.llamacpp_server", "--describe"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    found = json.loads(done.stdout)["parameters"]
    return {name: Parameter(kind, tuple(choices)) for name, (kind, *choices) in found.items()}


@dataclass
class EngineProcess:
    """A running engine with its socket and its log."""

    process: subprocess.Popen[bytes]
    socket: Path
    log: Path

    def client(self) -> httpx.Client:
        """Return a client of it; the caller closes it."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://engine", timeout=60)

    def wait_until_healthy(self, timeout: float = 60) -> float:
        """Wait until ``/health`` returns 200, and return the seconds it took."""
        begin = time.monotonic()
        while time.monotonic() - begin < timeout:
            assert self.process.poll() is None, self.log.read_text()
            if self._listens():
                with self.client() as client:
                    if client.get("/health").status_code == 200:
                        return time.monotonic() - begin
            time.sleep(0.005)
        raise AssertionError(self.log.read_text())

    def _listens(self) -> bool:
        """Return whether it accepts connections."""
        # not with httpx, which leaves a refused unix socket open
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def memory(self) -> int:
        """Return its resident memory in bytes."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def start_engine(template: ProcessTemplate, directory: Path, environ: Mapping[str, str] | None = None) -> EngineProcess:
    """Start a template's process with its socket in `directory`."""
    path, log = directory / "e.sock", directory / "engine.log"
    argv = [argument.replace("{socket}", str(path)) for argument in template.argv]
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), **template.env, **(environ or {})}
    with log.open("wb") as output:
        process = subprocess.Popen(argv, stdout=output, stderr=output, env=environment, cwd=directory)
    return EngineProcess(process, path, log)


@contextmanager
def engine_process(template: ProcessTemplate, directory: Path) -> Iterator[EngineProcess]:
    """Yield a running engine that responds; it is ended afterwards."""
    engine = start_engine(template, directory)
    try:
        engine.wait_until_healthy()
        yield engine
    finally:
        engine.process.kill()
        engine.process.wait(10)


def demo_model(name: str, directory: Path) -> ModelFiles:
    """Return the files of a demo model."""
    return demo.fetch(f"demo://{name}", directory, lambda _progress: None)
