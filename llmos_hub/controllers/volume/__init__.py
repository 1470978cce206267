"""The controller of Volumes: make them, grow them, measure them, and delete them when their rest is over."""

from __future__ import annotations

from llmos.resources import Volume
from llmos_hub.controllers.registry import ControllerSpec
from llmos_hub.controllers.volume.reconciler import VolumeReconciler

__all__ = ["SPEC"]

SPEC = ControllerSpec(Volume, VolumeReconciler)
