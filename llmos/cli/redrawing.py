"""Live output that is drawn again while it is shown, for terminals and notebooks."""

from __future__ import annotations

import contextvars
import threading
from abc import ABC, abstractmethod
from typing import Any

__all__ = ["Redrawn"]


class Redrawn(ABC):
    """Content that is drawn at every change and regularly: a clock that stands still looks like a program that hangs.

    The drawing thread runs in the context of the code that made it, by which a kernel assigns its output to a cell, also
    if cells run in subshells.

    Parameters
    ----------
    every
        Seconds between two drawings without a change.
    """

    def __init__(self, every: float) -> None:
        self._content: Any = None
        self._every = every
        self._lock = threading.Lock()
        self._stop = threading.Event()
        context = contextvars.copy_context()
        self._ticker = threading.Thread(target=context.run, args=(self._tick,), name="llmos-redraw", daemon=True)
        self._ticker.start()

    @abstractmethod
    def draw(self, content: Any) -> None:
        """Draw the content as of now."""

    def show(self, content: Any) -> None:
        """Show the content."""
        with self._lock:
            self._content = content
            self.draw(content)

    def _tick(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self._redraw()
            except OSError:
                return  # the terminal is gone; the next write of the verb itself says so

    def _redraw(self) -> None:
        with self._lock:
            if self._content is not None:
                self.draw(self._content)

    def close(self) -> None:
        """Leave the last content as a plain record."""
        self._stop.set()
        self._ticker.join()
        self._redraw()
