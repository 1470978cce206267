"""The rules of a kind beyond those for all kinds. A kind without its own rules gets the defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from llmos.resources import Resource
from llmos_hub.managers.settings import PlatformSettings
from llmos_hub.stores.base import Store, WatchEvent

__all__ = ["KindRules"]

R = TypeVar("R", bound=Resource)


class KindRules(Generic[R]):
    """Hooks that `ResourceManager` calls for a kind; the defaults change nothing.

    Parameters
    ----------
    settings
        The settings in force.
    """

    def __init__(self, settings: PlatformSettings) -> None:
        self._settings = settings

    def prepared(self, new: R) -> R:
        """Return the resource as it is to be stored, for example without stray white space.

        Raises
        ------
        Invalid
            A value is not valid.
        """
        return new

    async def admit(self, new: R, old: R | None, reader: Store) -> None:
        """Refuse a resource that is valid for its type but not in its namespace, before it is stored.

        What is read may change before the write. Names that only one resource can have are claimed in the write itself
        (`Resource.claims`).

        Parameters
        ----------
        new
            The resource to store.
        old
            The stored one; None if it is new.
        reader
            Reads what the resource refers to.

        Raises
        ------
        Invalid
            A value is not valid, or names a resource that doesn't exist; the error names the field.
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

    async def deleting(self, old: R, reader: Store) -> R | None:
        """Return the resource to store in place of a deletion; None to delete it.

        Parameters
        ----------
        old
            The stored resource.
        reader
            Reads what refers to it.

        Raises
        ------
        Conflict
            It is in use; the message says by what.
        """
        del old, reader
        return None

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
