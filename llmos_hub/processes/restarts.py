"""Growing pauses between attempts that keep failing, such as the restarts of a process that keeps ending."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["BackOff"]


@dataclass(slots=True)
class BackOff:
    """The pause before the next attempt, such as the restart of a process, which doubles with each attempt.

    Attributes
    ----------
    first, limit
        The first pause and the longest, in seconds.
    steady
        Seconds of running after which earlier attempts are forgotten; by default they are only by `forget`.
    """

    first: float
    limit: float
    steady: float = math.inf
    _attempts: int = 0

    def ran(self, seconds: float) -> None:
        """Record how long the process ran before it ended."""
        if seconds >= self.steady:
            self.forget()

    def forget(self) -> None:
        """Forget earlier attempts."""
        self._attempts = 0

    def next(self) -> float:
        """Return the seconds to wait before the attempt that is due now.

        >>> pauses = BackOff(first=1.0, limit=60.0, steady=60.0)
        >>> [pauses.next() for _ in range(8)]
        [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
        """
        self._attempts += 1
        return min(self.limit, self.first * 2.0 ** min(self._attempts - 1, 30))
