"""HTTP/1.1 to the engines: pooled connections over unix sockets and loopback TCP.

An own client, because the two that are there cost more per request than everything else in the gateway
together, parse what is only passed on, and hide what is needed to decide whether a request may be sent
again: whether the connection was a used one, and whether a byte of an answer had come.

An engine is whatever a user runs (engine ``custom``), so its answers are bounded like a stranger's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import unquote, urlsplit

import httptools

from llmos_hub.gateway.hanging import Watch
from llmos_hub.gateway.liveness import Socket, is_lost, probe, unacknowledged
from llmos_hub.gateway.options import GatewayOptions

__all__ = [
    "Broken",
    "ConnectFailed",
    "Connection",
    "Hangs",
    "Head",
    "Lost",
    "Replica",
    "TimedOut",
    "UpstreamError",
    "Upstreams",
]

_HIGH_WATER: Final = 64 * 1024
"""Bytes of an answer held for a client that reads slowly, before the engine is no longer read from."""
_SWEEP: Final = 0.25
_NEVER: Final = float("inf")
_LOST_WORDS: Final = "its machine no longer answers"
_MOST_DOUBLINGS: Final = 3
"""A replica that can't be reached is passed over for twice as long each time, up to eight times as long."""


class UpstreamError(Exception):
    """A replica did not answer as it should."""


class ConnectFailed(UpstreamError):
    """No connection came about: nothing was sent."""


class Broken(UpstreamError):
    """The connection ended, or what came over it was no HTTP."""


class Lost(Broken):
    """The machine on the other side no longer acknowledges anything."""


class Hangs(Broken):
    """The replica takes requests, but answers nothing, not even whether it is well."""


class TimedOut(UpstreamError):
    """The replica was silent for too long."""


@dataclass(frozen=True, slots=True)
class Head:
    """An answer's status and headers, names in lower case."""

    status: int
    headers: dict[bytes, bytes]


class Connection(asyncio.Protocol):
    """One connection to a replica, for one exchange after another.

    ``send``, ``await head()``, ``await read()`` until it says that it was the last, then ``release``; or
    ``abort`` at any time. What comes is kept in `_HIGH_WATER` bytes at most (and what one read from the socket
    brought), then the socket is not read until somebody takes it.

    Attributes
    ----------
    used
        Whether an exchange went over it before: such a connection may have been closed by the other side just now.
    answered
        Whether a byte of this exchange's answer has come.
    deadline
        When the replica has been silent for too long; watched by `Upstreams`.
    heard_at
        When it last sent something in this exchange, or was sent the request.
    """

    def __init__(self, upstreams: Upstreams, replica: Replica) -> None:
        self.used = False
        self.answered = False
        self.deadline = _NEVER
        self.idle_since = 0.0
        self.sent_at = self.heard_at = 0.0
        self._upstreams = upstreams
        self._replica = replica
        self._loop = upstreams.loop
        self._options = upstreams.options
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._socket: Socket | None = None
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
        """Send a request; its answer is due within the time to the first byte."""
        if self._error is not None or self._transport is None:
            raise self._error or Broken("the connection was closed")
        self._busy = True
        self.sent_at = self.heard_at = self._loop.time()
        self.deadline = self.sent_at + self._options.first_byte_timeout
        self._upstreams.active.add(self)
        if len(body) <= _HIGH_WATER:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def head(self) -> Head:
        """The answer's status and headers."""
        while self._head is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._head

    async def read(self) -> tuple[bytes, bool]:
        """What of the body has come since the last call, and whether that was the last of it."""
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
        """What it means when the deadline has passed."""
        return "the client took nothing for too long" if self._paused else "it was silent for too long"

    def check(self, now: float) -> None:
        """Have the replica looked after, where it has been silent for a while."""
        after = self._options.check_after
        if now - self.heard_at > after and not self._paused:
            self._replica.look_after(now)

    def belongs_to(self, replica: Replica) -> bool:
        """Whether it is a connection to that replica."""
        return self._replica is replica

    def is_lost(self, now: float) -> bool:
        """Whether what was sent of this exchange has been waiting for an acknowledgement for too long."""
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
        """Give it back after an exchange; it is closed unless the exchange is over and the other side keeps it."""
        self._upstreams.active.discard(self)
        self.deadline = _NEVER
        if not (self._complete and self._reusable) or self._error is not None or self._transport is None:
            self.abort()
            return
        self._busy = False
        self.used = True
        self._reset()
        self._replica.keep(self)

    def abort(self, error: UpstreamError | None = None) -> None:
        """Close it at once: an engine that notices stops computing."""
        self._upstreams.active.discard(self)
        self._error = self._error or error or Broken("the connection was closed here")
        if isinstance(error, Lost):
            self._replica.put_aside(self.sent_at)
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._wake()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, without being subclasses
        self._socket = transport.get_extra_info("socket")
        if self._socket is not None:
            probe(self._socket, self._options.lost_after)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        if self._busy:
            if exc is None and self._to_the_end and self._head is not None:
                self._complete = True
            if is_lost(exc):
                self._replica.put_aside(self.sent_at)
                self._error = self._error or Lost(_LOST_WORDS)
            self._error = self._error or Broken(f"it {'broke' if exc else 'closed'} the connection")
            self._wake()
        else:
            self._error = self._error or Broken("it closed the unused connection")
            self._replica.forget(self)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        if not self._busy or self._complete:
            self.abort(Broken("it sent something that nobody asked for"))
            self._replica.forget(self)
            return
        self.answered = True
        self._unproductive += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.abort(Broken("it wants to speak another protocol"))
        except httptools.HttpParserError as error:
            self.abort(Broken(f"its answer is no HTTP ({error})"))
        else:
            if self._unproductive > self._options.max_head:
                self.abort(Broken(f"its answer's head is larger than {self._options.max_head} bytes"))
        now = self.heard_at = self._replica.heard_at = self._loop.time()
        if not self._paused:
            self.deadline = now + self._options.idle_timeout
        self._wake()

    # httptools

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._complete:
            raise Broken("it sent a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser, also for trailers, which are dropped."""
        if self._head is None:
            self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < 200:  # 100 Continue, 103 Early Hints: the answer is still to come
            self._headers = {}
            return
        if status > 599:
            raise Broken(f"it answers with status {status}")
        self._unproductive = 0
        headers = self._headers
        self._to_the_end = b"content-length" not in headers and b"transfer-encoding" not in headers
        self._reusable = self._parser.should_keep_alive() and not self._to_the_end
        self._head = Head(status, headers)

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._unproductive = 0
        self._chunks.append(body)
        self._size += len(body)
        if self._size > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            # now it is the client who lets us wait; an engine is not held for one who takes nothing any more
            self.deadline = self._loop.time() + self._options.idle_timeout
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        if self._head is not None:
            self._complete = True


class Replica:
    """One replica of a model and the connections to it.

    Attributes
    ----------
    id, url
        As `llmos.resources.modelservice.Endpoint` has them.
    outstanding
        Requests under way.
    aside_until
        Until when (in the loop's time) others are preferred, since it could not be reached.
    health
        The path under which it tells how it is, whatever it computes; empty where there is none.
    heard_at
        When (in the loop's time) something last came from it.
    watch
        Finds out whether it hangs.
    """

    __slots__ = (
        "_failed_at",
        "_failures",
        "_host",
        "_idle",
        "_path",
        "_port",
        "_retired",
        "_upstreams",
        "aside_until",
        "health",
        "heard_at",
        "id",
        "outstanding",
        "url",
        "watch",
    )

    def __init__(self, upstreams: Upstreams, id_: str, url: str) -> None:
        self.id = id_
        self.url = url
        self.outstanding = 0
        self.aside_until = 0.0
        self.health = b""
        self.heard_at = 0.0
        self.watch = Watch(self, self._stop_waiting)
        self._failed_at = 0.0
        self._failures = 0
        self._upstreams = upstreams
        self._idle: list[Connection] = []
        self._retired = False
        parts = urlsplit(url)
        self._path = unquote(parts.path) if parts.scheme == "unix" else ""
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80

    def pooled(self) -> Connection | None:
        """The connection used last, which is the least likely to have been closed; None when there is none."""
        return self._idle.pop() if self._idle else None

    async def connect(self) -> Connection:
        """A new connection.

        Raises
        ------
        ConnectFailed
            It was refused, or did not come about in time. The replica is passed over for a while.
        """
        loop, options = self._upstreams.loop, self._upstreams.options
        connection = Connection(self._upstreams, self)
        began = loop.time()
        if self._failures:  # one request finds out whether it is back; the others needn't wait with it
            self.aside_until = began + options.connect_timeout
        try:
            async with asyncio.timeout(options.connect_timeout):
                await self._open(connection)
        except TimeoutError:
            self.put_aside(began)
            raise ConnectFailed(f"no connection within {options.connect_timeout:g} s") from None
        except OSError as error:
            self.put_aside(began)
            raise ConnectFailed(f"no connection: {error.strerror or error}") from None
        self.aside_until = 0.0
        self._failures = 0
        return connection

    async def _open(self, connection: Connection) -> None:
        loop = self._upstreams.loop
        if self._path:
            await loop.create_unix_connection(lambda: connection, self._path)
        else:
            await loop.create_connection(lambda: connection, self._host, self._port)

    def look_after(self, now: float) -> None:
        """Find out whether it hangs, where it can tell."""
        options = self._upstreams.options
        if self.health and not self._retired:
            self.watch.look(now, options.check_after, options.check_timeout)

    async def ask_health(self) -> None:
        """Return when it has said something, or closed the connection; with whatever it says it isn't hanging.

        Raises
        ------
        OSError
            There is no connection.
        """
        connection = Connection(self._upstreams, self)
        try:
            await self._open(connection)
            connection.send(b"GET %s HTTP/1.1\r\nhost: llmos\r\nconnection: close\r\n\r\n" % self.health, b"")
            with contextlib.suppress(UpstreamError):
                await connection.head()
        finally:
            connection.abort()

    def _stop_waiting(self) -> None:
        self._upstreams.abort(self, Hangs("it takes requests, but does not say any more whether it is well"))
        self.close_idle()

    def put_aside(self, began: float) -> None:
        """Prefer others for a while, and for longer each time that it can't be reached; trust no connection to it.

        Parameters
        ----------
        began
            When the attempt began that failed. Of several that were on their way at once the first one tells it all.
        """
        if began < self._failed_at:
            return
        now = self._failed_at = self._upstreams.loop.time()
        self.aside_until = now + self._upstreams.options.aside * 2.0 ** min(self._failures, _MOST_DOUBLINGS)
        self._failures += 1
        self.close_idle()

    def keep(self, connection: Connection) -> None:
        """Take back a connection that can be used again."""
        if self._retired or len(self._idle) >= self._upstreams.options.pool_size:
            connection.abort()
            return
        connection.idle_since = self._upstreams.loop.time()
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        """Drop an unused connection that was closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, before: float = _NEVER) -> None:
        """Close the connections that have not been used since `before` (default: all)."""
        while self._idle and self._idle[0].idle_since <= before:  # the oldest is first
            self._idle.pop(0).abort()

    def retire(self) -> None:
        """It is no longer ready: keep no connection; what is under way goes on."""
        self._retired = True
        self.watch.stop()
        self.close_idle()


class Upstreams:
    """All replicas by address, and the clock that watches over their connections.

    One sweep for all of them instead of timers per request: a deadline is then an assignment.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.active: set[Connection] = set()
        self._replicas: dict[tuple[str, str], Replica] = {}
        self._timer: asyncio.TimerHandle | None = None
        shortest = min(options.first_byte_timeout, options.idle_timeout, options.pool_idle)
        self._interval = min(_SWEEP, shortest / 2)
        self._sweep()

    def replica(self, id_: str, url: str, health: bytes = b"") -> Replica:
        """The replica at that address; the same object for the same id and address.

        Parameters
        ----------
        health
            The path under which it tells how it is, whatever it computes.
        """
        key = (id_, url)
        replica = self._replicas.get(key)
        if replica is None:
            replica = self._replicas[key] = Replica(self, id_, url)
        replica.health = health
        return replica

    def abort(self, replica: Replica, error: UpstreamError) -> None:
        """End all exchanges with a replica."""
        for connection in [c for c in self.active if c.belongs_to(replica)]:
            connection.abort(error)

    def retain(self, replicas: Iterable[Replica]) -> None:
        """Retire all replicas but these."""
        wanted = set(map(id, replicas))
        for key, replica in list(self._replicas.items()):
            if id(replica) not in wanted:
                del self._replicas[key]
                replica.retire()

    def close(self) -> None:
        """Close every connection."""
        if self._timer is not None:
            self._timer.cancel()
        self.retain(())
        for connection in list(self.active):
            connection.abort()

    def _sweep(self) -> None:
        now = self.loop.time()
        for connection in [c for c in self.active if c.deadline < now]:
            connection.abort(TimedOut(connection.overdue))
        for connection in [c for c in self.active if c.is_lost(now)]:
            connection.abort(Lost(_LOST_WORDS))
        for connection in list(self.active):
            connection.check(now)
        for replica in self._replicas.values():
            replica.close_idle(now - self.options.pool_idle)
        self._timer = self.loop.call_later(self._interval, self._sweep)
