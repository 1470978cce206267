"""What a verb writes to: a terminal here, a notebook's cell elsewhere."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from llmos.present.text import Line, Renderable
from llmos.present.transcript import Hints

__all__ = ["Live", "Output"]


class Live(Protocol):
    """A part of the output that is redrawn in place; what it showed last stays."""

    def show(self, content: Renderable) -> None:
        """Show this from now on; what depends on the time is kept up to date."""
        ...


class Output(Protocol):
    """Where results, notes and questions go.

    Attributes
    ----------
    hints
        How the next command is written here.
    redraws
        Whether `live` really redraws in place.
    """

    hints: Hints
    redraws: bool

    def lines(self, lines: list[Line]) -> None:
        """Results, line by line."""
        ...

    def show(self, content: Renderable) -> None:
        """A result such as a table, as it is now."""
        ...

    def text(self, text: str) -> None:
        """A result for programs, as it is: a document, a name."""
        ...

    def piece(self, text: str) -> None:
        """A piece of a result that goes on: a log, an answer."""
        ...

    def note(self, text: str) -> None:
        """What was chosen or happens beside the result."""
        ...

    def footer(self, text: str) -> None:
        """A small line under a result; left out where nobody reads along."""
        ...

    def live(self) -> AbstractContextManager[Live]:
        """A part that is redrawn in place while the block runs."""
        ...

    def confirm(self, question: str) -> bool:
        """Ask before what can't be undone; yes where nobody can be asked."""
        ...
