"""A process's connection to Valkey or Redis: a pool of connections, a time limit on every command, clear errors.

Commands are sent here rather than through the client library's own retries, since only here it is known
whether a command had been sent when the connection broke: one that was not sent, or only reads, is retried for a
while, so that a restart of the server goes unnoticed; a write that may have arrived is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from redis import exceptions

from llmos.errors import Internal, Unavailable
from llmos_hub.failures import reason
from llmos_hub.valkey.connections import Connections, without_password
from llmos_hub.valkey.errors import refused, refuses_log_in, unavailable
from llmos_hub.valkey.schema import INITIALIZE, SCHEMA_VERSION, Keys
from llmos_hub.valkey.scripts import Script

__all__ = ["Database", "Preparation"]

log = logging.getLogger(__name__)

Preparation = Callable[[], Awaitable[None]]
"""A function that writes what its owner needs in an empty database; must be safe to run again at any time."""

_RETRY_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)  # seconds between attempts; the last one repeats
_NOT_RUN = (exceptions.BusyLoadingError,)  # the server says that it executed nothing


class Database:
    """A pool of connections to one database.

    Parameters
    ----------
    url
        ``unix://:PASSWORD@/path/valkey.sock`` or ``redis://…``.
    timeout
        Seconds after which an operation fails.
    patience
        Seconds for which a repeatable operation is retried while the server can't be reached.
    max_connections
        Connections at once, at most; further operations wait for one.

    Raises
    ------
    UsageError
        The URL can't be read.
    """

    def __init__(self, url: str, *, timeout: float = 5.0, patience: float = 2.5, max_connections: int = 32) -> None:
        self.timeout = timeout
        self._patience = patience
        self._preparations: list[Preparation] = []
        self._name = without_password(url)
        self._epoch: str | None = None
        self._preparing = asyncio.Lock()
        self._closed = False
        self._connections = Connections(url, max_connections)

    def __str__(self) -> str:
        return self._name

    async def run(self, *command: Any, repeatable: bool = False, timeout: float | None = None) -> Any:
        """Run one command and return the server's raw answer.

        Parameters
        ----------
        command
            The command and its arguments.
        repeatable
            Whether it may run twice: a read, or an idempotent write.
        timeout
            Seconds; by default the database's `timeout`.

        Raises
        ------
        Unavailable
            The database doesn't answer in time, or refuses the command; a write that isn't `repeatable` may or may
            not have been done.
        """
        limit = self.timeout if timeout is None else timeout
        start = time.monotonic()
        attempt = 0
        while True:
            sent = [False]
            try:
                async with asyncio.timeout(start + limit - time.monotonic()):
                    return await self._once(command, sent)
            except exceptions.NoScriptError:
                raise
            except exceptions.ResponseError as error:
                raise refused(self._name, error) from None
            except TimeoutError:
                raise unavailable(self._name, f"did not answer within {limit:g} s") from None
            except (exceptions.RedisError, OSError) as error:
                if refuses_log_in(error):
                    raise unavailable(self._name, "refuses the log-in: wrong or missing password") from None
                may_repeat = repeatable or not sent[0] or isinstance(error, _NOT_RUN)
                pause = _RETRY_PAUSES[min(attempt, len(_RETRY_PAUSES) - 1)]
                attempt += 1
                spent = time.monotonic() - start
                if not may_repeat or spent + pause > min(self._patience, limit) or self._closed:
                    why = "this process has closed it" if self._closed else reason(error)
                    raise unavailable(self._name, f"can't be reached: {why}") from None
                await asyncio.sleep(pause)

    async def _once(self, command: tuple[Any, ...], sent: list[bool]) -> Any:
        if self._closed:
            raise exceptions.ConnectionError("this process has closed it")
        async with self._connections.one() as connection:
            sent[0] = True
            await connection.send_command(*command, check_health=False)
            return await connection.read_response()

    async def script(self, script: Script, keys: list[str], arguments: list[Any], *, repeatable: bool = False) -> Any:
        """Run a script; its text is sent only if the server doesn't have it yet.

        Raises
        ------
        Unavailable
            As for `run`.
        """
        rest = (len(keys), *keys, *arguments)
        try:
            return await self.run("EVALSHA", script.digest, *rest, repeatable=repeatable)
        except exceptions.NoScriptError:
            return await self.run("EVAL", script.text, *rest, repeatable=repeatable)

    def prepare_with(self, preparation: Preparation) -> None:
        """Run `preparation` in `epoch` before the first use, and again after the database was emptied or replaced."""
        self._preparations.append(preparation)

    async def epoch(self) -> str:
        """Return the database's id; initializes an empty database first.

        Raises
        ------
        Unavailable
            The database doesn't answer, or was written by a newer version.
        Internal
            Its layout is an older one.
        """
        if self._epoch is None:
            async with self._preparing:
                if self._epoch is None:
                    self._epoch = await self._prepare()
        return self._epoch

    def forget(self) -> None:
        """Read the database's id again before the next use: it was emptied or replaced."""
        self._epoch = None

    async def _prepare(self) -> str:
        keys = [Keys.epoch, Keys.schema]
        epoch, schema = await self.script(INITIALIZE, keys, [uuid.uuid4().hex, SCHEMA_VERSION], repeatable=True)
        version = int(schema or 0)
        if version > SCHEMA_VERSION:
            raise Unavailable(
                f"The database at {self} was written by a newer LLMOS (layout {version}, this one knows {SCHEMA_VERSION}). "
                "Start the newer one."
            )
        if version < SCHEMA_VERSION:
            raise Internal(f"The database at {self} has layout {version}, from which this LLMOS knows no way on.")
        for prepare in self._preparations:
            await prepare()
        await self._warn_of_settings()
        return str(epoch.decode())

    async def _warn_of_settings(self) -> None:
        """Log a warning if an external server is configured so that acknowledged writes can be lost."""
        try:
            raw = await self.run("INFO", repeatable=True)
        except Unavailable:  # a managed service may not allow it
            return
        info = dict(line.split(":", 1) for line in raw.decode().split("\r\n") if ":" in line)
        if info.get("aof_enabled") == "0":
            log.warning("The database at %s keeps no append-only file: what it acknowledges can be lost.", self)
        policy = info.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            log.warning("The database at %s may throw away resources when full (maxmemory-policy %s).", self, policy)

    async def ping(self, timeout: float = 2.0) -> bool:
        """Return whether it answers within `timeout` seconds."""
        try:
            return bool(await self.run("PING", repeatable=True, timeout=timeout) == b"PONG")
        except Unavailable:
            return False

    async def close(self) -> None:
        """Close all connections; running operations raise `Unavailable`."""
        self._closed = True
        await self._connections.close()
