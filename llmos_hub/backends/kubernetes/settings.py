"""Settings for workloads' pods in a cluster, from the chart's values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field

from llmos.resources.base import Model
from llmos_hub.names import PRIVATE_NETWORKS
from llmos_hub.settings_files import read_model

__all__ = ["ENV_KUBERNETES_SETTINGS", "EgressSettings", "ImageSettings", "KubernetesSettings", "ModelVolumeSettings"]

ENV_KUBERNETES_SETTINGS: Final = "LLMOS_KUBERNETES_SETTINGS"
"""Environment variable with the file (YAML or JSON) of these settings; in a cluster a mounted ConfigMap."""


class ImageSettings(Model):
    """An image for processes."""

    image: str
    """Name and tag, without the registry's prefix: ``llmos-engine-cpu:0.1.0``."""
    read_only_root_filesystem: bool = True
    """Mount the root file system read-only: its programs write only below /tmp."""
    python: str = "/opt/llmos/bin/python"
    """Path of its Python interpreter, for the platform's own programs."""


_DEFAULT_IMAGE: Final = ImageSettings(image="llmos-hub:0.1.0")


class ModelVolumeSettings(Model):
    """Storage of a namespace's model files: on a volume shared by all its pods, or separately in each pod."""

    storage_class: str | None = None
    """The class of each namespace's volume claim ``llmos-models``; unset for no claim, so that each pod downloads."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """ReadWriteOnce keeps all pods of a namespace on one node."""
    size: str = "50Gi"
    """Size of the claim, or of each pod's own storage if there is no claim."""
    mount_path: str = "/models"
    """Mount path in the pods."""


def _check_range(cidr: str) -> str:
    try:
        ip_network(cidr)
    except ValueError:
        raise ValueError(f'"{cidr[:60]}" is not a range of addresses such as 10.0.0.0/8') from None
    return cidr


_Range = Annotated[str, AfterValidator(_check_range)]


class EgressSettings(Model):
    """Egress of pods beyond the cluster's DNS, for downloads of models."""

    enabled: bool = True
    """Allow connections to the ranges below."""
    cidrs: list[_Range] = Field(default=["0.0.0.0/0", "::/0"])
    """Allowed ranges."""
    except_cidrs: list[_Range] = Field(default=[*PRIVATE_NETWORKS])
    """Excluded ranges: private networks, the cluster itself. Cloud metadata services are always excluded."""
    also: list[dict[str, Any]] = Field(default=[])
    """Additional egress rules of the NetworkPolicy, applied even if `enabled` is false: for example, a model mirror."""


class KubernetesSettings(Model):
    """Settings of the cluster backend."""

    release: str = Field(default="llmos", max_length=53)
    """The release the workloads belong to: the label ``app.kubernetes.io/part-of`` of all objects."""
    namespace: str = "llmos"
    """Namespace of the release itself, whose gateway may reach the engines."""
    registry: str = ""
    """Prefix of image names without a registry: ``registry.example.org/llmos/``."""
    images: dict[str, ImageSettings] = Field(
        default={
            "": _DEFAULT_IMAGE,
            "llamacpp": ImageSettings(image="llmos-engine-cpu:0.1.0"),
        }
    )
    """Images by engine; ``fetch`` is for downloads, the empty name for all others."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default=[])
    """Pull secrets, which must exist in the namespace of each pod."""
    port: int = 8080
    """Port that engines listen on."""
    run_as: int = Field(default=1000, gt=0)
    """User and group of processes, and of files on the model volume."""
    models: ModelVolumeSettings = ModelVolumeSettings()
    gpu_resource: str = "nvidia.com/gpu"
    """Resource name of GPUs on the nodes."""
    gpu_type_label: str = "nvidia.com/gpu.product"
    """Label of the nodes with the type of their GPUs."""
    gpu_runtime_class: str | None = None
    """The RuntimeClass of pods with GPUs."""
    priority_class: str | None = None
    """The PriorityClass of engines, lower than that of the platform itself."""
    node_selector: dict[str, str] = Field(default={})
    tolerations: list[dict[str, Any]] = Field(default=[])
    gpu_tolerations: list[dict[str, Any]] = Field(
        default=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    )
    """Additional tolerations of pods with GPUs."""
    lost_node_after: int = Field(default=30, ge=0)
    """Seconds after which a replica on an unreachable node is replaced on another; Kubernetes' default is 300."""
    drain: int = Field(default=5, ge=0)
    """Seconds between a replica's removal from the endpoints and its SIGTERM, so that every gateway knows of it."""
    egress: EgressSettings = EgressSettings()
    network_policies: bool = True
    """Create a NetworkPolicy for each workload, so that only gateways reach engines."""
    owned: bool = True
    """Make the custom resource the owner of objects, for garbage collection; false if resources aren't stored there."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the file named by the environment; return the defaults if it names none.

        Raises
        ------
        UsageError
            The file can't be read, or a setting is invalid.
        """
        return read_model(cls, ENV_KUBERNETES_SETTINGS, environ)

    def image_for(self, name: str) -> ImageSettings:
        """Return the settings of an engine's image."""
        return self.images.get(name) or self.images.get("") or _DEFAULT_IMAGE

    def image_name(self, image: str) -> str:
        """Return an image's name with the registry's prefix, unless it names a registry itself.

        >>> KubernetesSettings(registry="registry.example.org/llmos/").image_name("llmos-hub:0.1.0")
        'registry.example.org/llmos/llmos-hub:0.1.0'
        """
        first, slash, _ = image.partition("/")
        named = slash and ("." in first or ":" in first or first == "localhost")
        return image if named or not self.registry else f"{self.registry.rstrip('/')}/{image}"
