"""Leader election among several controllers processes: the holder of a lease does the work.

It follows Kubernetes' leader election (https://pkg.go.dev/k8s.io/client-go/tools/leaderelection): the leader
renews one object; a process that sees it unchanged for the lease's duration may take it, and of several
that try, the database lets one succeed. Each process uses only its own clock, so that clocks may differ.

A leader that can't renew stops before others may start: it leads for `Timing.renew_within` after its last
renewal, others wait for `Timing.duration`. The difference covers clock drift and requests that are
still being processed. A process that was suspended meanwhile notices that its time is over before it writes
(`llmos_hub.controllers.fencing`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from llmos.errors import AlreadyExists, Conflict, LLMOSError
from llmos.resources.base import utcnow
from llmos_hub.tasks import cancel

__all__ = ["Alone", "Election", "Leadership", "Lease", "Leases", "Timing", "own_identity"]

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Lease:
    """The contents of the lease object.

    Attributes
    ----------
    holder
        The leader's identity; empty after it was released.
    duration
        Seconds after the last renewal during which no other process takes it.
    acquired, renewed
        Times when the holder acquired and last renewed it, by the holder's clock; informational.
    transitions
        Number of changes of the holder: the leader's term.
    version
        The object's resourceVersion; empty if it doesn't exist yet.
    """

    holder: str
    duration: float
    acquired: datetime
    renewed: datetime
    transitions: int
    version: str = ""


class Leases(Protocol):
    """A store of the lease object. Each method raises `LLMOSError` if it doesn't answer."""

    async def read(self) -> Lease | None:
        """Return the current lease; None if it doesn't exist."""
        ...

    async def write(self, lease: Lease) -> Lease:
        """Create the lease (`Lease.version` empty), or replace the one with that version.

        Raises
        ------
        Conflict, AlreadyExists
            Another process wrote it first.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """The intervals of the election in seconds; the defaults are those of Kubernetes' own controllers.

    Attributes
    ----------
    duration
        Time until others may take the lease: no process works for so long after a leader was killed.
    renew_within
        Time after which a leader that could not renew stops.
    period
        Time between attempts to acquire or renew.
    """

    duration: float = 15.0
    renew_within: float = 10.0
    period: float = 2.0

    @classmethod
    def of(cls, duration: float) -> Timing:
        """Return intervals in the same proportions for another duration."""
        return cls(duration, duration * 2 / 3, duration * 2 / 15)


class Leadership(Protocol):
    """A guarantee that only one process works at a time."""

    @property
    def leading(self) -> bool:
        """True if this process may work at this moment."""
        ...

    async def run(self, work: Work) -> None:
        """Run `work` whenever leading, until cancelled; its exceptions are propagated.

        The work is cancelled when leadership is lost, and has ended before leadership is acquired again.
        """
        ...


class Alone:
    """The leadership of the only process: on a workstation, where a lock on the directory guarantees that."""

    leading = True

    async def run(self, work: Work) -> None:
        """Run `work`."""
        await work()


def own_identity() -> str:
    """Return a unique name for this process: with a reused name it would take over another process's lease."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:12]}"


def _boot_time() -> float:
    """Return monotonic seconds that also count while the machine sleeps, unlike `time.monotonic`."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Election:
    """The leadership of the process that holds the lease.

    Parameters
    ----------
    leases
        The store of the lease.
    identity
        The name of this process; see `own_identity`.
    timing
        The intervals of the election.
    told
        Called at each change with whether this process leads, and the term.
    clock
        A monotonic clock in seconds.
    """

    def __init__(
        self,
        leases: Leases,
        identity: str,
        *,
        timing: Timing | None = None,
        told: Callable[[bool, int], None] | None = None,
        clock: Callable[[], float] = _boot_time,
    ) -> None:
        self._leases = leases
        self._identity = identity
        self._timing = timing or Timing()
        self._told = told
        self._clock = clock
        self._seen: Lease | None = None
        self._seen_at = 0.0
        self._until = 0.0  # when leading ends unless it is renewed
        self._held: Lease | None = None

    @property
    def leading(self) -> bool:
        """True while it certainly holds the lease."""
        return self._held is not None and self._clock() < self._until

    @property
    def term(self) -> int:
        """The number of changes of the holder when the lease was last read."""
        lease = self._held or self._seen
        return lease.transitions if lease is not None else 0

    async def run(self, work: Work) -> None:
        """Acquire the lease and work while it is held, again and again; when cancelled, release it for others."""
        try:
            while True:
                await self._acquire()
                logger.info("%s leads (term %d)", self._identity, self.term)
                self._tell(leading=True)
                await self._lead(work)
        finally:
            await self._release()

    def _tell(self, *, leading: bool) -> None:
        if self._told is not None:
            self._told(leading, self.term)

    # Acquiring

    async def _acquire(self) -> None:
        while True:
            try:
                if await self._try():
                    return
            except (LLMOSError, TimeoutError) as error:
                logger.warning("The lease can't be read or written: %s", error)
            # random, so that waiting processes don't all try at once
            await asyncio.sleep(self._timing.period * random.uniform(0.9, 1.2))  # noqa: S311 - no secret

    async def _try(self) -> bool:
        async with asyncio.timeout(self._timing.renew_within / 2):
            found = await self._leases.read()
        if found is None or self._seen is None or found != self._seen:
            self._seen, self._seen_at = found, self._clock()
        if found is not None and found.holder and self._clock() < self._seen_at + max(found.duration, 0.0):
            return False
        now = utcnow()
        wanted = Lease(
            holder=self._identity,
            duration=self._timing.duration,
            acquired=now,
            renewed=now,
            transitions=found.transitions + 1 if found is not None else 1,
            version=found.version if found is not None else "",
        )
        return await self._write(wanted)

    async def _write(self, lease: Lease) -> bool:
        """Write the lease; return False if another process wrote it first."""
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._timing.renew_within / 2):
                self._held = await self._leases.write(lease)
        except (Conflict, AlreadyExists):
            return False
        # counted from before the request: the answer may have taken long
        self._until = asked_at + self._timing.renew_within
        return True

    # Leading

    async def _lead(self, work: Work) -> None:
        task = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew(), name="renew the lease")
        try:
            await asyncio.wait({task, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            # running work may finish under the lease; after it has expired, each write is refused
            await cancel(task)
            await cancel(renewing)
            lost = not self.leading
            self._tell(leading=False)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        if lost:
            logger.warning("%s leads no longer (term %d)", self._identity, self.term)
            self._seen, self._held = None, None
            return
        raise AssertionError("the work of a leader ended by itself")

    async def _renew(self) -> None:
        """Renew the lease until that has failed for too long, or another process holds it."""
        while (left := self._until - self._clock()) > 0:
            await asyncio.sleep(min(self._timing.period, left))
            held = self._held
            if held is None or not self.leading:
                return
            try:
                if await self._write(replace(held, renewed=utcnow())):
                    continue
                current = await self._reread()
                if current is None:
                    return
                self._held = current
            except (LLMOSError, TimeoutError) as error:
                logger.warning("The lease can't be renewed: %s", error)

    async def _reread(self) -> Lease | None:
        """Return the lease if this process still holds it: after a write whose answer was lost, or a manual edit."""
        async with asyncio.timeout(self._timing.renew_within / 2):
            found = await self._leases.read()
        if found is None or found.holder != self._identity:
            self._until = 0.0
            return None
        return found

    async def _release(self) -> None:
        """Release the lease, so that another process needn't wait for it to expire."""
        held, self._held, self._until = self._held, None, 0.0
        if held is None:
            return
        with contextlib.suppress(LLMOSError, TimeoutError):
            async with asyncio.timeout(self._timing.period):
                await self._leases.write(replace(held, holder="", renewed=utcnow()))
                logger.info("%s has given up the lease", self._identity)
