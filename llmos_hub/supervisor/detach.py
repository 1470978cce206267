"""``llmos up --detach``: the platform goes on when its terminal is closed, and the one who started it sees the start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from llmos_hub.names import DataDir
from llmos_hub.supervisor.state import StateFiles

__all__ = ["DETACHED_LOG", "ENV_DETACHED", "detach"]

DETACHED_LOG: Final = "supervisor.log"
"""What the supervisor would have written to its terminal, among the other logs."""
ENV_DETACHED: Final = "LLMOS_DETACHED"
"""Tells a supervisor that it was started so."""
_LOOK: Final = 0.05  # seconds between two looks at what it wrote
_PROGRESS: Final = ("[", "  ")  # how the lines begin that `Console` writes; others say why it ended


def detach(data_dir: DataDir, arguments: Sequence[str]) -> int:
    """Start a supervisor in a session of its own, show what it says until it is ready; the exit code.

    Parameters
    ----------
    arguments
        ``up`` and its options.

    Raises
    ------
    Unavailable
        The data directory can't be used.
    """
    files = StateFiles(data_dir)
    files.prepare()
    path = data_dir.logs / DETACHED_LOG
    with open(path, "ab", opener=lambda name, flags: os.open(name, flags, 0o600)) as log:
        shown = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "llmos_hub.app", *arguments],
            env={**os.environ, ENV_DETACHED: "1"},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    with path.open("rb") as reader:
        reader.seek(shown)
        why = ""
        while True:
            ended, ready = process.poll(), _is_ready(files, process.pid)
            why += _show(reader.readlines())
            if ended is not None:
                sys.stderr.write(why)
                return ended
            if ready:
                process.returncode = 0  # left running, which is the intention
                return 0
            time.sleep(_LOOK)


def _is_ready(files: StateFiles, pid: int) -> bool:
    supervisor = files.supervisor()
    return supervisor is not None and supervisor.pid == pid and bool(files.status().get("announced"))


def _show(lines: Sequence[bytes]) -> str:
    """Print how far it is; the lines that say why it ended."""
    why = []
    for line in lines:
        text = line.decode(errors="replace")
        if text.strip() and not text.startswith(_PROGRESS):
            why.append(text)
        else:
            sys.stdout.write(text)
    sys.stdout.flush()
    return "".join(why)
