"""HTTP/1.1 connections to the engines.

The gateway has its own client because the common ones (httpx, aiohttp) cost more per request than everything
else in the gateway together, parse what is only passed on, and hide what is needed to decide whether a request
may be sent again: whether the connection had been used before, and whether a byte of an answer had come.

An engine may be any program of a user (engine ``custom``), so its answers are limited like those of a stranger.
"""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import httptools

from llmos_hub.gateway.liveness import is_lost, probe, unacknowledged
from llmos_hub.gateway.options import GatewayOptions

if TYPE_CHECKING:  # it makes the connections, and keeps them between exchanges
    from llmos_hub.gateway.upstream import UpstreamReplica

__all__ = [
    "LOST",
    "NEVER",
    "Broken",
    "ConnectFailed",
    "Connection",
    "Hangs",
    "Head",
    "Lost",
    "TimedOut",
    "UpstreamError",
]

NEVER: Final = float("inf")
"""A deadline that is never reached."""
LOST: Final = "its machine no longer answers"
"""The text of `Lost`."""
_HIGH_WATER: Final = 64 * 1024
"""Bytes of an answer buffered for a client that reads slowly, beyond which the engine's socket is not read."""


class UpstreamError(Exception):
    """A replica did not answer as it should."""


class ConnectFailed(UpstreamError):
    """The connection could not be established: nothing was sent."""


class Broken(UpstreamError):
    """The connection was closed, or the data received was not HTTP."""


class Lost(Broken):
    """The machine on the other side no longer acknowledges anything."""


class Hangs(Broken):
    """The replica accepts requests but answers nothing, not even health checks."""


class TimedOut(UpstreamError):
    """The replica was silent for too long."""


@dataclass(frozen=True, slots=True)
class Head:
    """The status and headers of an answer, with names in lower case."""

    status: int
    headers: dict[bytes, bytes]


class Connection(asyncio.Protocol):
    """One connection to a replica, for one exchange after another.

    ``send``, ``await head()``, ``await read()`` until it reports the last piece, then ``release``; or ``abort`` at
    any time. At most `_HIGH_WATER` bytes (plus one read from the socket) are buffered; then the socket is not read
    until they are taken.

    Parameters
    ----------
    replica
        The replica on the other side.
    active
        The connections with an exchange under way, among which this one then is.
    options, loop
        The gateway's.

    Attributes
    ----------
    answered
        True once a byte of this exchange's answer has come.
    deadline
        The time at which the replica has been silent for too long; watched by `Upstreams`.
    heard_at
        The time at which the replica last sent something in this exchange, or was sent the request.
    """

    def __init__(
        self,
        replica: UpstreamReplica,
        active: set[Connection],
        options: GatewayOptions,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.answered = False
        self.deadline = NEVER
        self.idle_since = 0.0
        self.sent_at = self.heard_at = 0.0
        self._replica = replica
        self._active = active
        self._options = options
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._socket: socket.socket | None = None  # or an event loop's substitute for one
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamError | None = None
        self._busy = False
        self._reset()

    def _reset(self) -> None:
        self.answered = False
        self._headers: dict[bytes, bytes] = {}
        self._head: Head | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._complete = False
        self._paused = False
        self._reusable = False
        self._to_the_end = False
        self._unproductive = 0

    # one exchange

    def send(self, head: bytes, body: bytes) -> None:
        """Send a request; the first byte of its answer is due within `GatewayOptions.first_byte_timeout`."""
        if self._error is not None or self._transport is None:
            raise self._error or Broken("the connection was closed")
        self._busy = True
        self.sent_at = self.heard_at = self._loop.time()
        self.deadline = self.sent_at + self._options.first_byte_timeout
        self._active.add(self)
        if len(body) <= _HIGH_WATER:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def head(self) -> Head:
        """Return the answer's status and headers."""
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._head

    async def read(self) -> tuple[bytes, bool]:
        """Return the part of the body that came since the last call, and whether it was the last."""
        while not self._chunks and not self._complete:
            if self._error is not None:
                raise self._error
            await self._wait()
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._size = 0
        if self._paused and self._transport is not None and self._error is None:
            self._paused = False
            self.deadline = self._loop.time() + self._options.idle_timeout
            self._transport.resume_reading()
        return data, self._complete

    @property
    def overdue(self) -> str:
        """The reason to give when the deadline has passed."""
        return "the client took nothing for too long" if self._paused else "it was silent for too long"

    def check(self, now: float) -> None:
        """Have the replica's health checked if it has been silent for a while."""
        after = self._options.check_after
        if now - self.heard_at > after and not self._paused:
            self._replica.look_after(now)

    def belongs_to(self, replica: UpstreamReplica) -> bool:
        """Return whether it is a connection to that replica."""
        return self._replica is replica

    def is_lost(self, now: float) -> bool:
        """Return whether data of this exchange has been unacknowledged for too long."""
        after = self._options.lost_after
        if now - self.sent_at <= after or self._socket is None or self._transport is None:
            return False
        return unacknowledged(self._socket) > after

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def release(self) -> None:
        """Return it to the pool after an exchange; close it if the exchange is incomplete or the other side will."""
        self._active.discard(self)
        self.deadline = NEVER
        if not (self._complete and self._reusable) or self._error is not None or self._transport is None:
            self.abort()
            return
        self._busy = False
        self._reset()
        self._replica.keep(self)

    def abort(self, error: UpstreamError | None = None) -> None:
        """Close it at once, so that the engine stops computing."""
        self._active.discard(self)
        self._error = self._error or error or Broken("the connection was closed here")
        if isinstance(error, Lost):
            self._replica.put_aside(self.sent_at)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport; called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, without being subclasses
        self._socket = transport.get_extra_info("socket")
        if self._socket is not None:
            probe(self._socket, self._options.lost_after)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange under way, or leave the pool; called by the event loop."""
        self._transport = None
        if self._busy:
            if exc is None and self._to_the_end and self._head is not None:
                self._complete = True
            if is_lost(exc):
                self._replica.put_aside(self.sent_at)
                self._error = self._error or Lost(LOST)
            self._error = self._error or Broken(f"it {'broke' if exc else 'closed'} the connection")
            self._wake()
        else:
            self._error = self._error or Broken("it closed the unused connection")
            self._replica.forget(self)

    def data_received(self, data: bytes) -> None:
        """Feed the parser; called by the event loop."""
        if not self._busy or self._complete:
            self.abort(Broken("it sent data without a request"))
            self._replica.forget(self)
            return
        self.answered = True
        self._unproductive += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.abort(Broken("it wants to speak another protocol"))
        except httptools.HttpParserError as error:
            ours = error.__context__  # what a callback below has raised
            self.abort(ours if isinstance(ours, Broken) else Broken(f"its answer is no HTTP ({error})"))
        else:
            if self._unproductive > self._options.max_head:
                self.abort(Broken(f"its answer's head is larger than {self._options.max_head} bytes"))
        now = self.heard_at = self._replica.heard_at = self._loop.time()
        if not self._paused:
            self.deadline = now + self._options.idle_timeout
        self._wake()

    # httptools

    def on_message_begin(self) -> None:
        """Check that an answer is expected; called by the parser."""
        if self._complete:
            raise Broken("it sent a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, and drop trailers; called by the parser."""
        if self._head is None:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Set the answer's head; called by the parser."""
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self._headers = {}
            return
        if not 200 <= status <= 599:
            raise Broken(f"it answers with status {status}")
        self._unproductive = 0
        headers = self._headers
        self._to_the_end = b"content-length" not in headers and b"transfer-encoding" not in headers
        self._reusable = self._parser.should_keep_alive() and not self._to_the_end
        self._head = Head(status, headers)

    def on_body(self, body: bytes) -> None:
        """Buffer a piece of the body; called by the parser."""
        self._unproductive = 0
        self._chunks.append(body)
        self._size += len(body)
        if self._size > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            # From now on the deadline is for the client: an engine is not occupied for one that no longer reads.
            self.deadline = self._loop.time() + self._options.idle_timeout
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Mark the answer as complete; called by the parser."""
        if self._head is not None:
            self._complete = True
