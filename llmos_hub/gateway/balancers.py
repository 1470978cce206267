"""Load balancing: the choice of the replica that answers the next request."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from llmos_hub.gateway.upstream import UpstreamReplica

__all__ = ["Balancer", "LeastOutstanding"]


class Balancer(Protocol):
    """A strategy that chooses a replica; one instance per model, so that it may keep state."""

    def choose(
        self,
        replicas: Sequence[UpstreamReplica],
        tried: Collection[UpstreamReplica],
        now: float,
        affinity: str | None = None,
    ) -> UpstreamReplica | None:
        """Choose a replica that is not in `tried`; None if none is left.

        Parameters
        ----------
        replicas
            The model's ready replicas.
        tried
            The replicas that have failed this request.
        now
            The event loop's time. A replica that is put aside until later is chosen only if no other is left.
        affinity
            A key that requests share which are best answered by the same replica, such as one that has their beginning
            in its prompt cache; None if any replica is as good. A balancer may ignore it.
        """
        ...


class LeastOutstanding:
    """A balancer that chooses the replica with the fewest requests under way; among equals, each in turn.

    With engines that batch, outstanding requests are the best estimate of load that needs no request to the
    engine; turns matter because after a pause all replicas are equal, and always taking the first would
    warm only its prompt cache.
    """

    def __init__(self) -> None:
        self._turn = 0

    def choose(
        self,
        replicas: Sequence[UpstreamReplica],
        tried: Collection[UpstreamReplica],
        now: float,
        affinity: str | None = None,  # noqa: ARG002 - the protocol's signature
    ) -> UpstreamReplica | None:
        """As `Balancer.choose`; the key is ignored."""
        count = len(replicas)
        if count == 1 and not tried:
            return replicas[0]
        best: UpstreamReplica | None = None
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
