"""A store that routes each kind to one of two stores in a cluster."""

from __future__ import annotations

from typing import Any

from llmos.errors import UsageError
from llmos.resources.base import Resource
from llmos_hub.stores.base import Store

__all__ = ["RoutedStore"]


def _routed(method: str) -> Any:
    """Return a method that calls the one of that name on the store of a kind, which its first argument is or is of."""

    def call(self: RoutedStore, first: type[Resource] | Resource, *arguments: Any, **options: Any) -> Any:
        store = self._of(first if isinstance(first, type) else type(first))
        return getattr(store, method)(first, *arguments, **options)

    return call


class RoutedStore:
    """A `llmos_hub.stores.base.Store` that keeps Settings in the database and all other kinds in the cluster.

    Parameters
    ----------
    cluster
        The store of custom resources and Secrets; closed with this one.
    database
        The store of the other kinds; None in a process that doesn't use them.
    """

    def __init__(self, cluster: Store, database: Store | None) -> None:
        self._cluster = cluster
        self._database = database

    def _of(self, kind: type[Resource]) -> Store:
        if kind.stored_as != "Database":
            return self._cluster
        if self._database is None:
            raise UsageError(
                f"{kind.kind_name()}s live in the platform's database, whose address this process was not given: LLMOS_REDIS_URL is not set."
            )
        return self._database

    get = _routed("get")
    list = _routed("list")
    page = _routed("page")
    watch = _routed("watch")
    create = _routed("create")
    update = _routed("update")
    apply = _routed("apply")
    patch_status = _routed("patch_status")
    delete = _routed("delete")
    record = _routed("record")
    events = _routed("events")

    async def healthy(self) -> bool:
        """Return whether both stores answer."""
        return await self._cluster.healthy() and (self._database is None or await self._database.healthy())

    async def close(self) -> None:
        """Close both stores."""
        await self._cluster.close()
        if self._database is not None:
            await self._database.close()
