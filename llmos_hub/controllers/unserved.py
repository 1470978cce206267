"""Restriction of the controllers to the release's namespaces, in a cluster with several releases.

A resource in a namespace without a release is not served. Its status says so, since an empty one would look like
a slow platform; the controllers of each release write the same status, so that it is written only once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from llmos.errors import Forbidden
from llmos.resources import Condition, ModelService
from llmos.resources.base import set_condition, utcnow
from llmos.resources.modelservice import ModelServiceStatus
from llmos_hub.controllers.informer import Key
from llmos_hub.controllers.reconciler import Reconciler, Result
from llmos_hub.stores.base import Store
from llmos_hub.stores.kubernetes_namespaces import MANAGED_BY, ReleaseNamespaces

__all__ = ["InOwnNamespaces", "unserved"]

logger = logging.getLogger(__name__)


def unserved(service: ModelService, now: datetime) -> ModelServiceStatus:
    """Return the status of a service in a namespace that no release serves."""
    message = (
        f"LLMOS serves only namespaces that it has made, and {service.metadata.namespace} is none. Create this in one of "
        f"those instead (kubectl get namespaces -l {MANAGED_BY}=llmos); yours is made when you first start a server."
    )
    ready = Condition(
        type="Ready", status="False", reason="NamespaceNotServed", message=message, last_transition_time=now
    )
    return service.status.model_copy(
        update={
            "phase": "Failed",
            "message": message,
            "observed_generation": service.metadata.generation,
            "endpoints": [],
            "ready_replicas": 0,
            "download": None,
            "conditions": set_condition(service.status.conditions, ready),
        }
    )


class InOwnNamespaces:
    """A reconciler that calls another one only for resources in the release's namespaces.

    Parameters
    ----------
    inner
        The reconciler to call.
    store
        The store of resources in all namespaces.
    namespaces
        The owners of namespaces.
    clock
        Returns the current time.
    """

    kind = ModelService

    def __init__(
        self,
        inner: Reconciler[ModelService],
        store: Store,
        namespaces: ReleaseNamespaces,
        *,
        clock: Callable[[], datetime] = utcnow,
    ) -> None:
        self._inner = inner
        self._store = store
        self._namespaces = namespaces
        self._clock = clock

    async def reconcile(self, resource: ModelService) -> Result[ModelService]:
        """Reconcile one; see `llmos_hub.controllers.reconciler.Reconciler`."""
        ownership = await self._namespaces.ownership(resource.metadata.namespace or "")
        if ownership == "another's":
            return Result()
        # deletions are completed also in a namespace that was handed over to others
        if ownership == "ours" or resource.metadata.deletion_timestamp is not None:
            return await self._inner.reconcile(resource)
        status = unserved(resource, self._clock())
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
