"""What differs between the two clients: ``await asleep(1)`` becomes ``sleep(1)`` in the generated one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

__all__ = ["AsyncText", "Text", "asleep", "sleep"]

AsyncText = Callable[[], Awaitable[str]]
"""Finds a text, asking somebody for it."""
Text = Callable[[], str]
"""The same, at once."""


async def asleep(seconds: float) -> None:
    """Let `seconds` pass for this task."""
    await asyncio.sleep(seconds)


def sleep(seconds: float) -> None:
    """Let `seconds` pass for this thread."""
    time.sleep(seconds)
