"""Identities that processes of one kind share, for tokens that one of them has not seen while the Hub is unreachable.

They are stored in Valkey under a keyed hash of the token, signed, and expire like cached identities: somebody who can
write to Valkey, but doesn't know the platform's own token, can make nobody an admin. They are read only while the Hub
can't be asked, so that no request waits for Valkey otherwise. A refusal by the Hub deletes the entry, as soon as Valkey
can be reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import itertools
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from llmos.errors import LLMOSError
from llmos_hub.policy import Caller
from llmos_hub.tasks import cancel
from llmos_hub.valkey.database import Database
from llmos_hub.valkey.schema import Keys

__all__ = ["SharedIdentities"]

log = logging.getLogger(__name__)

_AGAIN: Final = 300.0
"""Seconds after which the same identity is written again: each is a write to the disk."""
_REMEMBERED: Final = 10_000
_SIGNATURE: Final = 32
_TIMEOUT: Final = 1.0
_UNDER_WAY: Final = 64
"""Maximum number of concurrent writes; more are skipped, since the next answer for the same token is written."""
_AT_ONCE: Final = 100
"""Maximum number of entries that are deleted by one command."""
_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 15.0
"""Maximum pause in seconds before deleting is tried again; the pause is doubled each time."""


class SharedIdentities:
    """A store of identities shared between processes.

    Parameters
    ----------
    database
        The database; closed together with this object.
    secret
        The token of the service itself, the same in all its processes.
    keep
        Seconds for which an identity is used while the Hub is unreachable.
    clock
        The time in seconds since 1970; tests pass their own.
    """

    def __init__(
        self, database: Database, secret: str, *, keep: float = 3600.0, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._secret = hmac.digest(secret.encode(), b"llmos verdicts", "sha256")
        self._keep = keep
        self._clock = clock
        self._written: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._writing: dict[str, asyncio.Task[None]] = {}
        self._forgotten: OrderedDict[str, None] = OrderedDict()
        self._forgetting: asyncio.Task[None] | None = None
        self._unusable_until = 0.0

    def share(self, token: str, caller: Caller) -> None:
        """Write an identity in the background, unless the same was written recently."""
        key, now = self._key(token), self._clock()
        written = self._written.get(key)
        if written is not None and written[0] == caller and 0 <= now - written[1] < _AGAIN:
            return
        if key in self._writing or key in self._forgotten or len(self._writing) >= _UNDER_WAY:
            return
        task = asyncio.get_running_loop().create_task(self._write(key, caller, now))
        self._writing[key] = task
        task.add_done_callback(lambda _: self._writing.pop(key, None))

    def forget(self, token: str) -> None:
        """Delete the entry of a token that the Hub refuses; retry in the background until the database has done it."""
        key = self._key(token)
        self._written.pop(key, None)
        self._forgotten[key] = None
        while len(self._forgotten) > _REMEMBERED:
            self._forgotten.popitem(last=False)
            self._unusable_until = self._clock() + self._keep
        if self._forgetting is None or self._forgetting.done():
            self._forgetting = asyncio.get_running_loop().create_task(self._forget_all())

    async def find(self, token: str) -> tuple[Caller, float] | None:
        """Return the stored caller and the age of the Hub's answer in seconds; None if unknown, or without database."""
        key = self._key(token)
        if key in self._forgotten or self._clock() < self._unusable_until:
            return None
        try:
            value = await self._database.run("GET", key, repeatable=True, timeout=_TIMEOUT)
        except LLMOSError as error:
            log.warning("identities of other processes can't be read: %s", error)
            return None
        if not isinstance(value, bytes) or key in self._forgotten:
            return None
        text = value[_SIGNATURE:]
        if not hmac.compare_digest(value[:_SIGNATURE], self._sign(key, text)):
            log.warning("an identity in the database is not signed by this platform; it is ignored")
            return None
        data = json.loads(text)
        age = max(0.0, self._clock() - data["at"])
        if age >= self._keep:
            return None
        caller = Caller(data["name"], data["admin"], frozenset(data["groups"]), frozenset(data["scopes"]))
        return caller, age

    async def close(self) -> None:
        """Close the connections."""
        await cancel(*self._writing.values(), *([self._forgetting] if self._forgetting is not None else []))
        if self._forgotten:
            with contextlib.suppress(LLMOSError):  # a last attempt; the entries expire within the hour
                await self._forget_some()
        await self._database.close()

    def _key(self, token: str) -> str:
        digest = hmac.digest(self._secret, token.encode(), "sha256").hex()
        return f"{Keys.prefix}:verdicts:{digest}"

    def _sign(self, key: str, text: bytes) -> bytes:
        """Return the signature of an entry."""
        # The key is signed too, so that an entry can't be copied to another key.
        return hmac.digest(self._secret, key.encode() + b"\0" + text, "sha256")

    async def _write(self, key: str, caller: Caller, now: float) -> None:
        data = {
            "name": caller.name,
            "admin": caller.admin,
            "groups": sorted(caller.groups),
            "scopes": sorted(caller.scopes),
            "at": now,
        }
        text = json.dumps(data).encode()
        command = ("SET", key, self._sign(key, text) + text, "EX", int(self._keep))
        try:
            await self._database.run(*command, repeatable=True, timeout=_TIMEOUT)
        except LLMOSError as error:
            log.debug("an identity can't be shared with other processes: %s", error)
            return
        if key in self._forgotten:
            return
        self._written[key] = (caller, now)
        self._written.move_to_end(key)
        while len(self._written) > _REMEMBERED:
            self._written.popitem(last=False)

    async def _forget_all(self) -> None:
        pause = _PAUSE
        while self._forgotten:
            try:
                await self._forget_some()
            except LLMOSError as error:
                if pause == _PAUSE:
                    log.warning(
                        "identities of tokens that the Hub refuses can't be deleted from the database yet: %s", error
                    )
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                pause = _PAUSE

    async def _forget_some(self) -> None:
        keys = list(itertools.islice(self._forgotten, _AT_ONCE))
        writing = [self._writing[key] for key in keys if key in self._writing]
        if writing:
            await asyncio.wait(writing)  # a write must not arrive after the deletion
        await self._database.run("DEL", *keys, repeatable=True, timeout=_TIMEOUT)
        for key in keys:
            self._forgotten.pop(key, None)
