"""A spawner whose starts wait for their turn, where JupyterHub would refuse those who come too many at once."""

from __future__ import annotations

from typing import Any, ClassVar

from traitlets import Integer
from traitlets.config import Configurable

from llmos_spawners.start_queue import StartQueue

__all__ = ["QueuedStarts"]


class QueuedStarts(Configurable):
    """Mixed into a spawner: at most so many of its starts are under way, the others wait and their page says so.

    Who waits has begun nothing, and the time for a start (`start_timeout`) doesn't count meanwhile. A spawner calls
    `leave_queue` when its start is over.
    """

    concurrent_starts = Integer(
        min=0,
        config=True,
        help="""
        How many servers may be starting at once in this Hub; 0: as many as come. The others wait for their turn, in
        the order in which they came.
        """,
    )

    # of all servers of this Hub; each class has its own
    _starts: ClassVar[StartQueue | None] = None

    @property
    def starts(self) -> StartQueue:
        """The queue that this server is in with the others of its kind."""
        kind = type(self)
        if kind._starts is None:  # noqa: SLF001 - this very class
            kind._starts = StartQueue(self.concurrent_starts)  # noqa: SLF001
        return kind._starts  # noqa: SLF001

    async def run_pre_spawn_hook(self) -> None:
        """As the Hub calls it before a start, and before the time for it counts: wait for a turn, then the site's hook."""
        await self.starts.enter(self)
        spawner: Any = super()  # the class that this one is mixed into
        try:
            if (done := spawner.run_pre_spawn_hook()) is not None:
                await done
        except BaseException:
            self.leave_queue()
            raise

    def leave_queue(self) -> None:
        """Let the next one start; a second time changes nothing."""
        self.starts.leave(self)

    @property
    def waiting(self) -> str:
        """What the page says to who waits for a turn; empty for who doesn't."""
        ahead = self.starts.position(self)
        if not ahead:
            return ""
        others = "" if ahead == 1 else f", {ahead - 1} before you"
        return f"Waiting: others are starting at this moment{others}. Yours starts by itself."
