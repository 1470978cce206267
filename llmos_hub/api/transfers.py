"""Limits on transfers of files: how many a person has open, and how long a piece may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Final

from starlette.requests import ClientDisconnect, Request

from llmos.errors import TooManyRequests, Unavailable, UsageError

__all__ = ["LARGEST_PIECE", "Transfers", "arriving"]

LARGEST_PIECE: Final = 64 * 1024 * 1024
"""Maximum bytes of a file in one request: what a broken connection loses."""
_EACH: Final = 16
_ALL: Final = 128
_SILENCE: Final = 30.0
"""Seconds within which the next bytes of a body must arrive."""


class Transfers:
    """The open transfers of the process."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    @contextlib.contextmanager
    def counted(self, owner: str) -> Iterator[None]:
        """Count one transfer of the owner while the context lasts.

        Raises
        ------
        TooManyRequests
            The owner, or everybody together, has too many.
        """
        if self._open[owner] >= _EACH or self._open.total() >= _ALL:
            raise TooManyRequests(
                f"At most {_EACH} transfers of files at once for each, {_ALL} for all. Wait for some to end."
            )
        self._open[owner] += 1
        try:
            yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


async def arriving(request: Request) -> AsyncIterator[bytes]:
    """Yield a request's body as it arrives.

    Raises
    ------
    UsageError
        Nothing arrives for too long.
    Unavailable
        The client is gone.
    """
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                piece = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise UsageError(f"The next bytes of the file did not arrive within {_SILENCE:.0f} seconds.") from None
        except ClientDisconnect:
            raise Unavailable("The client went away before its request was complete.") from None
        if piece:
            yield piece
