"""``llmos doctor``: checks of this machine and installation, with advice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from llmos import __version__, proc
from llmos.errors import LLMOSError
from llmos.python.check import RECORD, damage, distrust
from llmos.python.damaged import told
from llmos.python.notebook import notebook_environment, setup_command
from llmos_hub.engines.llamacpp_build import find_build, gpu_summary
from llmos_hub.engines.machine import detect
from llmos_hub.names import DataDir
from llmos_hub.supervisor.binaries import find_node, find_proxy
from llmos_hub.supervisor.console import size
from llmos_hub.supervisor.disk import free_space
from llmos_hub.supervisor.notebook import notebook_state
from llmos_hub.supervisor.ports import is_free, taken_by
from llmos_hub.supervisor.state import StateFiles
from llmos_hub.valkey.server import find_valkey

__all__ = ["Finding", "doctor", "examine"]

_GIB = 1024**3
_DISK_LOW = 5 * _GIB  # a small model and room to write
_DISK_OUT = 1 * _GIB
_MEMORY_LOW = 2 * _GIB  # the platform idles at under half of it, a small model takes a quarter


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes
    ----------
    level
        ``ok``, ``warn`` (works with restrictions) or ``fail`` (doesn't work).
    what
        The subject of the check.
    detail
        What was found.
    advice
        What to do about it; empty if there is nothing to do.
    """

    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    advice: str = ""


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("ok", "Python", f"{version} in {sys.prefix}")


def _packages(what: str, prefix: Path, after: str) -> Finding:
    """Compare every file of an environment with its packages' own lists."""
    words = damage(str(prefix), contents=True)
    if not words:
        return Finding("ok", what, f"as locked, in {prefix}")
    distrust(str(prefix))  # so that the next `make up` checks every file as well
    return Finding("fail", what, f"{told(words)}, in {prefix}", after)


def _environments(prefix: Path, *, running: bool) -> list[Finding]:
    """Check the packages of the platform and of notebooks; return nothing unless set-up installed them."""
    repair = "llmos down, then make up, which installs it again" if running else "make up installs it again"
    repair += "; people's own packages stay"
    if not (prefix / RECORD).exists():
        return []
    found = [_packages("Packages", prefix, repair)]
    base = notebook_environment(str(prefix))
    if base == prefix:
        return [*found, Finding("fail", "Notebook Python", f"{prefix}-notebook is missing", repair)]
    if setup_command():
        return [*found, Finding("warn", "Notebook Python", notebook_state() or "not complete", "wait, or make up")]
    return [*found, _packages("Notebook Python", base, repair)]


def _program(what: str, find: Callable[[], str]) -> Finding:
    try:
        return Finding("ok", what, find())
    except LLMOSError as exc:
        return Finding("fail", what, exc.message)


def _node() -> str:
    node = find_node()
    try:
        done = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return node
    return f"{done.stdout.strip()} at {node}"


def _valkey() -> str:
    found = find_valkey()
    return f"{found.kind} {found.version} at {found.path}"


def _port(host: str, port: int, option: str, ours: set[int]) -> Finding:
    what = f"Port {port}"
    try:
        owner = taken_by(host, port, ours)
        free = is_free(host, port)
    except LLMOSError as exc:
        return Finding("fail", what, exc.message)
    if owner:
        return Finding("fail", what, f"taken by {owner}", f"llmos up {option} {port + 100}")
    return Finding("ok", what, "free" if free else "ours")


def _existing(root: Path) -> Path:
    """Return the directory, or the nearest one above it that exists."""
    return next(path for path in (root, *root.parents) if path.exists())


def _data_dir(root: Path) -> Finding:
    existing = _existing(root)
    if not os.access(existing, os.W_OK | os.X_OK):
        return Finding("fail", "Data directory", f"{root} can't be written", "llmos up --data-dir DIR")
    if root.exists() and root.stat().st_mode & 0o077:
        return Finding("warn", "Data directory", f"{root} can be read by others", f"chmod 700 {root}")
    return Finding("ok", "Data directory", str(root))


def _disk(root: Path) -> Finding:
    existing = _existing(root)
    room = free_space(existing)
    free, detail = room.free, f"{room.free / 1e9:.1f} GB free in {existing}"
    if room.below():
        return Finding("fail", "Disk", f"{room} in {existing}: nothing is saved", "make room on it")
    if free < _DISK_OUT:
        return Finding("fail", "Disk", detail, "make room, or choose another disk: --data-dir DIR")
    if free < _DISK_LOW:
        return Finding("warn", "Disk", detail, "large models won't fit; the cache can lie elsewhere: --data-dir DIR")
    return Finding("ok", "Disk", detail)


def _memory() -> Finding:
    values = proc.meminfo()
    available, limit = values.get("MemAvailable", 0), detect().memory
    detail = f"{size(available)} of {size(values.get('MemTotal', 0))} available"
    if limit < available:
        available = limit
        detail += f", of which this group may use {size(limit)}"
    if available < _MEMORY_LOW:
        return Finding("warn", "Memory", detail, "small models only; stop other programs")
    return Finding("ok", "Memory", detail)


def _gpus() -> Finding:
    found = detect().gpus
    if not found:
        return Finding("ok", "GPU", "none found; models compute on the CPUs")
    build = find_build()
    summary, _, advice = gpu_summary(found, build).partition("; ")
    return Finding("ok" if build.devices else "warn", "GPU", summary, advice)


def _cgroup() -> Finding:
    unified = Path("/sys/fs/cgroup/cgroup.controllers")
    if unified.exists() and "memory" in unified.read_text(encoding="ascii").split():
        return Finding("ok", "Control groups", "version 2")
    return Finding("ok", "Control groups", "no version 2 with memory; models' memory is watched instead of limited")


def _models(data_dir: DataDir) -> Finding:
    try:
        total = sum(path.stat().st_size for path in data_dir.models.rglob("*") if path.is_file())
    except OSError as exc:
        return Finding("warn", "Model cache", f"{data_dir.models} can't be read: {exc.strerror}", "check its owner")
    return Finding("ok", "Model cache", f"{total / 1e9:.1f} GB in {data_dir.models}")


def examine(data_dir: DataDir, *, host: str, port: int, gateway_port: int) -> list[Finding]:
    """Run all checks."""
    files = StateFiles(data_dir)
    ours = {record.pid for record in files.records().values()}
    if ours:  # check the ports of the running platform, not those of a start
        said = files.status()
        port = int(said.get("port") or port)
        gateway_port = urlsplit(str(said.get("gateway", ""))).port or gateway_port
    return [
        Finding("ok", "LLMOS", __version__),
        _python(),
        *_environments(Path(sys.prefix), running=bool(ours)),
        _program("Node.js", _node),
        _program("Hub's proxy", find_proxy),
        _program("Valkey", _valkey),
        _port(host, port, "--port", ours),
        _port(host, gateway_port, "--gateway-port", ours),
        _data_dir(data_dir.root),
        _disk(data_dir.root),
        _memory(),
        _gpus(),
        _cgroup(),
        _models(data_dir),
    ]


def doctor(data_dir: DataDir, *, host: str, port: int, gateway_port: int) -> int:
    """Print all checks; return exit code 1 if one fails."""
    findings = examine(data_dir, host=host, port=port, gateway_port=gateway_port)
    for finding in findings:
        sys.stdout.write(f"{finding.level:<5} {finding.what:<16} {finding.detail}\n")
        if finding.advice:
            sys.stdout.write(f"{'':<23}→ {finding.advice}\n")
    return 1 if any(finding.level == "fail" for finding in findings) else 0
