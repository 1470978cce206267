"""Output of verbs in a notebook: the cell's output, with parts that are updated in place."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from typing import Any

from llmos.cli.output import Live
from llmos.cli.parser import VERBS
from llmos.cli.redrawing import Redrawn
from llmos.present.hints import Hints
from llmos.present.text import Line, Renderable, Span, clean_block, plain
from llmos.resources.base import utcnow
from llmos_widgets.html import bundle, lines_html

__all__ = ["NotebookOutput", "RedrawnPart", "in_notebook", "show_bundle"]

_VERBS = "|".join(name for name, verb in VERBS.items() if verb.notebook)
_COMMAND = re.compile(rf"(?<![%!\w/.-])llmos (?=(?:{_VERBS})(?![\w-]))")
"""``llmos`` before a verb that notebooks have. ``%llmos`` and ``!llmos`` are complete, and `llmos status` and other verbs
of the platform itself work only on its machine."""

_TICK = 1.0
"""Seconds between two updates in place."""


def in_notebook(text: str) -> str:
    """Return a message with its commands as magics: ``%llmos set chat --memory 6Gi`` for ``llmos set chat --memory 6Gi``.

    Servers write their messages for all readers, and every message that a notebook shows goes through here.
    """
    return _COMMAND.sub("%llmos ", text)


def _with_magics(data: dict[str, str]) -> dict[str, str]:
    return {kind: in_notebook(text) for kind, text in data.items()}


def _render(content: Renderable) -> dict[str, str]:
    return _with_magics(bundle(content, utcnow()))


def show_bundle(data: dict[str, str], *, display_id: bool = False) -> Any:
    """Show a MIME bundle; with `display_id`, return the handle for updates."""
    from IPython.display import display

    return display(data, raw=True, display_id=True if display_id else None)  # type: ignore[no-untyped-call]  # IPython has no types


class RedrawnPart(Redrawn):
    """A part of a cell's output that is updated in place.

    Parameters
    ----------
    render
        Returns the MIME bundle for the current content; empty while there is nothing to show.
    """

    def __init__(self, render: Callable[[Any], dict[str, str]]) -> None:
        self._render = render
        self._handle: Any = None
        self._shown: dict[str, str] = {}
        super().__init__(_TICK)

    def draw(self, content: Any) -> None:
        """Send what changed since it was sent last."""
        data = self._render(content)
        if data == self._shown:
            return
        if self._handle is None:
            self._handle = show_bundle(data, display_id=True)
        else:
            self._handle.update(data, raw=True)
        self._shown = data


class NotebookOutput:
    """An output that writes to the running cell."""

    def __init__(self) -> None:
        self.hints = Hints(chat="%%chat {name}", command="%llmos")
        self.redraws = True

    def lines(self, lines: list[Line]) -> None:
        """Show a result line by line."""
        text = "\n".join(plain(line) for line in lines)
        show_bundle(_with_magics({"text/html": lines_html(lines), "text/plain": text}))

    def show(self, content: Renderable) -> None:
        """Show a result such as a table."""
        show_bundle(_render(content))

    def text(self, text: str) -> None:
        """Print a result for programs."""
        if "\n" not in text:
            text = in_notebook(text)
        print(text, end="" if text.endswith("\n") else "\n")  # noqa: T201 - a cell's output is standard output

    def piece(self, text: str) -> None:
        """Print a part of a continuing result."""
        print(clean_block(text), end="", flush=True)  # noqa: T201 - as above

    def note(self, text: str) -> None:
        """Show a remark in small grey text."""
        self.lines([(Span(clean_block(text), "dim"),)])

    def footer(self, text: str) -> None:
        """Show a small line under a result."""
        self.note(text)

    def confirm(self, question: str) -> bool:  # noqa: ARG002 - the cell itself was the decision
        """Return True without asking."""
        # running the cell was the decision, and a question would stop notebooks that are run as a whole
        return True

    def live(self) -> AbstractContextManager[Live]:
        """Provide a part that is updated in place while the block runs."""
        return closing(RedrawnPart(_render))
