"""Detection of engines that hang: the kernel still accepts connections and requests for them, but they answer nothing.

An engine may compute a long prompt in silence, so silence alone is no sign. But if an engine that answers health
checks while it computes does not answer one, it is stopped, swapped out or deadlocked. Only such engines are checked,
only while a request waits for them, and not while so many requests wait that the check may be queued behind them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # it has a watch of its own
    from llmos_hub.gateway.upstream import UpstreamReplica

__all__ = ["HEALTH_PATHS", "HangWatch"]

log = logging.getLogger(__name__)

HEALTH_PATHS: Final[Mapping[str, bytes]] = {"llamacpp": b"/health"}
"""Health paths of the engines that answer them even while they compute, by engine name.

A custom engine is never in it: it may have one thread for everything.
"""
_QUESTIONS: Final = 2
_RECOVERY: Final = 1.0
_QUEUE: Final = 128
"""Outstanding requests beyond which an engine may have no thread left for a health check.

llama.cpp uses a thread for each request.
"""


class HangWatch:
    """A watch over one replica that finds out whether it hangs.

    Parameters
    ----------
    replica
        The replica.
    on_hang
        Called once the replica is found to hang, to end the requests that wait for it.

    Attributes
    ----------
    hangs
        True while the replica hangs: from when that is found out until it answers again.
    """

    def __init__(self, replica: UpstreamReplica, on_hang: Callable[[], None]) -> None:
        self.hangs = False
        self._replica = replica
        self._on_hang = on_hang
        self._task: asyncio.Task[None] | None = None
        self._well_at = float("-inf")

    def look(self, now: float, every: float, timeout: float) -> None:
        """Start a check, unless one is running or the last successful one is less than `every` seconds ago."""
        if self._task is None and now - self._well_at > every:
            self._task = asyncio.get_running_loop().create_task(self._look(timeout))
            self._task.add_done_callback(self._looked)

    def stop(self) -> None:
        """Stop checking."""
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
        """Return whether the replica answers anything, or is gone, which is not found out here."""
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
