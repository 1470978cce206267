"""The controller of ModelServices: fetch the model, choose an engine, serve it, report the status.

The way of a ModelService leads through `reconciler`: `downloads` fetches its model by a job, an engine plans its
process, `workloads` makes the objects for the backend, `status` the status from what is observed, and `events` the
Events that tell of its changes. All but `reconciler` and `downloads` are pure functions.
"""

from __future__ import annotations

from llmos.resources import Credential, ModelService, Volume
from llmos_hub.controllers.modelservice.reconciler import ModelServiceReconciler
from llmos_hub.controllers.reconciler import Reference
from llmos_hub.controllers.registry import ControllerSpec

__all__ = ["SPEC"]


def _credentials(service: ModelService) -> list[str]:
    return [service.spec.credential_ref] if service.spec.credential_ref else []


def _volumes(service: ModelService) -> list[str]:
    return [name for kind, name in service.uses if kind == Volume.kind_name()]


SPEC = ControllerSpec(
    ModelService,
    ModelServiceReconciler,
    references=[Reference(Credential, _credentials), Reference(Volume, _volumes)],
)
