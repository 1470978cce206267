"""Who of several controllers processes does the work: the holder of a lease.

After Kubernetes' leader election (https://pkg.go.dev/k8s.io/client-go/tools/leaderelection): one object is
written over and over by the leader; whoever sees it unchanged for the lease's length may take it, and of several
who try the database lets one through. Times are compared on one's own clock alone, so that clocks may differ.

A leader that can't renew stops before others may begin: it leads for `Timing.renew_within` after its last
renewal, they wait for `Timing.duration`. In between lies what one's clock may drift and what a request may take that
is on its way. A process that was frozen meanwhile finds that its time is over before it writes anything
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

from llmos.errors import AlreadyExists, Conflict, LLMOSError, UsageError
from llmos.resources.base import utcnow

__all__ = ["Alone", "Election", "Leadership", "Lease", "Leases", "Timing", "own_identity"]

logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Lease:
    """What the object says.

    Attributes
    ----------
    holder
        Who leads; empty where the last one gave it up.
    duration
        Seconds after the last renewal for which nobody else takes it.
    acquired, renewed
        When its holder got it and last wrote it, by the holder's clock; for people.
    transitions
        How often it has changed hands: the leader's term.
    version
        The object's resourceVersion; empty where there is none yet.
    """

    holder: str
    duration: float
    acquired: datetime
    renewed: datetime
    transitions: int
    version: str = ""


class Leases(Protocol):
    """Where the object is kept. Each method raises `LLMOSError` where that doesn't answer."""

    async def read(self) -> Lease | None:
        """As it is now; None where there is none."""
        ...

    async def write(self, lease: Lease) -> Lease:
        """Create it (`Lease.version` empty) or replace the one of that version.

        Raises
        ------
        Conflict, AlreadyExists
            Somebody else was faster.
        """
        ...


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take, in seconds; the defaults are those of Kubernetes' own controllers.

    Attributes
    ----------
    duration
        After which others may take the lease: how long nobody works when a leader is killed.
    renew_within
        After which a leader that could not renew stops.
    period
        Between two tries.
    """

    duration: float = 15.0
    renew_within: float = 10.0
    period: float = 2.0

    def __post_init__(self) -> None:
        if not self.duration > self.renew_within > 1.5 * self.period > 0:
            raise UsageError(
                f"A lease of {self.duration:g} s, renewed within {self.renew_within:g} s, tried every {self.period:g} s: "
                "the first must be longer than the second, and that longer than one and a half of the third."
            )

    @classmethod
    def of(cls, duration: float) -> Timing:
        """The same proportions for another length."""
        return cls(duration, duration * 2 / 3, duration * 2 / 15)


class Leadership(Protocol):
    """Lets work be done by one process at a time."""

    @property
    def leading(self) -> bool:
        """Whether this process may work at this moment."""
        ...

    @property
    def term(self) -> int:
        """A number that is larger with each leader; that of the last term while not leading."""
        ...

    async def run(self, work: Work) -> None:
        """Do the work while leading, again and again until cancelled; what it raises is raised.

        Work is cancelled when leadership is lost, and has ended before it is sought again.
        """
        ...


class Alone:
    """There is no other: for the workstation, where a lock on the directory sees to that."""

    leading = True
    term = 1

    async def run(self, work: Work) -> None:
        """Do the work."""
        await work()


def own_identity() -> str:
    """A name for this process that no other has or had: a name used again would inherit a lease."""
    return f"{socket.gethostname()}_{os.getpid()}_{uuid.uuid4().hex[:12]}"


def _boot_time() -> float:
    """Seconds that go on while the machine sleeps, which those of `time.monotonic` don't."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Election:
    """Leads while it holds the lease.

    Parameters
    ----------
    leases
        Where the lease is.
    identity
        Who this is; `own_identity`.
    timing
        How long things take.
    told
        Called with whether this leads and the term, at each change.
    clock
        Seconds that only grow.
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
        """Whether it holds the lease for certain."""
        return self._held is not None and self._clock() < self._until

    @property
    def term(self) -> int:
        """How often the lease had changed hands when it was last seen."""
        lease = self._held or self._seen
        return lease.transitions if lease is not None else 0

    @property
    def leader(self) -> str:
        """Who led when the lease was last seen; empty for nobody."""
        lease = self._held or self._seen
        return lease.holder if lease is not None else ""

    async def run(self, work: Work) -> None:
        """Seek the lease, work while it is held, and so on; given up when cancelled, for others to go on at once."""
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

    # Seeking

    async def _acquire(self) -> None:
        while True:
            try:
                if await self._try():
                    return
            except (LLMOSError, TimeoutError) as error:
                logger.warning("The lease can't be read or written: %s", error)
            # not all at once, when several wait for the same moment
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
        """Write it; whether that was done before anybody else."""
        asked_at = self._clock()
        try:
            async with asyncio.timeout(self._timing.renew_within / 2):
                self._held = await self._leases.write(lease)
        except (Conflict, AlreadyExists):
            return False
        # from before it was asked: the answer may have taken long
        self._until = asked_at + self._timing.renew_within
        return True

    # Leading

    async def _lead(self, work: Work) -> None:
        task = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew(), name="renew the lease")
        try:
            await asyncio.wait({task, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            # what is under way may end, under the lease or, once that is over, refused every write
            await asyncio.gather(task, return_exceptions=True)
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            lost = not self.leading
            self._tell(leading=False)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
        if lost:
            logger.warning("%s leads no longer (term %d)", self._identity, self.term)
            self._seen, self._held = None, None
            return
        message = "the work of a leader ended by itself"
        raise AssertionError(message)

    async def _renew(self) -> None:
        """Renew until that has not been possible for too long, or somebody else holds the lease."""
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
        """The lease where it is still ours: an earlier write whose answer was lost, or an edit by hand."""
        async with asyncio.timeout(self._timing.renew_within / 2):
            found = await self._leases.read()
        if found is None or found.holder != self._identity:
            self._until = 0.0
            return None
        return found

    async def _release(self) -> None:
        """Give the lease up, so that another need not wait for it."""
        held, self._held, self._until = self._held, None, 0.0
        if held is None:
            return
        with contextlib.suppress(LLMOSError, TimeoutError):
            async with asyncio.timeout(self._timing.period):
                await self._leases.write(replace(held, holder="", renewed=utcnow()))
                logger.info("%s has given up the lease", self._identity)
