"""Taking turns on what several test processes share: many side by side, or one alone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["Turn"]


class Turn:
    """This process's turn on a shared thing, by locks on two files (flock(2)), which end with the process.

    Who wants it alone waits at the gate and keeps those behind from entering, so that it isn't waited for in vain.

    Parameters
    ----------
    directory
        A directory that all processes name.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._gate = os.open(directory / "gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._room = os.open(directory / "room", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.held = False

    def begin(self, *, alone: bool) -> None:
        """Wait for the turn: until all others have ended (`alone`), or nobody is alone any more."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)
        self.held = True

    def end(self) -> None:
        """Let others have it; nothing happens if it is not held."""
        fcntl.flock(self._room, fcntl.LOCK_UN)
        self.held = False
