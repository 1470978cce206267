"""The interface that verbs write to, implemented for terminals and for notebooks."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from llmos.present.hints import Hints
from llmos.present.text import Line, Renderable

__all__ = ["Live", "Output"]


class Live(Protocol):
    """A part of the output that is updated in place; its last content remains."""

    def show(self, content: Renderable) -> None:
        """Show the content from now on; parts that depend on the time are updated."""
        ...


class Output(Protocol):
    """The destination of results, notes and questions.

    Attributes
    ----------
    hints
        Spelling of commands in hints.
    redraws
        Whether `live` can update in place.
    """

    hints: Hints
    redraws: bool

    def lines(self, lines: list[Line]) -> None:
        """Write a result line by line."""
        ...

    def show(self, content: Renderable) -> None:
        """Write a result such as a table, as of now."""
        ...

    def text(self, text: str) -> None:
        """Write a result for programs unchanged: a document, a name."""
        ...

    def piece(self, text: str) -> None:
        """Write a part of a continuing result: a log, an answer."""
        ...

    def note(self, text: str) -> None:
        """Write a remark about the result or its progress."""
        ...

    def footer(self, text: str) -> None:
        """Write a small line under a result; left out if the output isn't interactive."""
        ...

    def live(self) -> AbstractContextManager[Live]:
        """Provide a part that is updated in place while the block runs."""
        ...

    def confirm(self, question: str) -> bool:
        """Ask before something irreversible; return True if nobody can be asked."""
        ...
