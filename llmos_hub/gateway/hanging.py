"""Finding engines that hang: they take connections and requests, since the kernel does that for them, and answer nothing.

A long prompt is no reason to give an engine up, so its silence alone says nothing; but an engine whose health is answered
beside its computing, and isn't, is stopped, swapped out or deadlocked. Only such engines are asked, only while a request
waits for them, and not while so many wait that the question may stand in a queue behind them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

__all__ = ["HEALTH_PATHS", "Watch", "Watched"]

log = logging.getLogger(__name__)

HEALTH_PATHS: Final[Mapping[str, bytes]] = {"llamacpp": b"/health"}
"""Where an engine tells how it is even while it computes, by its name. A command of a user's may have one thread for all."""
_QUESTIONS: Final = 2
_RECOVERY: Final = 1.0
_QUEUE: Final = 128
"""Requests at an engine beyond which it may have no thread left for another question; llama.cpp has a thread for each."""


class Watched(Protocol):
    """What is known of a replica, and how it is asked; see `llmos_hub.gateway.upstream.Replica`."""

    id: str
    outstanding: int
    heard_at: float
    aside_until: float

    async def ask_health(self) -> None:
        """Return when it has said something."""
        ...


class Watch:
    """Looks after one replica.

    Parameters
    ----------
    replica
        The replica.
    on_hang
        Called once it is found to hang: whoever waits for it shall wait no longer.

    Attributes
    ----------
    hangs
        Whether it does; until it answers again nobody needs to wait for it.
    """

    def __init__(self, replica: Watched, on_hang: Callable[[], None]) -> None:
        self.hangs = False
        self._replica = replica
        self._on_hang = on_hang
        self._task: asyncio.Task[None] | None = None
        self._well_at = float("-inf")

    def look(self, now: float, every: float, timeout: float) -> None:
        """Ask it, unless that is being done, or was done lately."""
        if self._task is None and now - self._well_at > every:
            self._task = asyncio.get_running_loop().create_task(self._look(timeout))
            self._task.add_done_callback(self._looked)

    def stop(self) -> None:
        """Ask no longer."""
        if self._task is not None:
            self._task.cancel()

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("looking after replica %s failed", self._replica.id, exc_info=error)

    async def _look(self, timeout: float) -> None:
        replica, loop = self._replica, asyncio.get_running_loop()
        began = loop.time()
        for _ in range(_QUESTIONS):
            if await self._answers(timeout):
                self._well_at = loop.time()
                return
        if replica.heard_at >= began or replica.outstanding > _QUEUE:
            self._well_at = loop.time()
            return
        self.hangs = True
        replica.aside_until = float("inf")
        log.warning("replica %s hangs: it takes connections, but its health is not answered", replica.id)
        self._on_hang()
        try:
            while not await self._answers(timeout):  # noqa: ASYNC110 - nobody tells when it is well again
                await asyncio.sleep(_RECOVERY)
        finally:
            self.hangs = False
            replica.aside_until = 0.0
        self._well_at = loop.time()
        log.warning("replica %s answers again", replica.id)

    async def _answers(self, timeout: float) -> bool:
        """Whether it says anything at all, or is gone, which others find out."""
        try:
            async with asyncio.timeout(timeout):
                await self._replica.ask_health()
        except TimeoutError:
            return False
        except OSError as error:
            if error.errno == errno.EAGAIN:  # a unix socket whose queue of new connections is full
                await asyncio.sleep(timeout)
                return False
        return True
