"""Waiting for the Hub at the start of a process that has no cached tokens.

A process that has been running continues without the Hub, with its cached tokens. A new process has none: if it
replaced another one while the Hub is unreachable, as in an upgrade of both, it would refuse everybody.
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
        Returns whether the Hub answers.
    calm
        Seconds for which it has to answer: a Hub that is being replaced may still answer once or twice.
    patience
        Seconds after which to stop waiting: a process that answers with the reason of its failure is better than none.
    pause
        Seconds between two calls of `answers`.

    Returns
    -------
    bool
        Whether the Hub answers.
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
