"""The controller of ModelServices: fetch the model, choose an engine, serve it, report the status.

The way of a ModelService leads through `reconciler`: `downloads` fetches its model by a job, an engine plans its
process, `workloads` makes the objects for the backend, `status` the status from what is observed, and `events` the
Events that tell of its changes. All but `reconciler` and `downloads` are pure functions.
"""

from __future__ import annotations

from llmos.resources import Credential, ModelService
from llmos_hub.controllers.modelservice.reconciler import ModelServiceReconciler
from llmos_hub.controllers.modelservice.workloads import fetch_environment
from llmos_hub.controllers.reconciler import Reference
from llmos_hub.controllers.registry import ControllerSpec, Dependencies
from llmos_hub.engines.registry import choose

__all__ = ["SPEC"]


def _make(parts: Dependencies) -> ModelServiceReconciler:
    return ModelServiceReconciler(
        parts.store,
        parts.backend,
        layout=parts.workloads.layout,
        machine=parts.workloads.machine,
        selector=parts.workloads.selector,
        choose=choose,
        environment=fetch_environment(parts.environ),
        requeue=parts.requeue,
        engine_secret=parts.engine_secret,
    )


def _credentials(service: ModelService) -> list[str]:
    return [service.spec.credential_ref] if service.spec.credential_ref else []


SPEC = ControllerSpec(ModelService, _make, references=[Reference(Credential, _credentials)])
