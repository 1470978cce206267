"""Optimistic writes: decide on the stored resource, write if it is unchanged, else retry a limited number of times."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from llmos.errors import AlreadyExists, Conflict, NotFound
from llmos.resources.base import Resource
from llmos_hub.stores import writes

__all__ = ["ATTEMPTS", "Decide", "apply", "too_busy"]

ATTEMPTS: Final = 50
"""Maximum attempts of a write without a precondition on a resource that others keep writing."""

R = TypeVar("R", bound=Resource)


Decide = Callable[[R], writes.Outcome[R]]
"""A function that returns the outcome of a write on the stored resource."""


async def apply(resource: R, change: Callable[[Decide[R]], Awaitable[R]], create: Callable[[R], Awaitable[R]]) -> R:
    """Create it or replace its spec, whichever is possible; see `llmos_hub.stores.base.Store.apply`.

    Parameters
    ----------
    change
        Writes the outcome of a decision; raises `NotFound`, or `Conflict` after too many attempts.
    create
        Stores a new resource.
    """
    kind, meta = type(resource), resource.metadata
    for _ in range(ATTEMPTS):
        with contextlib.suppress(NotFound):
            return await change(lambda current: writes.applied(current, resource))
        if meta.uid or meta.resource_version:
            raise writes.gone(kind, meta.namespace, meta.name)
        try:
            return await create(resource)
        except AlreadyExists as error:
            if error.causes:  # not the resource itself exists, but one with a name that it claims
                raise
    raise too_busy(kind, meta.namespace, meta.name)


def too_busy(kind: type[Resource], namespace: str | None, name: str) -> Conflict:
    """Return the error for a write that lost against others in every attempt."""
    return writes.conflict(kind, namespace, name, f"was changed by others {ATTEMPTS} times meanwhile")
