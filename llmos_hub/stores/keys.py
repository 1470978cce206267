"""How the database is laid out; nothing but names, for those who look into it without a client library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SCHEMA_VERSION", "Keys"]

SCHEMA_VERSION: Final = 1
"""How this program lays out the database."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of everything in the database.

    Attributes
    ----------
    prefix
        Before each key; the braces put all keys on one node of a Redis Cluster, where scripts need them.
    """

    prefix: str = "{llmos}"

    @property
    def schema(self) -> str:
        """The layout's version."""
        return f"{self.prefix}:schema"

    @property
    def epoch(self) -> str:
        """The id of this database; another one in its place has another."""
        return f"{self.prefix}:epoch"

    @property
    def revision(self) -> str:
        """The count of changes: the newest resourceVersion."""
        return f"{self.prefix}:revision"

    @property
    def changes(self) -> str:
        """The stream of changes."""
        return f"{self.prefix}:changes"

    @property
    def migration(self) -> str:
        """Held by the process that migrates."""
        return f"{self.prefix}:migration"

    @property
    def written(self) -> str:
        """The count of all bytes that were ever put into the stream of changes."""
        return f"{self.prefix}:written"

    def sizes(self, plural: str) -> str:
        """By namespace, the bytes of the kind's resources there."""
        return f"{self.prefix}:sizes:{plural}"

    def objects(self, plural: str, namespace: str = "") -> str:
        """The resources of a kind in a namespace, by name."""
        return f"{self.prefix}:objects:{plural}:{namespace}"

    def namespaces(self, plural: str) -> str:
        """The namespaces in which the kind has resources."""
        return f"{self.prefix}:namespaces:{plural}"

    def events(self, plural: str, namespace: str, name: str) -> str:
        """The events of a resource."""
        return f"{self.prefix}:events:{plural}:{namespace}/{name}"
