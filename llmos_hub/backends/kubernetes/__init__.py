"""The backend that runs workloads as pods of a cluster: Deployments, Jobs and related objects."""

from __future__ import annotations

from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.backends.kubernetes.logs import read_logs
from llmos_hub.backends.kubernetes.settings import ENV_KUBERNETES_SETTINGS, KubernetesSettings

__all__ = ["ENV_KUBERNETES_SETTINGS", "KubernetesBackend", "KubernetesSettings", "read_logs"]
