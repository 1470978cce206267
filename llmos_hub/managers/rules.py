"""The rules of a kind beyond those for all kinds. A kind without its own rules gets the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from llmos.resources import Resource
from llmos_hub.stores.base import WatchEvent

__all__ = ["KindRules"]

R = TypeVar("R", bound=Resource)


class KindRules(Generic[R]):
    """Hooks that `ResourceManager` calls for a kind; the defaults change nothing."""

    def asks_others(self, new: R, old: R | None) -> bool:
        """Return whether `admit` needs the other resources of the kind in the namespace, which then are all read."""
        del new, old
        return False

    def prepared(self, new: R) -> R:
        """Return the resource as it is to be stored, for example without stray white space.

        Raises
        ------
        Invalid
            A value is not valid.
        """
        return new

    def admit(self, new: R, old: R | None, others: Sequence[R]) -> None:
        """Refuse a resource that is valid for its type but not in its namespace, before it is stored.

        Parameters
        ----------
        new
            The resource to store.
        old
            The stored one; None if it is new.
        others
            The other resources of the kind in the namespace, if `asks_others` returned True.
        """

    def restrict(self, new: R, old: R | None) -> None:
        """Refuse values that only admins may set outside of their own namespace.

        Parameters
        ----------
        new
            The resource to store.
        old
            The stored one, whose values may stay; None if it is new.

        Raises
        ------
        Forbidden
            The resource has such a value; the error names the field.
        """

    def status_after(self, old: R | None, stored: R) -> R | None:
        """Return the resource with the status to write after a write; None if its controller sets the status."""
        del old, stored
        return None

    async def present(self, resource: R) -> R:
        """Return the resource as it is shown, except for write-only fields."""
        return resource

    async def absent(self, name: str) -> R | None:
        """Return the resource that stands for one that isn't stored; None if there is no such default."""
        del name
        return None

    async def all_absent(self, stored: Sequence[R]) -> Sequence[R]:
        """Return the resources that a list shows in addition to stored ones."""
        del stored
        return ()

    async def present_event(self, event: WatchEvent[R]) -> WatchEvent[R]:
        """Return the event as it is shown."""
        if event.resource is None:
            return event
        return WatchEvent(event.type, await self.present(event.resource), event.resource_version)
