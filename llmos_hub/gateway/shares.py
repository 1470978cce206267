"""A limited resource shared by many callers, so that nobody can take it all.

Each caller may hold as much as is left for others: a single one half of it, two a third each, and there is always room
for a new one. The number of callers need not be known, and a few callers can use most of the resource.

Source: A. K. Choudhury, E. L. Hahne, "Dynamic queue length thresholds for shared-memory packet switches", IEEE/ACM
Transactions on Networking 6 (1998), with factor 1.
"""

from __future__ import annotations

__all__ = ["Shares"]


class Shares:
    """A fixed total, and the amounts of it that each owner holds.

    Parameters
    ----------
    total
        The total, in any unit.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._held: dict[str, int] = {}

    @property
    def left(self) -> int:
        """The amount that is not held."""
        return self._left

    def held(self, owner: str) -> int:
        """Return the amount that `owner` holds."""
        return self._held.get(owner, 0)

    def take(self, owner: str, amount: int = 1) -> bool:
        """Take an amount unless `owner` already holds more than would be left; return whether it was taken."""
        held, left = self._held.get(owner, 0), self._left - amount
        if left < 0 or held > left:
            return False
        if amount:
            self._left = left
            self._held[owner] = held + amount
        return True

    def give(self, owner: str, amount: int = 1) -> None:
        """Give back an amount that was taken."""
        self._left += amount
        held = self._held.pop(owner, 0) - amount
        if held:
            self._held[owner] = held
