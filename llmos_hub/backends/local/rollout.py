"""Rollouts: pure functions that decide which replicas to start and to stop.

The rules follow those of a Deployment with ``maxSurge: 1, maxUnavailable: 0``
(https://kubernetes.io/docs/concepts/workloads/controllers/deployment/), for any count, including one:

* An available replica is stopped only when its replacement, which gets the same index, is available. One replica is
  replaced at a time, and none while a new one isn't available, so that a broken template affects only the first.
* An old replica that isn't available is stopped immediately.
* If there is not enough memory for one more, the old one is stopped first, but only if the memory that it frees is
  enough for the new one, and only while no other replica is missing.
* When the count is reduced, replicas that aren't available are stopped first, then those of the old template, then
  those with the highest index.
* A job never runs twice at the same time: the old one has to be gone before the new one starts. So it is with a
  replica that has ports of its own, since its successor gets the same; such replicas are replaced one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Member", "Start", "Stop", "decide"]


@dataclass(frozen=True, slots=True)
class Member:
    """A replica, as far as the rollout needs it.

    Attributes
    ----------
    current
        True if it has the newest template.
    available
        True if it is ready or, for a job, finished.
    stopping
        True if it is being stopped.
    short_by
        Bytes of memory that are missing for it to start; 0 if it doesn't wait for memory.
    memory
        Bytes of memory that it frees when it is stopped.
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
    """A step that starts a replica of the newest template."""

    index: int


@dataclass(frozen=True, slots=True)
class Stop:
    """A step that drains and stops a replica."""

    id: str


def _choose_slots(count: int, live: Sequence[Member]) -> list[int]:
    """Return the indexes to keep and to fill, in order; the best replicas are kept."""
    ranks: dict[int, tuple[bool, bool, int]] = {}
    for member in live:
        rank = (not member.available, not member.current, member.index)
        ranks[member.index] = min(ranks.get(member.index, rank), rank)
    kept = sorted(ranks, key=lambda index: ranks[index])[:count]
    free = (index for index in itertools.count() if index not in ranks)
    kept.extend(itertools.islice(free, count - len(kept)))
    return sorted(kept)


def decide(
    count: int, members: Sequence[Member], *, completes: bool = False, exclusive: bool = False
) -> list[Start | Stop]:
    """Return the next steps for one role; empty if nothing is to do, or not before something else has happened.

    Parameters
    ----------
    count
        Desired number of replicas.
    members
        All existing replicas, including those that are being stopped.
    completes
        True if they are jobs.
    exclusive
        True if two of the same index can't run at the same time.
    """
    live = [member for member in members if not member.stopping]
    slots = list(range(count)) if completes or exclusive else _choose_slots(count, live)
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
        elif not completes and any(member.available for member in old):
            surges.append(index)
        else:
            steps += [Stop(member.id) for member in old]
            if not (completes or exclusive) or not any(member.index == index for member in members):
                steps.append(Start(index))
    settled = all(member.available for member in live if member.current and member.index in slots)
    leaving = any(member.stopping and member.index in slots for member in members)
    if surges and settled and not leaving and not steps:
        index = surges[0]
        steps += [Stop(member.id) for member in live if member.index == index] if exclusive else [Start(index)]
    return steps
