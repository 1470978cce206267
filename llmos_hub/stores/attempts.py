"""Optimistic writes: decide on what is stored, write if nobody was faster, else decide anew, but not for ever."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

from llmos.errors import AlreadyExists, Conflict, NotFound
from llmos.resources.base import Resource
from llmos_hub.stores import rules

__all__ = ["ATTEMPTS", "Change", "apply", "too_busy"]

ATTEMPTS: Final = 50
"""How often a write without a precondition is tried, on a resource that others write all the time."""

R = TypeVar("R", bound=Resource)


class Change(Protocol[R]):
    """Writes what `decide` makes of the stored one; raises `NotFound` where there is none, `Conflict` when too busy."""

    def __call__(
        self, kind: type[R], namespace: str | None, name: str, decide: Callable[[R], rules.Outcome[R]], /
    ) -> Awaitable[R]:
        """Write, and return what is stored now."""


async def apply(resource: R, change: Change[R], create: Callable[[R], Awaitable[R]]) -> R:
    """Create it or replace its spec, whichever is possible; see `llmos_hub.stores.base.Store.apply`."""
    kind, meta = type(resource), resource.metadata
    for _ in range(ATTEMPTS):
        with contextlib.suppress(NotFound):
            return await change(kind, meta.namespace, meta.name, lambda current: rules.applied(current, resource))
        if meta.uid or meta.resource_version:
            raise rules.gone(kind, meta.namespace, meta.name)
        with contextlib.suppress(AlreadyExists):
            return await create(resource)
    raise too_busy(kind, meta.namespace, meta.name)


def too_busy(kind: type[Resource], namespace: str | None, name: str) -> Conflict:
    """Others were faster every time."""
    return rules.conflict(kind, namespace, name, f"was changed by others {ATTEMPTS} times meanwhile")
