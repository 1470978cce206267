"""Replicas of models, with pools of connections to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote, urlsplit

from llmos_hub.gateway.connection import LOST, NEVER, ConnectFailed, Connection, Hangs, Lost, TimedOut, UpstreamError
from llmos_hub.gateway.hanging import HangWatch
from llmos_hub.gateway.options import GatewayOptions

__all__ = ["UpstreamReplica", "Upstreams"]

_SWEEP: Final = 0.25
"""Maximum seconds between two checks of all connections."""
_MOST_DOUBLINGS: Final = 3
"""An unreachable replica is passed over for twice as long each time, up to eight times as long."""


class UpstreamReplica:
    """One replica of a model and the connections to it.

    Attributes
    ----------
    id, url
        As in `llmos.resources.workload.Endpoint`.
    outstanding
        Requests under way.
    aside_until
        The loop's time until which other replicas are preferred, since this one could not be reached.
    health
        The path of a health check that is answered even while the engine computes; empty if there is none.
    heard_at
        The loop's time when something was last received from it.
    watch
        Finds out whether it hangs.
    """

    def __init__(self, upstreams: Upstreams, id_: str, url: str) -> None:
        self.id = id_
        self.url = url
        self.outstanding = 0
        self.aside_until = 0.0
        self.health = b""
        self.heard_at = 0.0
        self.watch = HangWatch(self, self._stop_waiting)
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
        """Return the connection used last, which is the least likely to have been closed; None if there is none."""
        return self._idle.pop() if self._idle else None

    async def connect(self) -> Connection:
        """Return a new connection.

        Raises
        ------
        ConnectFailed
            It was refused or timed out. The replica is passed over for a while.
        """
        loop, options = self._upstreams.loop, self._upstreams.options
        connection = self._connection()
        began = loop.time()
        if self._failures:  # one request finds out whether it is back; others needn't wait for that
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

    def _connection(self) -> Connection:
        return Connection(self, self._upstreams.active, self._upstreams.options, self._upstreams.loop)

    async def _open(self, connection: Connection) -> None:
        loop = self._upstreams.loop
        if self._path:
            await loop.create_unix_connection(lambda: connection, self._path)
        else:
            await loop.create_connection(lambda: connection, self._host, self._port)

    def look_after(self, now: float) -> None:
        """Find out whether it hangs, if it has a health check."""
        options = self._upstreams.options
        if self.health and not self._retired:
            self.watch.look(now, options.check_after, options.check_timeout)

    async def ask_health(self) -> None:
        """Return when it has answered anything or closed the connection; in either case it isn't hanging.

        Raises
        ------
        OSError
            No connection could be established.
        """
        connection = self._connection()
        try:
            await self._open(connection)
            connection.send(b"GET %s HTTP/1.1\r\nhost: llmos\r\nconnection: close\r\n\r\n" % self.health, b"")
            with contextlib.suppress(UpstreamError):
                await connection.head()
        finally:
            connection.abort()

    def _stop_waiting(self) -> None:
        self._upstreams.abort(self, Hangs("it accepts requests, but no longer answers health checks"))
        self.close_idle()

    def put_aside(self, began: float) -> None:
        """Prefer other replicas for a while, longer each time that this one can't be reached; drop its connections.

        Parameters
        ----------
        began
            The time at which the failed attempt began. Of several attempts at once, only the first failure counts.
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

    def close_idle(self, before: float = NEVER) -> None:
        """Close the connections that have been unused since `before` (default: all)."""
        while self._idle and self._idle[0].idle_since <= before:  # the oldest is first
            self._idle.pop(0).abort()

    def retire(self) -> None:
        """Keep no connection any more, since it is no longer ready; running exchanges continue."""
        self._retired = True
        self.watch.stop()
        self.close_idle()


class Upstreams:
    """All replicas by address, and the timer that watches over their connections.

    There is one periodic sweep instead of timers per request, so that setting a deadline is an assignment.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.active: set[Connection] = set()
        self._replicas: dict[tuple[str, str], UpstreamReplica] = {}
        self._timer: asyncio.TimerHandle | None = None
        shortest = min(options.first_byte_timeout, options.idle_timeout, options.pool_idle)
        self._interval = min(_SWEEP, shortest / 2)
        self._sweep()

    def replica(self, id_: str, url: str, health: bytes = b"") -> UpstreamReplica:
        """Return the replica at that address; the same object for the same id and address.

        Parameters
        ----------
        health
            The path of a health check that is answered even while the engine computes.
        """
        key = (id_, url)
        replica = self._replicas.get(key)
        if replica is None:
            replica = self._replicas[key] = UpstreamReplica(self, id_, url)
        replica.health = health
        return replica

    def abort(self, replica: UpstreamReplica, error: UpstreamError) -> None:
        """End all exchanges with a replica."""
        for connection in [c for c in self.active if c.belongs_to(replica)]:
            connection.abort(error)

    def retain(self, replicas: Iterable[UpstreamReplica]) -> None:
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
            connection.abort(Lost(LOST))
        for connection in list(self.active):
            connection.check(now)
        for replica in self._replicas.values():
            replica.close_idle(now - self.options.pool_idle)
        self._timer = self.loop.call_later(self._interval, self._sweep)
