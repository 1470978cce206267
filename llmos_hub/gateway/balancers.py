"""Load balancing: the choice of the replica that answers the next request."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from llmos_hub.gateway.upstream import UpstreamReplica

__all__ = ["LeastOutstanding"]


class LeastOutstanding:
    """A balancer of one model that chooses the replica with the fewest requests under way; among equals, each in turn.

    With engines that batch, outstanding requests are the best estimate of load that needs no request to the
    engine; turns matter because after a pause all replicas are equal, and always taking the first would
    warm only its prompt cache.
    """

    def __init__(self) -> None:
        self._turn = 0

    def choose(
        self, replicas: Sequence[UpstreamReplica], tried: Collection[UpstreamReplica], now: float
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
        """
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
