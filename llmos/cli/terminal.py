"""Output to a terminal, or to a file or pipe in its place."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from llmos.cli.output import Live
from llmos.present.text import Line, Renderable, Tone, clean_block, fit, plain, wrap
from llmos.present.transcript import Hints, Transcript
from llmos.resources.base import utcnow

__all__ = ["TerminalOutput"]

_CODES: dict[Tone, str] = {"good": "32", "busy": "33", "bad": "31", "dim": "2", "bold": "1"}
_KERNEL = "JPY_PARENT_PID"
"""Set by Jupyter in kernels, and so in what their cells run with ``!``."""
_TICK = 0.5
"""Seconds between two redraws: a stopwatch that stands still looks like a program that hangs."""


class TerminalOutput:
    """Writes results to `out` and notes to `err`.

    Colours and redrawing only where `out` is a terminal that can; ``NO_COLOR`` (https://no-color.org) and
    ``TERM=dumb`` are respected.

    Parameters
    ----------
    out, err
        Streams; unset, the process's own.
    environ
        Instead of the process's environment.
    """

    def __init__(
        self, out: TextIO | None = None, err: TextIO | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        self._out = out if out is not None else sys.stdout
        self._err = err if err is not None else sys.stderr
        self.hints = Hints()
        self.tty = _is_terminal(self._out)
        dumb = environ.get("TERM", "") == "dumb"
        self.redraws = self.tty and not dumb
        self.colour = self.redraws and not environ.get("NO_COLOR")
        self._err_colour = _is_terminal(self._err) and not dumb and not environ.get("NO_COLOR")

    @property
    def width(self) -> int | None:
        """Columns of the terminal; None where it isn't one, since files have no width."""
        return max(20, shutil.get_terminal_size().columns) if self.tty else None

    def paint(self, line: Line) -> str:
        """A line with its colours, where there are any."""
        if not self.colour:
            return plain(line)
        spans = [(span.text, _CODES.get(span.tone)) for span in line]
        return "".join(f"\x1b[{code}m{text}\x1b[0m" if code and text.strip() else text for text, code in spans).rstrip()

    def lines(self, lines: list[Line]) -> None:
        """Results, line by line; a line that is too long goes on below its last cell."""
        width = self.width
        wrapped = [piece for line in lines for piece in wrap(line, width)]
        self._out.write("".join(self.paint(line) + "\n" for line in wrapped))
        self._out.flush()

    def show(self, content: Renderable) -> None:
        """A result such as a table."""
        self.lines(list(content.lines(now=utcnow(), width=self.width)))

    def text(self, text: str) -> None:
        """A result for programs; on a terminal without control characters."""
        shown = clean_block(text) if self.tty else text
        self._out.write(shown if shown.endswith("\n") else shown + "\n")
        self._out.flush()

    def piece(self, text: str) -> None:
        """A piece of a result; on a terminal without control characters."""
        self._out.write(clean_block(text) if self.tty else text)
        self._out.flush()

    def control(self, text: str) -> None:
        """Text with control sequences of our own."""
        self._out.write(text)
        self._out.flush()

    def note(self, text: str) -> None:
        """What happens beside the result."""
        self._err.write(clean_block(text) + "\n")
        self._err.flush()

    def footer(self, text: str) -> None:
        """A small line under a result, for a person at a terminal."""
        if self.tty:
            self._err.write(f"\x1b[2m{text}\x1b[0m\n" if self._err_colour else f"{text}\n")
            self._err.flush()

    def confirm(self, question: str) -> bool:
        """Ask on a terminal; anywhere else there is nobody to ask.

        ``!llmos`` in a notebook gets a terminal from IPython into which nobody can type, so that it would wait for ever.
        """
        in_cell = bool(os.environ.get(_KERNEL))
        if in_cell or not (_is_terminal(sys.stdin) and _is_terminal(self._err)):
            return True
        self._err.write(f"{question} [y/N] ")
        self._err.flush()
        return sys.stdin.readline().strip().lower() in {"y", "yes"}

    @contextmanager
    def live(self) -> Iterator[Live]:
        """Redraw in place on a terminal; elsewhere print what is new."""
        live = _Redrawn(self) if self.redraws else _Printed(self)
        try:
            yield live
        finally:
            live.finish()


class _Printed:
    """Where nothing can be redrawn: a transcript's news, and of anything else what it shows when it changes."""

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

    def finish(self) -> None:
        """Everything is printed."""


class _Redrawn:
    """Rewrites its lines at every change and twice a second."""

    def __init__(self, output: TerminalOutput) -> None:
        self._output = output
        self._content: Renderable | None = None
        self._height = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._ticker = threading.Thread(target=self._tick, name="llmos-redraw", daemon=True)
        self._ticker.start()

    def show(self, content: Renderable) -> None:
        """Redraw."""
        with self._lock:
            self._content = content
            self._draw()

    def _tick(self) -> None:
        while not self._stop.wait(_TICK):
            with self._lock:
                try:
                    self._draw()
                except OSError:
                    return  # the terminal is gone; the next write of the verb itself says so

    def _draw(self) -> None:
        if self._content is None:
            return
        width, height = shutil.get_terminal_size()
        # one column less: a line that fills the last one wraps on some terminals
        lines = [fit(line, width - 1) for line in self._content.lines(now=utcnow(), width=width - 1)]
        lines = lines[-max(1, height - 1) :]
        if not (lines or self._height):
            return
        up = f"\x1b[{self._height}A" if self._height else ""
        text = "".join(f"\x1b[2K{self._output.paint(line)}\n" for line in lines)
        # what was below and isn't any more is cleared
        self._output.control(f"{up}\r{text}\x1b[J")
        self._height = len(lines)

    def finish(self) -> None:
        """Leave what was shown last."""
        self._stop.set()
        self._ticker.join()
        with self._lock:
            self._draw()


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False  # closed
