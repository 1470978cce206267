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
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis import exceptions

from llmos.errors import Internal, Unavailable
from llmos.resources import KINDS
from llmos_hub.failures import reason
from llmos_hub.stores._lua import PREPARE, Script
from llmos_hub.stores.connections import Connections, without_password
from llmos_hub.stores.keys import SCHEMA_VERSION, Keys

__all__ = ["SCHEMA_VERSION", "Database", "Keys", "Migration"]

log = logging.getLogger(__name__)

Migration = Callable[["Database"], Awaitable[None]]
"""A function that migrates a database from one version to the next; must be safe to run again after a failure."""

_RETRY_PAUSES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3)  # seconds between attempts; the last one repeats
_MIGRATION_LOCK = 600  # seconds after which another process may try
_NOT_RUN = (exceptions.BusyLoadingError,)  # the server says that it executed nothing
_REFUSED = (exceptions.AuthenticationError, exceptions.AuthorizationError)


class Database:
    """A pool of connections to one database.

    Parameters
    ----------
    url
        ``unix://:PASSWORD@/path/valkey.sock`` or ``redis://…``.
    keys
        The names of the keys.
    timeout
        Seconds after which an operation fails.
    patience
        Seconds for which a repeatable operation is retried while the server can't be reached.
    max_connections
        Connections at once, at most; further operations wait for one.
    migrations
        By version, the migration to the next version.

    Raises
    ------
    UsageError
        The URL can't be read.
    """

    def __init__(
        self,
        url: str,
        *,
        keys: Keys | None = None,
        timeout: float = 5.0,
        patience: float = 2.5,
        max_connections: int = 32,
        migrations: Mapping[int, Migration] | None = None,
    ) -> None:
        self.keys = keys or Keys()
        self.timeout = timeout
        self._patience = patience
        self._migrations = dict(migrations or {})
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
                raise self._refused(error) from None
            except TimeoutError:
                raise self._unavailable(f"did not answer within {limit:g} s") from None
            except (exceptions.RedisError, OSError) as error:
                if isinstance(error, _REFUSED) or isinstance(error.__cause__, _REFUSED):
                    raise self._unavailable("refuses the log-in: wrong or missing password") from None
                may_repeat = repeatable or not sent[0] or isinstance(error, _NOT_RUN)
                pause = _RETRY_PAUSES[min(attempt, len(_RETRY_PAUSES) - 1)]
                attempt += 1
                spent = time.monotonic() - start
                if not may_repeat or spent + pause > min(self._patience, limit) or self._closed:
                    raise self._unavailable(
                        f"can't be reached: {'this process has closed it' if self._closed else reason(error)}"
                    ) from None
                await asyncio.sleep(pause)

    async def _once(self, command: tuple[Any, ...], sent: list[bool]) -> Any:
        if self._closed:
            message = "this process has closed it"
            raise exceptions.ConnectionError(message)
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

    async def epoch(self) -> str:
        """Return the database's id; initializes an empty database first, and migrates an older one.

        Raises
        ------
        Unavailable
            The database doesn't answer, or was written by a newer version.
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
        derived = [key(kind.plural) for kind in KINDS.values() for key in (self.keys.sizes, self.keys.indexed)]
        keys = [self.keys.epoch, self.keys.revision, self.keys.schema, *derived]
        epoch, schema = await self.script(PREPARE, keys, [uuid.uuid4().hex, SCHEMA_VERSION], repeatable=True)
        version = int(schema or 0)
        if version > SCHEMA_VERSION:
            message = (
                f"The database at {self} was written by a newer LLMOS (layout {version}, this one knows {SCHEMA_VERSION}). "
                "Start the newer one."
            )
            raise Unavailable(message)
        if version < SCHEMA_VERSION:
            await self._migrate()
        await self._warn_of_settings()
        return str(epoch.decode())

    async def _migrate(self) -> None:
        """Migrate to the current layout, one version after the other, in one process at a time."""
        if not await self.run("SET", self.keys.migration, "1", "NX", "EX", _MIGRATION_LOCK):
            message = f"The database at {self} is being brought to a newer layout. Try again in a moment."
            raise Unavailable(message)
        try:
            version = int(await self.run("GET", self.keys.schema, repeatable=True))  # may be migrated already
            while version < SCHEMA_VERSION:
                log.info("Bringing the database at %s from layout %d to %d.", self, version, version + 1)
                if version not in self._migrations:
                    message = f"The database at {self} has layout {version}, from which this LLMOS knows no way on."
                    raise Internal(message)
                await self._migrations[version](self)
                version += 1
                await self.run("SET", self.keys.schema, version, repeatable=True)
        finally:
            await self.run("DEL", self.keys.migration, repeatable=True)

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

    def _unavailable(self, why: str) -> Unavailable:
        return Unavailable(f"The database at {self} {why.rstrip('.')}.")

    def _refused(self, error: exceptions.ResponseError) -> Unavailable | Internal:
        """Return the error for a refusal: a state of the server (full disk, read-only), or a bug of this program."""
        text = str(error)
        if isinstance(error, exceptions.OutOfMemoryError) or text.startswith("OOM"):
            return self._unavailable(
                "is full: it holds as much as it may (maxmemory). What is there can be read and deleted; delete what is "
                "not needed, or let an admin give it more memory"
            )
        if "NOREPLICAS" in text or text.startswith("Not enough good replicas"):
            # `llmos_hub.supervisor.disk` stops writes this way; on an external server it can be intended
            why = "its disk is nearly full" if str(self).startswith("unix:") else "it has fewer replicas than it needs"
            return self._unavailable(f"saves nothing at the moment: {why}. It continues by itself once that is fixed")
        states = ("MISCONF", "OOM", "READONLY", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "MASTERDOWN", "NOPERM", "NOAUTH")
        if isinstance(error, (exceptions.ReadOnlyError, exceptions.OutOfMemoryError)) or text.startswith(states):
            return self._unavailable(f"refuses: {text}")
        return Internal(f"The database at {self} did not understand: {text}")
