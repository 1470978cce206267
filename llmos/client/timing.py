"""Functions that differ between the two clients: ``await asleep(1)`` becomes ``sleep(1)`` in the generated one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["AsyncText", "Text", "asleep", "sleep"]

AsyncText = Callable[[], Awaitable[str]]
"""An asynchronous function that returns a string."""
Text = Callable[[], str]
"""A synchronous function that returns a string."""


async def asleep(seconds: float) -> None:
    """Suspend this task for `seconds`."""
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Suspend this thread for `seconds`."""
    time.sleep(seconds)
