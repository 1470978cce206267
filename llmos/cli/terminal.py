"""Output to a terminal, or to a file or pipe."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import AbstractContextManager, closing
from typing import TextIO

from llmos.cli.output import Live
from llmos.cli.redrawing import Redrawn
from llmos.present.hints import Hints
from llmos.present.text import Line, Renderable, Tone, clean_block, fit, plain, wrap
from llmos.present.transcript import Transcript
from llmos.resources.base import utcnow

__all__ = ["TerminalOutput"]

_CODES: dict[Tone, str] = {"good": "32", "busy": "33", "bad": "31", "dim": "2", "bold": "1"}
_KERNEL = "JPY_PARENT_PID"
"""Environment variable that Jupyter sets in kernels, and so in commands that cells run with ``!``."""
_TICK = 0.5
"""Seconds between two updates in place."""


class TerminalOutput:
    """An output that writes results to standard output and notes to standard error.

    Colours and updates in place are used only if standard output is a terminal that supports them; ``NO_COLOR``
    (https://no-color.org) and ``TERM=dumb`` are respected.
    """

    def __init__(self) -> None:
        self._out, self._err = sys.stdout, sys.stderr
        self.hints = Hints()
        self.tty = _is_terminal(self._out)
        dumb, plain_text = os.environ.get("TERM") == "dumb", bool(os.environ.get("NO_COLOR"))
        self.redraws = self.tty and not dumb
        self.colour = self.redraws and not plain_text
        self._err_colour = _is_terminal(self._err) and not dumb and not plain_text

    @property
    def width(self) -> int | None:
        """The terminal's columns; None if the output isn't a terminal."""
        return max(20, shutil.get_terminal_size().columns) if self.tty else None

    def paint(self, line: Line) -> str:
        """Return a line's text, with control sequences for its colours if they are used."""
        if not self.colour:
            return plain(line)
        spans = [(span.text, _CODES.get(span.tone)) for span in line]
        return "".join(f"\x1b[{code}m{text}\x1b[0m" if code and text.strip() else text for text, code in spans).rstrip()

    def lines(self, lines: list[Line]) -> None:
        """Write a result line by line; long lines are wrapped below their last cell."""
        width = self.width
        wrapped = [piece for line in lines for piece in wrap(line, width)]
        _write(self._out, "".join(self.paint(line) + "\n" for line in wrapped))

    def show(self, content: Renderable) -> None:
        """Write a result such as a table."""
        self.lines(list(content.lines(now=utcnow(), width=self.width)))

    def text(self, text: str) -> None:
        """Write a result for programs; control characters are removed if the output is a terminal."""
        shown = clean_block(text) if self.tty else text
        _write(self._out, shown if shown.endswith("\n") else shown + "\n")

    def piece(self, text: str) -> None:
        """Write a part of a continuing result; control characters are removed if the output is a terminal."""
        _write(self._out, clean_block(text) if self.tty else text)

    def control(self, text: str) -> None:
        """Write text that contains control sequences of this module."""
        _write(self._out, text)

    def note(self, text: str) -> None:
        """Write a remark to standard error."""
        _write(self._err, clean_block(text) + "\n")

    def footer(self, text: str) -> None:
        """Write a small line under a result if the output is a terminal."""
        if self.tty:
            _write(self._err, f"\x1b[2m{text}\x1b[0m\n" if self._err_colour else f"{text}\n")

    def confirm(self, question: str) -> bool:
        """Ask on a terminal; return True if there is none."""
        # IPython gives ``!llmos`` in a cell a terminal into which nobody can type: a question would wait for ever
        in_cell = bool(os.environ.get(_KERNEL))
        if in_cell or not (_is_terminal(sys.stdin) and _is_terminal(self._err)):
            return True
        _write(self._err, f"{question} [y/N] ")
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    def live(self) -> AbstractContextManager[Live]:
        """Update in place on a terminal; elsewhere print what is new."""
        return closing(_RedrawnLines(self) if self.redraws else _Printed(self))


class _Printed:
    """Live output without updates in place: a transcript's news, or other content again whenever it changes."""

    def __init__(self, output: TerminalOutput) -> None:
        self._output = output
        self._last: list[str] = []

    def show(self, content: Renderable) -> None:
        """Print what is new."""
        if isinstance(content, Transcript):
            self._output.lines(content.news(now=utcnow()))
            return
        lines = list(content.lines(now=utcnow(), width=None))
        texts = [plain(line) for line in lines]
        if texts != self._last:
            self._output.lines([*([()] if self._last else []), *lines])
            self._last = texts

    def close(self) -> None:
        """Do nothing: everything is printed already."""


class _RedrawnLines(Redrawn):
    """Live output that rewrites its lines."""

    def __init__(self, output: TerminalOutput) -> None:
        self._output = output
        self._height = 0
        super().__init__(_TICK)

    def draw(self, content: Renderable) -> None:
        """Write the lines over those written before."""
        width, height = shutil.get_terminal_size()
        # one column less, because some terminals wrap a line that fills the last column
        lines = [fit(line, width - 1) for line in content.lines(now=utcnow(), width=width - 1)]
        lines = lines[-max(1, height - 1) :]
        if not (lines or self._height):
            return
        up = f"\x1b[{self._height}A" if self._height else ""
        text = "".join(f"\x1b[2K{self._output.paint(line)}\n" for line in lines)
        # clears the lines that aren't needed any more
        self._output.control(f"{up}\r{text}\x1b[J")
        self._height = len(lines)


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False  # closed
