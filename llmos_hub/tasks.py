"""Ending asyncio tasks."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["cancel"]


async def cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel tasks and wait until they have ended; their results and errors are dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
