"""Entries of the stream of changes, and how far the stream reaches back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from llmos.errors import Expired, Invalid
from llmos_hub.stores.base import ADDED, DELETED, MODIFIED, Selector
from llmos_hub.stores.rules import match

__all__ = ["Change", "Scope", "State", "changes_of", "expired", "revision_of", "revision_of_id"]


_DIGITS = 20
"""Of the largest number with 64 bits."""


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
        # an entry without these fields is of no kind that anyone here watches
        self.type = cast("Literal['ADDED', 'MODIFIED', 'DELETED']", values.get(b"t", b"").decode())
        self.kind = values.get(b"k", b"").decode()
        self.namespace = values.get(b"n", b"").decode()
        self.name = values.get(b"m", b"").decode()
        self.body = values.get(b"o", b"")
        self._labels = values.get(b"l", b"{}")
        self._before = values.get(b"p", b"")

    @cached_property
    def labels(self) -> dict[str, str]:
        """The resource's labels after the change, for a removal as they last were."""
        return cast("dict[str, str]", json.loads(self._labels))

    @cached_property
    def labels_before(self) -> dict[str, str]:
        """The resource's labels before the change."""
        return cast("dict[str, str]", json.loads(self._before)) if self._before else self.labels

    def seen_by(self, selector: Selector | None) -> Literal["ADDED", "MODIFIED", "DELETED"] | None:
        """What the change is to one who sees only what matches `selector`."""
        now = match(self.labels, selector)
        if self.type != MODIFIED:
            return self.type if now else None
        before = match(self.labels_before, selector)
        if now:
            return MODIFIED if before else ADDED
        return DELETED if before else None


def changes_of(entries: Any) -> list[Change]:
    """The entries of an answer to ``XRANGE``, or to ``XREAD`` for one stream."""
    return [Change(revision_of_id(entry_id), fields) for entry_id, fields in entries]


def revision_of_id(entry_id: bytes) -> int:
    """The revision of an entry's id, ``REVISION-0``."""
    return int(entry_id.partition(b"-")[0])


def revision_of(resource_version: str) -> int:
    """The revision that a resourceVersion stands for.

    Raises
    ------
    Invalid
        It is none that a store gave out.
    """
    if not (resource_version.isascii() and resource_version.isdigit() and len(resource_version) <= _DIGITS):
        message = f'resourceVersion: "{resource_version[:40]}" is none that this store gave out. List again and watch from there.'
        raise Invalid(message)
    return int(resource_version)


def expired(revision: int) -> Expired:
    """The error for one who has seen all up to `revision` and can't be told what came then."""
    return Expired(
        f"The changes since resourceVersion {revision} are not known any more. List again and watch from there."
    )


@dataclass(frozen=True, slots=True)
class State:
    """Where the database is.

    Attributes
    ----------
    epoch
        Which database it is.
    revision
        Its newest revision.
    first
        The oldest revision in the stream, None where it is empty.
    """

    epoch: str
    revision: int
    first: int | None

    def reaches(self, revision: int) -> bool:
        """Whether all changes after `revision` can be read; no if it is none of this database's."""
        known_from = self.revision if self.first is None else self.first - 1
        return known_from <= revision <= self.revision

    def check(self, revision: int) -> None:
        """The same as an error.

        Raises
        ------
        Expired
            Some were trimmed; or the revision is none of this database's.
        """
        if not self.reaches(revision):
            raise expired(revision)


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a kind a watch sees: a namespace or (None) all, and the labels that must be there."""

    namespace: str | None = None
    labels: Selector | None = None
