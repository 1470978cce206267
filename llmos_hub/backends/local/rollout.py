"""What to start and what to stop, decided from what there is; pure functions.

The rules, after those of a Deployment with ``maxSurge: 1, maxUnavailable: 0``
(https://kubernetes.io/docs/concepts/workloads/controllers/deployment/), for any count, one included:

* A replica that works goes only when its replacement, which gets the same index, is available; one replica
  at a time is replaced, and none as long as a new one isn't available: a broken template stops at the first.
* An old replica that doesn't work goes at once.
* Where the memory doesn't suffice for one more, the old one goes first, but only if what it frees is enough
  for the new one, and only while no other replica is missing.
* Fewer are wanted: those that don't work go first, then those of the old template, then the highest index.
* Jobs never run twice at once: the old one has to be gone before the new one starts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Member", "Start", "Stop", "decide"]


@dataclass(frozen=True, slots=True)
class Member:
    """A replica, as far as the decision needs it.

    Attributes
    ----------
    current
        Whether it is of the newest template.
    available
        Whether it does its work: ready, or done if it is a job.
    stopping
        Whether it is on its way out.
    short_by
        Bytes of memory that are missing for it to start; 0 when it doesn't wait for memory.
    memory
        Bytes that come free when it goes.
    """

    id: str
    index: int
    current: bool
    available: bool = False
    stopping: bool = False
    short_by: int = 0
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """Start a replica of the newest template."""

    index: int


@dataclass(frozen=True, slots=True)
class Stop:
    """Take a replica out, drain it and stop it."""

    id: str


def _choose_slots(count: int, live: Sequence[Member]) -> list[int]:
    """The indexes to keep and to fill, best first, in order of index."""
    ranks: dict[int, tuple[bool, bool, int]] = {}
    for member in live:
        rank = (not member.available, not member.current, member.index)
        ranks[member.index] = min(ranks.get(member.index, rank), rank)
    kept = sorted(ranks, key=lambda index: ranks[index])[:count]
    free = (index for index in itertools.count() if index not in ranks)
    kept.extend(itertools.islice(free, count - len(kept)))
    return sorted(kept)


def decide(count: int, members: Sequence[Member], *, completes: bool = False) -> list[Start | Stop]:
    """The next steps for one role; none when all is as it should be or something must be waited for.

    Parameters
    ----------
    count
        How many are wanted.
    members
        All there are, those that are stopping included.
    completes
        Whether they are jobs.
    """
    live = [member for member in members if not member.stopping]
    slots = list(range(count)) if completes else _choose_slots(count, live)
    steps: list[Start | Stop] = [Stop(member.id) for member in live if member.index not in slots]
    whole = {index for index in slots if any(m.available for m in live if m.index == index)}
    surges: list[int] = []
    for index in slots:
        here = [member for member in live if member.index == index]
        old = [member for member in here if not member.current]
        new = next((member for member in here if member.current), None)
        if new is not None:
            room = sum(member.memory for member in old) >= new.short_by > 0
            makes_way = room and len(whole - {index}) == count - 1
            steps += [Stop(m.id) for m in old if new.available or not m.available or makes_way]
        elif completes:
            steps += [Stop(member.id) for member in old]
            if not any(member.index == index for member in members):
                steps.append(Start(index))
        elif any(member.available for member in old):
            surges.append(index)
        else:
            steps += [Stop(member.id) for member in old]
            steps.append(Start(index))
    settled = all(member.available for member in live if member.current and member.index in slots)
    leaving = any(member.stopping and member.index in slots for member in members)
    if surges and settled and not leaving and not steps:
        steps.append(Start(surges[0]))
    return steps
