"""Restriction of the controllers to the release's namespaces, in a cluster with several releases.

A resource in a namespace without a release is not served. Its status says so, since an empty one would look like
a slow platform; the controllers of each release write the same status, so that it is written only once.
"""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any, Generic, TypeVar

from llmos.errors import Forbidden
from llmos.names import KEY_MANAGED_BY
from llmos.resources import Condition, Resource
from llmos.resources.base import set_condition, utcnow
from llmos_hub.controllers.reconciler import Reconciler, Result
from llmos_hub.stores.base import Store
from llmos_hub.stores.informer import Key
from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces

__all__ = ["InOwnNamespaces", "unserved"]

R = TypeVar("R", bound=Resource)

logger = logging.getLogger(__name__)


def unserved(resource: Resource, now: datetime) -> Any:
    """Return the status of a resource in a namespace that no release serves: nothing of it runs."""
    message = (
        f"LLMOS serves only namespaces that it has made, and {resource.metadata.namespace} is none. Create this in one of "
        f"those instead (kubectl get namespaces -l {KEY_MANAGED_BY}=llmos); yours is made when you first start a server."
    )
    old = resource.status
    ready = Condition(
        type="Ready", status="False", reason="NamespaceNotServed", message=message, last_transition_time=now
    )
    failed = (phase for phase, meaning in resource.phases.items() if meaning == "failed")
    return type(old)(
        phase=next(failed, old.phase),
        message=message,
        observed_generation=resource.metadata.generation,
        conditions=set_condition(old.conditions, ready),
    )


class InOwnNamespaces(Generic[R]):
    """A reconciler that calls another one only for resources in the release's namespaces.

    Parameters
    ----------
    inner
        The reconciler to call.
    store
        The store of resources in all namespaces.
    namespaces
        The owners of namespaces.
    """

    def __init__(self, inner: Reconciler[R], store: Store, namespaces: ReleaseNamespaces) -> None:
        self._inner = inner
        self._store = store
        self._namespaces = namespaces

    @property
    def kind(self) -> type[R]:
        """The kind."""
        return self._inner.kind

    async def reconcile(self, resource: R) -> Result[R]:
        """Reconcile one; see `llmos_hub.controllers.reconciler.Reconciler`."""
        ownership = await self._namespaces.ownership(resource.metadata.namespace or "")
        if ownership == "another's":
            return Result()
        # deletions are completed also in a namespace that was handed over to others
        if ownership == "ours" or resource.metadata.deletion_timestamp is not None:
            return await self._inner.reconcile(resource)
        status = unserved(resource, utcnow())
        if status == resource.status:
            return Result()
        try:
            written = await self._store.patch_status(resource.model_copy(update={"status": status}))
        except Forbidden as error:  # for example by an admission policy of the cluster; a retry would not help
            logger.info("%s is not served, and its status can't say so: %s", resource.key, error.message)
            return Result()
        return Result(resource=written)

    async def gone(self, key: Key) -> None:
        """Clean up after a deleted resource; its workloads are the release's own in any case."""
        await self._inner.gone(key)

    async def close(self) -> None:
        """Stop what runs in the background."""
        await self._inner.close()
