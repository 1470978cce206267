"""Starts in turn: as many at a time as the machine does quickly, the others in the order in which they came.

JupyterHub's own limit refuses those who come too many at once and asks them to try again, all of them at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable

__all__ = ["StartQueue"]


class StartQueue:
    """Places for starts, and those who wait for one.

    Parameters
    ----------
    places
        How many starts may be under way; 0: as many as come.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._starting: set[Hashable] = set()
        self._waiting: dict[Hashable, asyncio.Event] = {}

    async def enter(self, who: Hashable) -> None:
        """Wait for a place; who has one keeps it."""
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
        """Give the place to the next, or no longer wait for one; a second time changes nothing."""
        self._waiting.pop(who, None)
        self._starting.discard(who)
        while self._waiting and self._has_place():
            following = next(iter(self._waiting))
            self._starting.add(following)
            self._waiting.pop(following).set()

    def _has_place(self) -> bool:
        return not self._places or len(self._starting) < self._places

    def position(self, who: Hashable) -> int:
        """1 for the next to get a place; 0 for who doesn't wait."""
        for number, waiting in enumerate(self._waiting, start=1):
            if waiting == who:
                return number
        return 0

    @property
    def length(self) -> int:
        """How many wait."""
        return len(self._waiting)
