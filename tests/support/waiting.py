"""Waiting for a condition. The time limit only turns a hang into a failure."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

__all__ = ["PATIENCE", "eventually", "wait_until"]

PATIENCE = 30.0
"""Seconds after which a wait fails: far more than anything needs, even on a busy machine."""
_PAUSE = 0.01
_LONG_PAUSE = 0.25


async def eventually(holds: Callable[[], Any], what: str = "", *, timeout: float = PATIENCE) -> Any:
    """Wait for a true result of `holds`, which may be a coroutine function, and return it."""
    try:
        async with asyncio.timeout(timeout):
            while True:
                found = holds()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(_PAUSE)
    except TimeoutError:
        raise AssertionError(_failure(what, timeout)) from None


def wait_until(holds: Callable[[], Any], timeout: float = PATIENCE, what: str = "") -> Any:
    """Wait for a true result of `holds` and return it, in a test without an event loop.

    A check that costs something is made less often: it takes the processor from what it waits for.
    """
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        if found := holds():
            return found
        now = time.monotonic()
        assert now < deadline, _failure(what, timeout)
        time.sleep(min(max(_PAUSE, 4 * (now - began)), _LONG_PAUSE))


def _failure(what: str, timeout: float) -> str:
    return f"{what or 'the condition'} not met within {timeout:g} s"
