"""A bounded amount that many take from, shared so that nobody can take it all.

Whoever holds some may have as much as is left for others: one alone half of it, two a third each, and somebody who comes
new always finds room. Nobody has to be told how many callers there are, and nothing lies idle that a few could use.

Source: A. K. Choudhury, E. L. Hahne, "Dynamic queue length thresholds for shared-memory packet switches", IEEE/ACM
Transactions on Networking 6 (1998), with factor 1.
"""

from __future__ import annotations

__all__ = ["Shares"]


class Shares:
    """So much in all, by who holds it.

    Parameters
    ----------
    total
        In whatever unit.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._held: dict[str, int] = {}

    @property
    def left(self) -> int:
        """What nobody holds."""
        return self._left

    def held(self, owner: str) -> int:
        """What `owner` holds."""
        return self._held.get(owner, 0)

    def take(self, owner: str, amount: int = 1) -> bool:
        """Take, where there is enough and `owner` holds no more than is left then."""
        held, left = self._held.get(owner, 0), self._left - amount
        if left < 0 or held > left:
            return False
        if amount:
            self._left = left
            self._held[owner] = held + amount
        return True

    def give(self, owner: str, amount: int = 1) -> None:
        """Return what was taken."""
        self._left += amount
        held = self._held.pop(owner, 0) - amount
        if held:
            self._held[owner] = held
