"""A release's controllers among others: they work in the release's namespaces, and leave those of another alone.

A resource in a namespace that no release has made is served by nobody. Its status says so, since silence would look like
a platform that is slow; each release's controllers say the same, so that nothing is written twice.
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
    """What it says where no release serves its namespace."""
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
    """Calls a reconciler for what is in the release's namespaces.

    Parameters
    ----------
    inner
        What is called.
    store
        Where resources are, also those of others.
    namespaces
        Knows whose they are.
    clock
        Now.
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
        """Look at one; see `llmos_hub.controllers.reconciler.Reconciler`."""
        whose = await self._namespaces.whose(resource.metadata.namespace or "")
        if whose == "another's":
            return Result()
        # what is to go goes, also from a namespace that was the release's once
        if whose == "ours" or resource.metadata.deletion_timestamp is not None:
            return await self._inner.reconcile(resource)
        status = unserved(resource, self._clock())
        if status == resource.status:
            return Result()
        try:
            written = await self._store.patch_status(resource.model_copy(update={"status": status}))
        except Forbidden as error:  # by the cluster's administrator, say; trying again would not help
            logger.info("%s is not served, and its status can't say so: %s", resource.key, error.message)
            return Result()
        return Result(resource=written)

    async def gone(self, key: Key) -> None:
        """There is no such resource (any more); what runs for it is the release's own in any case."""
        await self._inner.gone(key)
