"""A queue of server starts: a limited number at a time, the others in the order of their arrival.

JupyterHub's own limit refuses further starts and asks users to try again, which they then all do at the same time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

__all__ = ["StartQueue"]


class StartQueue:
    """A queue with a number of places for concurrent starts.

    Parameters
    ----------
    places
        Maximum number of concurrent starts; 0 for no limit.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._starting: set[Hashable] = set()
        self._waiting: dict[Hashable, asyncio.Event] = {}

    async def enter(self, who: Hashable) -> None:
        """Wait for a place; return at once if `who` has one."""
        if who in self._starting:
            return
        if self._has_place():
            self._starting.add(who)
            return
        turn = self._waiting[who] = asyncio.Event()
        try:
            await turn.wait()
        except asyncio.CancelledError:
            self.leave(who)
            raise

    def leave(self, who: Hashable) -> None:
        """Give the place to the next in the queue, or stop waiting for one; idempotent."""
        self._waiting.pop(who, None)
        self._starting.discard(who)
        while self._waiting and self._has_place():
            following = next(iter(self._waiting))
            self._starting.add(following)
            self._waiting.pop(following).set()

    def _has_place(self) -> bool:
        return not self._places or len(self._starting) < self._places

    def position(self, who: Hashable) -> int:
        """Return the position in the queue, 1 for the next; 0 if `who` doesn't wait."""
        for number, waiting in enumerate(self._waiting, start=1):
            if waiting == who:
                return number
        return 0
