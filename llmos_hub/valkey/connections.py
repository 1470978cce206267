"""Connections to Valkey or Redis, shared by all operations of a process."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final
from urllib.parse import urlsplit

from redis import exceptions
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from llmos.errors import UsageError

__all__ = ["Connections", "without_password"]

_CONNECT_TIMEOUT: Final = 2.0  # seconds; a local socket takes none


class Connections:
    """A pool of at most `limit` connections; a broken one, or one whose answer was not read completely, is not reused.

    The client library's own pool awaits while it takes a connection back, and so leaks one when its user is
    cancelled twice; here that is one synchronous step.

    Raises
    ------
    UsageError
        The URL can't be read.
    """

    def __init__(self, url: str, limit: int) -> None:
        name = without_password(url)
        try:
            factory = ConnectionPool.from_url(
                url,
                socket_timeout=None,  # the operation's own time limit covers the answer
                socket_connect_timeout=_CONNECT_TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                decode_responses=False,
            )
        except ValueError:
            raise UsageError(
                f"{name} is not the address of a database, which reads redis://HOST:PORT or unix:///PATH."
            ) from None
        self._make: Callable[[], AbstractConnection] = factory.make_connection
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[AbstractConnection] = []
        self._open: set[AbstractConnection] = set()
        self._closed = False

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[AbstractConnection]:
        """Provide a connection that is ready for a command."""
        async with self._slots:
            connection = self._idle.pop() if self._idle else self._make()
            self._open.add(connection)
            try:
                await self._ready(connection)
                yield connection
            except exceptions.ResponseError:
                self._idle.append(connection)  # a whole answer was read: the connection is fine
                raise
            except BaseException:
                # an answer may still arrive, and the next user must not take it for its own
                self._open.discard(connection)
                await connection.disconnect(nowait=True)
                raise
            self._idle.append(connection)

    async def _ready(self, connection: AbstractConnection) -> None:
        await connection.connect()  # type: ignore[no-untyped-call]
        if await connection.can_read():  # the server has closed it since
            await connection.disconnect(nowait=True)
            await connection.connect()  # type: ignore[no-untyped-call]
        if self._closed:  # while it was connecting
            raise exceptions.ConnectionError("this process has closed it")

    async def close(self) -> None:
        """Close all connections, also those in use."""
        self._closed = True
        for connection in list(self._open):
            await connection.disconnect()


def without_password(url: str) -> str:
    """Return the URL without its password, for logs and messages."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "(unreadable URL)"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
