"""The names of the database's keys; imports no client library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["SCHEMA_VERSION", "Keys"]

SCHEMA_VERSION: Final = 1
"""Version of the database layout that this program writes."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The names of all keys in the database.

    Attributes
    ----------
    prefix
        Prefix of each key; the braces put all keys on one node of a Redis Cluster, as scripts require.
    """

    prefix: str = "{llmos}"

    @property
    def schema(self) -> str:
        """The layout's version."""
        return f"{self.prefix}:schema"

    @property
    def epoch(self) -> str:
        """The id of this database; a database that replaces it has another one."""
        return f"{self.prefix}:epoch"

    @property
    def revision(self) -> str:
        """The counter of changes: the newest resourceVersion."""
        return f"{self.prefix}:revision"

    @property
    def changes(self) -> str:
        """The stream of changes."""
        return f"{self.prefix}:changes"

    @property
    def migration(self) -> str:
        """The lock of the process that migrates."""
        return f"{self.prefix}:migration"

    @property
    def written(self) -> str:
        """The total bytes ever added to the stream of changes."""
        return f"{self.prefix}:written"

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
