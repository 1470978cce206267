"""The environment, the program and the port of a replica's process."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from llmos_hub.names import ENV_INSTANCE

__all__ = ["ENV_REPLICA", "base_environment", "find_program", "free_port"]

ENV_REPLICA: Final = "LLMOS_REPLICA"
"""Variable that marks a replica's processes, so that one that was started but not recorded can be found."""

_PASSED_ON = ("PATH", "HOME", "LANG", "TMPDIR", ENV_INSTANCE)


def base_environment() -> dict[str, str]:
    """Return the few variables of this process that every replica gets."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def free_port() -> int:
    """Return a loopback port that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def find_program(program: str, environment: Mapping[str, str], directory: Path) -> str | None:
    """Return why the program can't be run, as the end of a sentence; None if it can."""
    if "/" not in program:
        path = environment.get("PATH", os.defpath)
        return None if shutil.which(program, path=path) else f"is not in PATH ({path})"
    file = directory / program
    if not file.exists():
        return "does not exist"
    return None if os.access(file, os.X_OK) and file.is_file() else "may not be executed"
