"""The Hub's users and groups, as a test wants them."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmos.errors import Unavailable
from llmos_hub.identity.people import Person

__all__ = ["FakePeople"]


@dataclass
class FakePeople:
    """Users with when they were made, their servers, and groups; ``away`` makes every question fail."""

    users: dict[str, str] = field(default_factory=dict)
    groups: set[str] = field(default_factory=set)
    away: bool = False
    running: dict[str, dict[str, str]] = field(default_factory=dict)

    def _reach(self) -> None:
        if self.away:
            raise Unavailable("The Hub does not answer (ConnectError).")

    async def user(self, name: str) -> Person | None:
        self._reach()
        return Person(name, self.users[name]) if name in self.users else None

    async def servers(self, name: str) -> dict[str, str] | None:
        self._reach()
        return self.running.get(name, {})

    async def has_group(self, name: str) -> bool:
        self._reach()
        return name in self.groups

    async def has_users(self) -> bool:
        self._reach()
        return bool(self.users)
