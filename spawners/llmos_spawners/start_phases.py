"""What a notebook server is doing while it starts, in words, from the lines of its log; and its last words when it dies."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Final

__all__ = ["Phase", "died", "last_lines", "phase_of", "server_log_size"]


@dataclass(frozen=True, slots=True)
class Phase:
    """A step of a start.

    Attributes
    ----------
    progress
        Percent.
    message
        For the person who waits.
    """

    progress: int
    message: str


_PHASES: Final = (
    (re.compile(r"Serving (notebooks|at)|is running at|Jupyter Server .* is running"), Phase(90, "Jupyter answers")),
    (re.compile(r"extension was successfully loaded"), Phase(75, "Loading its extensions")),
    (re.compile(r"Starting jupyterhub|extension was successfully linked|Loading "), Phase(55, "Jupyter is starting")),
)
_FIRST: Final = Phase(30, "Python is starting")
_READ: Final = 64 * 1024
_PREFIX: Final = re.compile(r"^\[[A-Z] \d{4}-\d\d-\d\d [\d:.]+ [^\]]*\] ")


def server_log_size(path: Path | None) -> int:
    """The size of a log in bytes, before a start: what was there is of earlier ones."""
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0


def _read(path: Path | None, since: int) -> list[str]:
    """The lines of this start, at most 64 KiB of them."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            # a log that was cut meanwhile begins again
            file.seek(max(since if since <= size else 0, size - _READ))
            text = file.read(_READ).decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def phase_of(path: Path | None, since: int) -> Phase:
    """The furthest step that the log tells of."""
    lines = _read(path, since)
    for pattern, phase in _PHASES:
        if any(pattern.search(line) for line in lines):
            return phase
    return _FIRST


def last_lines(path: Path | None, since: int, count: int = 8) -> list[str]:
    """The end of what this start wrote."""
    return ["".join(c for c in _PREFIX.sub("", line) if c.isprintable())[:300] for line in _read(path, since)[-count:]]


def died(status: int, lines: list[str]) -> tuple[str, str]:
    """What is said of a server that ended by itself: as text, and as HTML with its last lines as they are.

    Parameters
    ----------
    status
        Its exit status, negative for a signal.
    lines
        What it wrote last.
    """
    how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
    text = f"The server ended by itself {how} while it was starting."
    if not lines:
        return f"{text} It wrote nothing.", f"<p>{text} It wrote nothing.</p>"
    html = f"""<p>{text} Its last lines:</p>
<pre class="bg-body-tertiary border rounded p-3 small" style="white-space: pre-wrap">{escape(chr(10).join(lines))}</pre>"""
    return f"{text} Its last lines: {' / '.join(lines)}", html
