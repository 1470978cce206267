"""A mixin for spawners that queues starts, where JupyterHub would refuse too many concurrent ones."""

from __future__ import annotations

from typing import Any, ClassVar

from traitlets import Integer
from traitlets.config import Configurable

from llmos_spawners.start_queue import StartQueue

__all__ = ["QueuedStarts"]


class QueuedStarts(Configurable):
    """A mixin that limits a spawner's concurrent starts; further ones wait, and their progress page says so.

    A waiting start has done nothing yet, and the wait doesn't count towards `start_timeout`. The spawner calls
    `leave_queue` when its start is over.
    """

    concurrent_starts = Integer(
        min=0,
        config=True,
        help="""
        Maximum number of concurrent starts in this Hub; 0 for no limit. Further starts wait, in the order of their
        arrival.
        """,
    )

    # one queue per spawner class, for all servers of this Hub
    _starts: ClassVar[StartQueue | None] = None

    @property
    def starts(self) -> StartQueue:
        """The queue of this spawner class."""
        kind = type(self)
        if kind._starts is None:  # noqa: SLF001 - an attribute of this class
            kind._starts = StartQueue(self.concurrent_starts)  # noqa: SLF001
        return kind._starts  # noqa: SLF001

    async def run_pre_spawn_hook(self) -> None:
        """Wait for a turn, then run the site's hook."""
        # the Hub calls this before a start, and before `start_timeout` begins
        await self.starts.enter(self)
        spawner: Any = super()  # the class into which this one is mixed
        try:
            if (done := spawner.run_pre_spawn_hook()) is not None:
                await done
        except BaseException:
            self.leave_queue()
            raise

    def leave_queue(self) -> None:
        """Let the next start begin; idempotent."""
        self.starts.leave(self)

    @property
    def waiting(self) -> str:
        """A message with the place in the queue; empty if this start doesn't wait."""
        ahead = self.starts.position(self)
        if not ahead:
            return ""
        others = "" if ahead == 1 else f", {ahead - 1} before you"
        return f"Waiting: others are starting at this moment{others}. Yours starts by itself."
