"""Output of ``llmos up`` to the terminal: lines, times, paths."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

__all__ = ["Console", "llmos_command", "size", "tilde"]


def tilde(path: Path) -> str:
    """Return a path with ``~`` for the home directory: ``~/.local/share/llmos``.

    >>> tilde(Path("/var/lib/llmos"))
    '/var/lib/llmos'
    """
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path != home and path.is_relative_to(home) else str(path)


def llmos_command() -> str:
    """Return how to type ``llmos`` here: the name alone if the shell finds it, otherwise with its path."""
    own = Path(sys.prefix) / "bin" / "llmos"
    if (found := shutil.which("llmos")) and Path(found).resolve() == own.resolve():
        return "llmos"
    here = Path.cwd()
    return shlex.quote(str(own.relative_to(here))) if own.is_relative_to(here) else _typed(own)


def _typed(path: Path) -> str:
    """Return a path as it can be typed into a shell: with ``~`` unless it needs quoting."""
    text = str(path)
    return tilde(path) if shlex.quote(text) == text else shlex.quote(text)


def size(count: int) -> str:
    """Return a number of bytes in MiB or GiB.

    >>> size(13_000_000), size(3_200_000_000)
    ('12 MiB', '3.0 GiB')
    """
    if count < 1000 * 1024**2:
        return f"{count / 1024**2:.0f} MiB"
    return f"{count / 1024**3:.1f} GiB"


class Console:
    """A writer to standard output that ignores a closed terminal."""

    def __init__(self) -> None:
        self._open = True
        # after `make up`, continue to count from the steps of set-up
        step, _, steps = os.environ.pop("LLMOS_SETUP_STEP", "0/2").partition("/")
        self._step, self._steps = int(step), steps

    def line(self, text: str = "") -> None:
        """Print a line."""
        if self._open:
            try:
                sys.stdout.write(text + "\n")
                sys.stdout.flush()
            except OSError as exc:
                # standard output may be a file on a full disk, where a later line may succeed
                self._open = exc.errno in (errno.ENOSPC, errno.EDQUOT)

    def step(self, title: str, detail: str = "", *, took: float | None = None) -> None:
        """Print one step of the start: ``[3/4] Data directory   ~/.local/share/llmos  (new)``."""
        self._step += 1
        right = f"{took:6.1f} s" if took is not None else ""
        self.line(f"[{self._step}/{self._steps}] {title:<23} {detail:<52}{right}".rstrip())

    def event(self, text: str) -> None:
        """Print an event with the time of day."""
        self.line(f"  {time.strftime('%H:%M:%S')}  {text}")
