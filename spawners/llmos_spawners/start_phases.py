"""Phases of a notebook server's start; those of a local server, found in its log, and the message about its death."""

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
    """A phase of a start.

    Attributes
    ----------
    progress
        Approximate percentage.
    message
        One sentence for the user.
    reason
        One word for metrics if the start can't continue: ``image``, ``memory``, ``crash``, ``configuration``.
    hopeless
        True if waiting longer doesn't help.
    """

    progress: int
    message: str
    reason: str = ""
    hopeless: bool = False


_PHASES: Final = (
    (re.compile(r"Serving (notebooks|at)|is running at|Jupyter Server .* is running"), Phase(90, "Jupyter answers")),
    (re.compile(r"extension was successfully loaded"), Phase(75, "Loading its extensions")),
    (re.compile(r"Starting jupyterhub|extension was successfully linked|Loading "), Phase(55, "Jupyter is starting")),
)
_FIRST: Final = Phase(30, "Python is starting")
_READ: Final = 64 * 1024
_PREFIX: Final = re.compile(r"^\[[A-Z] \d{4}-\d\d-\d\d [\d:.]+ [^\]]*\] ")


def server_log_size(path: Path | None) -> int:
    """Return the size of a log in bytes; before a start, the end of what earlier starts wrote."""
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0


def _read(path: Path | None, since: int) -> list[str]:
    """Return the lines of this start, at most 64 KiB."""
    if path is None:
        return []
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            # a log that was rotated meanwhile is read from its start
            file.seek(max(since if since <= size else 0, size - _READ))
            text = file.read(_READ).decode(errors="replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def phase_of(path: Path | None, since: int) -> Phase:
    """Return the latest phase found in the log."""
    lines = _read(path, since)
    for pattern, phase in _PHASES:
        if any(pattern.search(line) for line in lines):
            return phase
    return _FIRST


def last_lines(path: Path | None, since: int, count: int = 8) -> list[str]:
    """Return the last lines that this start wrote."""
    return ["".join(c for c in _PREFIX.sub("", line) if c.isprintable())[:300] for line in _read(path, since)[-count:]]


def died(status: int, lines: list[str]) -> tuple[str, str]:
    """Return the message about a server that ended by itself, as text and as HTML.

    Parameters
    ----------
    status
        Its exit status, negative for a signal.
    lines
        The last lines that it wrote.
    """
    how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
    text = f"The server ended by itself {how} while it was starting."
    if not lines:
        return f"{text} It wrote nothing.", f"<p>{text} It wrote nothing.</p>"
    html = f"""<p>{text} Its last lines:</p>
<pre class="bg-body-tertiary border rounded p-3 small" style="white-space: pre-wrap">{escape(chr(10).join(lines))}</pre>"""
    return f"{text} Its last lines: {' / '.join(lines)}", html
