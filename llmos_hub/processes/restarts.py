"""Growing pauses between the restarts of a process that keeps ending."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BackOff"]


@dataclass(slots=True)
class BackOff:
    """The pause before the next restart of one process, which doubles with each restart.

    Attributes
    ----------
    first, limit
        The first pause and the longest, in seconds.
    steady
        Seconds of running after which earlier restarts are forgotten; by default they never are.
    """

    first: float
    limit: float
    steady: float = math.inf
    _restarts: int = 0

    def ran(self, seconds: float) -> None:
        """Record how long the process ran before it ended."""
        if seconds >= self.steady:
            self.forget()

    def forget(self) -> None:
        """Forget earlier restarts."""
        self._restarts = 0

    def next(self) -> float:
        """Return the seconds to wait before the restart that is due now.

        >>> pauses = BackOff(first=1.0, limit=60.0, steady=60.0)
        >>> [pauses.next() for _ in range(8)]
        [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        """
        self._restarts += 1
        return min(self.limit, self.first * 2.0 ** min(self._restarts - 1, 30))
