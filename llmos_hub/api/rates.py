"""The rate limit on a person's writes: a number per second, with bursts of five seconds' worth."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from llmos.errors import TooManyRequests

__all__ = ["WriteRates"]

_SECONDS_AT_ONCE: Final = 5
_REMEMBERED: Final = 10_000


class WriteRates:
    """A token bucket per person (https://en.wikipedia.org/wiki/Token_bucket), for this process only."""

    def __init__(self) -> None:
        # by person: writes not yet recovered, and the time of that count
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, person: str, per_second: int) -> None:
        """Count a write.

        Raises
        ------
        TooManyRequests
            The person has sent too many; this write is not counted.
        """
        now = time.monotonic()
        spent, at = self._spent.get(person, (0.0, now))
        spent = max(0.0, spent - (now - at) * per_second)
        if spent + 1 > per_second * _SECONDS_AT_ONCE:
            raise TooManyRequests(
                f"You have sent {per_second * _SECONDS_AT_ONCE} writes within {_SECONDS_AT_ONCE} seconds; {per_second} a "
                "second are allowed for long. Send the rest more slowly."
            )
        self._spent[person] = (spent + 1, now)
        self._spent.move_to_end(person)
        while len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)
