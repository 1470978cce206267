"""The names of the keys that the store of resources has in the database."""

from __future__ import annotations

from typing import Final

from llmos_hub.valkey.schema import Keys

__all__ = ["ResourceKeys"]


class ResourceKeys(Keys):
    """The keys of resources, their changes and events, beside those of the database as a whole."""

    revision: Final = f"{Keys.prefix}:revision"
    """The counter of changes: the newest resourceVersion."""
    changes: Final = f"{Keys.prefix}:changes"
    """The stream of changes."""
    written: Final = f"{Keys.prefix}:written"
    """The total bytes ever added to the stream of changes."""

    def sizes(self, plural: str) -> str:
        """Return the key of the kind's sizes in bytes, by namespace."""
        return f"{self.prefix}:sizes:{plural}"

    def indexed(self, plural: str) -> str:
        """Return the key of the namespaces in which all claimed names of the kind are known."""
        return f"{self.prefix}:indexed:{plural}"

    def claims(self, plural: str, namespace: str) -> str:
        """Return the key of a namespace's claimed names (``n:NAME``) and of the resources that have them (``o:NAME``)."""
        return f"{self.prefix}:claims:{plural}:{namespace}"

    def objects(self, plural: str, namespace: str = "") -> str:
        """Return the key of the resources of a kind in a namespace, by name."""
        return f"{self.prefix}:objects:{plural}:{namespace}"

    def namespaces(self, plural: str) -> str:
        """Return the key of the namespaces in which the kind has resources."""
        return f"{self.prefix}:namespaces:{plural}"

    def events(self, plural: str, namespace: str, name: str) -> str:
        """Return the key of a resource's events."""
        return f"{self.prefix}:events:{plural}:{namespace}/{name}"
