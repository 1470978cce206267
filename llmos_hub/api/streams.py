"""Streamed answers: watches and followed logs, line by line.

A stream ends when its client disconnects, when its time is over, when the process stops, and when the caller may no
longer see its content: a revoked token must not continue to read for half an hour.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from llmos.errors import Internal, LLMOSError, TooManyRequests, Unavailable
from llmos_hub.api.metrics import APIMetrics

__all__ = ["LineStream", "Streams", "WholeList", "begun"]

logger = logging.getLogger(__name__)

_CHECK_EVERY: Final = 15.0
"""Seconds between checks that the caller may still see a stream's content."""
_FIRST_LINE: Final = 0.3
"""Seconds to wait for the first line, which may be an error."""
_LAST_WORDS: Final = 5.0
"""Seconds that a slow client has to receive the end of its stream."""


class Streams:
    """The open streams of the process.

    Parameters
    ----------
    metrics
        The metrics that count streams.
    """

    def __init__(self, metrics: APIMetrics) -> None:
        self._metrics = metrics
        self._open: Counter[str] = Counter()
        self.closing = asyncio.Event()
        """Set when the process stops; open streams then end."""

    @contextlib.contextmanager
    def counted(self, owner: str, limit: int) -> Iterator[None]:
        """Count one stream of the owner while the context lasts.

        Raises
        ------
        TooManyRequests
            The owner has `limit` streams already.
        """
        if self._open[owner] >= limit:
            raise TooManyRequests(f"You have {limit} watches and followed logs open, which is the most. Close some.")
        self._open[owner] += 1
        try:
            with self._metrics.streams.track_inprogress():
                yield
        finally:
            self._open[owner] -= 1
            if not self._open[owner]:
                del self._open[owner]


class LineStream(Response):
    """A response that sends lines as they come.

    Parameters
    ----------
    lines
        The lines to send, with line ends.
    streams
        The process's streams.
    resources
        Closed when the stream has ended, for whatever reason.
    lifetime
        Seconds after which it ends.
    check
        Called periodically; raises when the caller may no longer see the stream's content.
    failure
        Returns the last line to send after an error, since the HTTP status is already sent.
    media_type
        The media type of the response.
    """

    def __init__(
        self,
        lines: AsyncIterator[bytes],
        *,
        streams: Streams,
        resources: contextlib.AsyncExitStack,
        lifetime: float,
        check: Callable[[], Awaitable[None]],
        failure: Callable[[LLMOSError], bytes],
        media_type: str,
    ) -> None:
        super().__init__(media_type=media_type)
        # the length is unknown, and a proxy must pass on each line at once
        del self.headers["content-length"]
        self.headers["x-accel-buffering"] = "no"
        self._lines, self._streams, self._resources = lines, streams, resources
        self._lifetime, self._check, self._failure = lifetime, check, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines until the stream ends."""
        del scope
        async with self._resources:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            gone = asyncio.create_task(_disconnected(receive))
            work = (
                asyncio.create_task(self._pump(send)),
                asyncio.create_task(self._keep_checking()),
                asyncio.create_task(self._stopping()),
            )
            tasks = (gone, *work)
            try:
                await asyncio.wait(tasks, timeout=self._lifetime, return_when=asyncio.FIRST_COMPLETED)
                error = _what_went_wrong(work)
                left = gone.done()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if not left:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LAST_WORDS):
                        body = self._failure(error) if error else b""
                        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _pump(self, send: Send) -> None:
        async for line in self._lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})

    async def _keep_checking(self) -> None:
        while True:
            await asyncio.sleep(_CHECK_EVERY)
            await self._check()

    async def _stopping(self) -> None:
        await self._streams.closing.wait()
        raise Unavailable("The API is being restarted. Go on with a new request.")


class WholeList(StreamingResponse):
    """A response that sends a list of many pages as one JSON document.

    Parameters
    ----------
    pieces
        The pieces of the document.
    resources
        Closed when it is sent, or the client is gone.
    """

    def __init__(self, pieces: AsyncIterator[bytes], resources: contextlib.ExitStack) -> None:
        super().__init__(pieces, media_type="application/json")
        self._resources = resources

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the document."""
        with self._resources:
            await super().__call__(scope, receive, send)


def _what_went_wrong(tasks: tuple[asyncio.Task[None], ...]) -> LLMOSError | None:
    for task in tasks:
        if not task.done() or task.cancelled() or (error := task.exception()) is None:
            continue
        if isinstance(error, LLMOSError):
            return error
        logger.error("A stream broke off", exc_info=error)
        return Internal("The platform made a mistake. The log knows more.")
    return None


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def begun(lines: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Return the same lines, but raise an error that comes at once, while the HTTP status can still show it."""

    async def first_line() -> bytes:
        return await anext(lines)

    first = asyncio.create_task(first_line())
    try:
        await asyncio.wait({first}, timeout=_FIRST_LINE)
    except asyncio.CancelledError:
        first.cancel()
        raise
    if first.done() and isinstance(error := first.exception(), LLMOSError):
        raise error

    async def rest() -> AsyncIterator[bytes]:
        try:
            yield await first
        except StopAsyncIteration:
            return
        finally:
            first.cancel()
        async for line in lines:
            yield line

    return rest()
