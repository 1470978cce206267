"""Entries of the stream of changes, and the range of revisions that the stream covers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from llmos_hub.stores.base import ADDED, DELETED, MODIFIED, Selector
from llmos_hub.stores.writes import expired, match

__all__ = ["Change", "StreamState", "changes_of", "revision_of_id"]


class Change:
    """An entry of the stream.

    Parameters
    ----------
    revision
        Its revision.
    fields
        The entry's fields as the script wrote them.
    """

    __slots__ = ("__dict__", "_before", "_labels", "body", "kind", "name", "namespace", "revision", "type")

    def __init__(self, revision: int, fields: list[bytes]) -> None:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        self.revision = revision
        # an entry without these fields gets an empty kind, which no watch matches
        self.type = cast("Literal['ADDED', 'MODIFIED', 'DELETED']", values.get(b"t", b"").decode())
        self.kind = values.get(b"k", b"").decode()
        self.namespace = values.get(b"n", b"").decode()
        self.name = values.get(b"m", b"").decode()
        self.body = values.get(b"o", b"")
        self._labels = values.get(b"l", b"{}")
        self._before = values.get(b"p", b"")

    @cached_property
    def labels(self) -> dict[str, str]:
        """The resource's labels after the change, for a deletion the last ones."""
        return cast("dict[str, str]", json.loads(self._labels))

    @cached_property
    def labels_before(self) -> dict[str, str]:
        """The resource's labels before the change."""
        return cast("dict[str, str]", json.loads(self._before)) if self._before else self.labels

    def seen_by(self, selector: Selector | None) -> Literal["ADDED", "MODIFIED", "DELETED"] | None:
        """Return the type of the change for a watch with `selector`; None if the watch doesn't see it."""
        now = match(self.labels, selector)
        if self.type != MODIFIED:
            return self.type if now else None
        before = match(self.labels_before, selector)
        if now:
            return MODIFIED if before else ADDED
        return DELETED if before else None


def changes_of(entries: Any) -> list[Change]:
    """Return the changes in an answer to ``XRANGE``, or to ``XREAD`` for one stream."""
    return [Change(revision_of_id(entry_id), fields) for entry_id, fields in entries]


def revision_of_id(entry_id: bytes) -> int:
    """Return the revision of an entry's id, ``REVISION-0``."""
    return int(entry_id.partition(b"-")[0])


@dataclass(frozen=True, slots=True)
class StreamState:
    """The position of the database.

    Attributes
    ----------
    epoch
        Id of the database.
    revision
        Its newest revision.
    first
        The oldest revision in the stream, None if the stream is empty.
    """

    epoch: str
    revision: int
    first: int | None

    def reaches(self, revision: int) -> bool:
        """Return whether all changes after `revision` can be read; False if it is not from this database."""
        known_from = self.revision if self.first is None else self.first - 1
        return known_from <= revision <= self.revision

    def check(self, revision: int) -> None:
        """Raise an error unless all changes after `revision` can be read.

        Raises
        ------
        Expired
            Some were trimmed; or the revision is not from this database.
        """
        if not self.reaches(revision):
            raise expired(revision)
