"""``llmos up --detach``: start the platform independent of the terminal, and show its progress until it is ready."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Final

from llmos_hub.names import DataDir
from llmos_hub.processes.logs import open_log
from llmos_hub.supervisor.state import StateFiles

__all__ = ["DETACHED_LOG", "ENV_DETACHED", "detach"]

DETACHED_LOG: Final = "supervisor.log"
"""Name of the log for what the supervisor would write to a terminal."""
ENV_DETACHED: Final = "LLMOS_DETACHED"
"""Environment variable that tells a supervisor that it was started detached."""
_LOOK: Final = 0.05  # seconds between two reads of its log
_PROGRESS: Final = ("[", "  ")  # the beginnings of lines that `Console` writes; other lines are errors


def detach(data_dir: DataDir, arguments: Sequence[str]) -> int:
    """Start a supervisor in its own session and show its output until it is ready; return the exit code.

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
    with open(path, "ab", opener=open_log) as log:
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
                process.returncode = 0  # so that Popen doesn't warn about the process, which is left running
                return 0
            time.sleep(_LOOK)


def _is_ready(files: StateFiles, pid: int) -> bool:
    supervisor = files.supervisor()
    return supervisor is not None and supervisor.pid == pid and bool(files.status().get("announced"))


def _show(lines: Sequence[bytes]) -> str:
    """Print lines of progress; return the other lines, which are errors."""
    why = []
    for line in lines:
        text = line.decode(errors="replace")
        if text.strip() and not text.startswith(_PROGRESS):
            why.append(text)
        else:
            sys.stdout.write(text)
    sys.stdout.flush()
    return "".join(why)
