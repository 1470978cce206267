"""Waiting for the Hub at the start of a process that knows no token yet.

A process that has served goes on without the Hub, by what it remembers. One that has just started remembers nothing:
where it takes the place of one that does while the Hub is away, as in an upgrade of both, everybody is turned away.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

__all__ = ["until_settled"]

log = logging.getLogger(__name__)


async def until_settled(
    answers: Callable[[], Awaitable[bool]], *, calm: float = 5.0, patience: float = 180.0, pause: float = 1.0
) -> bool:
    """Wait until the Hub has answered for a while.

    Parameters
    ----------
    answers
        Whether the Hub does.
    calm
        Seconds for which it has to: one that is being replaced may still answer once or twice.
    patience
        Seconds after which nobody waits any longer: a process that says why it can't help is better than none.
    pause
        Seconds between two questions.

    Returns
    -------
    bool
        Whether it does.
    """
    now = asyncio.get_running_loop().time
    began = now()
    since: float | None = None
    while now() - began < patience:
        if not await answers():
            since = None
        elif since is None:
            since = now()
        if since is not None and now() - since >= calm:
            return True
        await asyncio.sleep(pause)
    log.warning("the Hub has not answered for %.0f seconds; going on without it", patience)
    return False
