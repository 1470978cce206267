"""What a kind wants beyond what holds for all kinds. A kind without rules of its own gets the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from llmos.resources import Resource
from llmos_hub.stores.base import WatchEvent

__all__ = ["KindRules"]

R = TypeVar("R", bound=Resource)


class KindRules(Generic[R]):
    """Hooks that `ResourceManager` calls for a kind; the defaults leave everything as it is."""

    finalizers: tuple[str, ...] = ()
    """Set at creation, so that nothing of a resource is forgotten while its controller is down."""

    def asks_others(self, new: R, old: R | None) -> bool:
        """Whether `admit` wants the other resources of the kind in the namespace, which cost a reading of them all."""
        del new, old
        return False

    def prepared(self, new: R) -> R:
        """The resource as it is to be stored, without what somebody typed along by mistake.

        Raises
        ------
        Invalid
            A value can't be used.
        """
        return new

    def admit(self, new: R, old: R | None, others: Sequence[R]) -> None:
        """Refuse what fits its type but not its place, before it is stored.

        Parameters
        ----------
        new
            What is to be stored.
        old
            What is there now.
        others
            The other resources of the kind in the namespace, where `asks_others` says so.
        """

    def status_after(self, old: R | None, stored: R) -> R | None:
        """The resource with the status that a write asks for at once; None where its controller does that."""
        del old, stored
        return None

    async def present(self, resource: R) -> R:
        """The resource as people see it, values that are never read back aside."""
        return resource

    async def absent(self, name: str) -> R | None:
        """What stands for a resource that isn't stored."""
        del name
        return None

    async def all_absent(self, stored: Sequence[R]) -> Sequence[R]:
        """What a list shows beside what is stored."""
        del stored
        return ()

    async def present_event(self, event: WatchEvent[R]) -> WatchEvent[R]:
        """The event as people see it."""
        if event.resource is None:
            return event
        return WatchEvent(event.type, await self.present(event.resource), event.resource_version)
