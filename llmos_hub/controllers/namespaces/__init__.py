"""The controller of people's and groups' namespaces, in a cluster."""

from __future__ import annotations

from typing import Any

from llmos_hub.controllers.reconciler import Controller, Queueing
from llmos_hub.controllers.registry import Cluster, ClusterControllerSpec

__all__ = ["SPEC"]


def _make(cluster: Cluster, queueing: Queueing) -> Controller[Any]:
    from llmos_hub.controllers.namespaces.reconciler import namespace_controller  # not loaded on a workstation

    return namespace_controller(cluster, queueing)


SPEC = ClusterControllerSpec("Namespace", _make)
