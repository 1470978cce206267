"""The controller of the made-up kind, all that it needs in `llmos_hub.controllers`."""

from __future__ import annotations

import sys

from llmos.resources.base import utcnow
from llmos.resources.workload import ReplicaStatus
from llmos_hub.controllers.reconciler import Result
from llmos_hub.controllers.registry import ControllerSpec, Dependencies
from llmos_hub.stores.informer import Key
from llmos_hub.workload import Observation, ProcessTemplate, Role, Workload, WorkloadRef
from tests.support.crate import Crate, CrateStatus

GUARD = ProcessTemplate((sys.executable, "-uc", "import time; print('guarding'); time.sleep(600)"), grace=1.0)


class CrateReconciler:
    """A reconciler of crates: a head and some guards run while the crate isn't paused."""

    kind = Crate

    def __init__(self, parts: Dependencies) -> None:
        self._parts = parts

    async def reconcile(self, resource: Crate) -> Result[Crate]:
        """Run the processes and report them."""
        store, backend, meta = self._parts.store, self._parts.backend, resource.metadata
        ref = WorkloadRef(resource.kind, meta.namespace or "", meta.name, meta.uid or "", "guard")
        if meta.deletion_timestamp is not None:
            await backend.delete(ref)
            freed = resource.model_copy(update={"metadata": meta.model_copy(update={"finalizers": []})})
            return Result(resource=await store.update(freed))
        head, guards = (0, 0) if resource.spec.paused else (1, resource.spec.replicas)
        await backend.apply(Workload(ref, (Role("head", head, GUARD), Role("guard", guards, GUARD))))
        status = _status(resource, await backend.observe(ref), head + guards)
        if status == resource.status:
            return Result()
        return Result(resource=await store.patch_status(resource.model_copy(update={"status": status})))

    async def gone(self, key: Key) -> None:
        """Delete what is left of a crate that no longer exists."""
        for ref in await self._parts.backend.refs():
            if (ref.kind, ref.namespace, ref.name) == ("Crate", *key):
                await self._parts.backend.delete(ref)

    async def close(self) -> None:
        """Do nothing: nothing runs in the background."""


def _status(crate: Crate, seen: Observation | None, wanted: int) -> CrateStatus:
    replicas = seen.replicas if seen is not None else ()
    ready = sum(replica.phase == "Ready" for replica in replicas)
    phase = "Closed" if crate.spec.paused else "Stored" if ready == wanted else "Packing"
    return CrateStatus.model_validate(
        {
            "phase": phase,
            "observed_generation": crate.metadata.generation,
            "replicas": len(replicas),
            "replica_statuses": [
                ReplicaStatus(id=r.id, phase="Ready" if r.phase == "Ready" else "Starting", started_at=utcnow())
                for r in replicas
            ]
            if phase != crate.status.phase or len(replicas) != crate.status.replicas
            else crate.status.replica_statuses,
        }
    )


SPEC = ControllerSpec(Crate, CrateReconciler)
