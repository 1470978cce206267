"""Where verbs write in a notebook: the cell's output, with parts that are redrawn in place."""

from __future__ import annotations

import contextvars
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from llmos.cli.output import Live
from llmos.cli.parser import VERBS
from llmos.present.text import Line, Renderable, clean_block
from llmos.present.transcript import Hints
from llmos.resources.base import utcnow
from llmos_widgets.html import bundle, lines_html

__all__ = ["NotebookOutput", "Redrawn", "in_notebook", "show_bundle"]

_COMMAND = re.compile(rf"(?<![%\w/.-])llmos (?={'|'.join(name for name, verb in VERBS.items() if verb.notebook)})")

_TICK = 1.0
"""Seconds between two redraws: a stopwatch that stands still looks like a program that hangs."""


def in_notebook(text: str) -> str:
    """The text with ``llmos ps`` written as ``%llmos ps``, which is how one types it here."""
    return _COMMAND.sub("%llmos ", text)


def _shown_here(content: Renderable) -> dict[str, str]:
    """Return the bundle of a result, its commands written as one types them here."""
    return {kind: in_notebook(text) for kind, text in bundle(content, utcnow()).items()}


def show_bundle(data: dict[str, str], *, display_id: bool = False) -> Any:
    """Show a MIME bundle; with `display_id`, return the handle to redraw it by."""
    from IPython.display import display

    return display(data, raw=True, display_id=True if display_id else None)  # type: ignore[no-untyped-call]  # IPython has no types


class Redrawn:
    """A part of a cell's output that is rewritten at every change and once a second.

    The redrawing thread takes along the context of the cell that made it: that is how the kernel knows which
    cell an output belongs to, also where cells run in subshells.

    Parameters
    ----------
    render
        Makes the bundle of what is to be seen now.
    """

    def __init__(self, render: Callable[[Any], dict[str, str]]) -> None:
        self._render = render
        self._content: Any = None
        self._handle: Any = None
        self._shown: dict[str, str] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        context = contextvars.copy_context()
        self._ticker = threading.Thread(target=context.run, args=(self._tick,), name="llmos-redraw", daemon=True)
        self._ticker.start()

    def show(self, content: Any) -> None:
        """Show this from now on."""
        with self._lock:
            self._content = content
            self._draw()

    def _tick(self) -> None:
        while not self._stop.wait(_TICK):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        if self._content is None:
            return
        data = self._render(self._content)
        if data == self._shown:
            return
        if self._handle is None:
            self._handle = show_bundle(data, display_id=True)
        else:
            self._handle.update(data, raw=True)
        self._shown = data

    def finish(self) -> None:
        """Leave what is true at the end as a plain record."""
        self._stop.set()
        self._ticker.join()
        with self._lock:
            self._draw()


class NotebookOutput:
    """Writes to the output of the cell that runs."""

    def __init__(self) -> None:
        self.hints = Hints(chat="%%chat {name}", command="%llmos")
        self.redraws = True

    def lines(self, lines: list[Line]) -> None:
        """Results, line by line."""
        from llmos.present.text import plain

        show_bundle({"text/html": lines_html(lines), "text/plain": "\n".join(plain(line) for line in lines)})

    def show(self, content: Renderable) -> None:
        """A result such as a table."""
        show_bundle(_shown_here(content))

    def text(self, text: str) -> None:
        """A result for programs."""
        if "\n" not in text:
            text = in_notebook(text)
        print(text, end="" if text.endswith("\n") else "\n")  # noqa: T201 - a cell's output is standard output

    def piece(self, text: str) -> None:
        """A piece of a result that goes on."""
        print(clean_block(text), end="", flush=True)  # noqa: T201 - as above

    def note(self, text: str) -> None:
        """What happens beside the result, small and grey."""
        from llmos.present.text import Span

        self.lines([(Span(in_notebook(clean_block(text)), "dim"),)])

    def footer(self, text: str) -> None:
        """A small line under a result."""
        self.note(text)

    def confirm(self, question: str) -> bool:  # noqa: ARG002 - the cell itself was the decision
        """A cell that is run is the answer: asking again would stop every notebook that runs as a whole."""
        return True

    @contextmanager
    def live(self) -> Iterator[Live]:
        """A part that is redrawn in place while the block runs."""
        redrawn = Redrawn(_shown_here)
        try:
            yield redrawn
        finally:
            redrawn.finish()
