"""Which of a model's replicas answers the next request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from llmos_hub.gateway.upstream import Replica

__all__ = ["Balancer", "LeastOutstanding"]


class Balancer(Protocol):
    """Chooses a replica; one per model, so that it may remember."""

    def choose(self, replicas: Sequence[Replica], tried: Collection[Replica], now: float) -> Replica | None:
        """One that is not in `tried`; None when none is left.

        Parameters
        ----------
        replicas
            The model's ready replicas.
        tried
            Those that failed this request already.
        now
            The event loop's time: a replica that was put aside until later comes only when no other is left.
        """
        ...


class LeastOutstanding:
    """The replica with the fewest requests under way; among equals each in its turn.

    With engines that batch, outstanding requests are the best estimate of load that needs no question to the
    engine; turns matter because after a pause all replicas are equal, and always taking the first would
    warm only its prompt cache.
    """

    def __init__(self) -> None:
        self._turn = 0

    def choose(self, replicas: Sequence[Replica], tried: Collection[Replica], now: float) -> Replica | None:
        """As `Balancer.choose`."""
        count = len(replicas)
        if count == 1 and not tried:
            return replicas[0]
        best: Replica | None = None
        best_load = (True, 0)
        for offset in range(count):
            replica = replicas[(self._turn + offset) % count]
            if replica in tried:
                continue
            load = (replica.aside_until > now, replica.outstanding)
            if best is None or load < best_load:
                best, best_load = replica, load
        if best is not None:
            self._turn = (replicas.index(best) + 1) % count
        return best
