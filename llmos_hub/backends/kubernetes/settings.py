"""How workloads become pods on one cluster: what the chart's values say of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import AfterValidator, Field, ValidationError

from llmos.errors import UsageError
from llmos.resources.base import Model, invalid

__all__ = ["ENV_KUBERNETES_SETTINGS", "EgressSettings", "ImageSettings", "KubernetesSettings", "ModelVolumeSettings"]

ENV_KUBERNETES_SETTINGS: Final = "LLMOS_KUBERNETES_SETTINGS"
"""The file (YAML or JSON) with these settings; in a cluster a mounted ConfigMap."""

_PRIVATE: Final = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16")


class ImageSettings(Model):
    """An image that processes run from."""

    image: str
    """Name and tag, without the registry's prefix: ``llmos-engine-cpu:0.1.0``."""
    read_only_root_filesystem: bool = True
    """Whether its programs write only below /tmp."""
    python: str = "/opt/llmos/bin/python"
    """Its interpreter, for programs of the platform itself."""


_DEFAULT_IMAGE: Final = ImageSettings(image="llmos-hub:0.1.0")


class ModelVolumeSettings(Model):
    """Where a namespace's model files lie: on a volume that all its pods share, or in each pod anew."""

    storage_class: str | None = None
    """The class of the volume claim ``llmos-models`` that each namespace gets; unset: no claim, each pod downloads."""
    access_mode: Literal["ReadWriteMany", "ReadWriteOnce"] = "ReadWriteMany"
    """ReadWriteOnce keeps all pods of a namespace on one machine."""
    size: str = "50Gi"
    """Of the claim, or how much each pod may write where there is none."""
    mount_path: str = "/models"
    """Where it is in the pods."""


def _check_range(cidr: str) -> str:
    try:
        ip_network(cidr)
    except ValueError:
        message = f'"{cidr[:60]}" is not a range of addresses such as 10.0.0.0/8'
        raise ValueError(message) from None
    return cidr


_Range = Annotated[str, AfterValidator(_check_range)]


class EgressSettings(Model):
    """What pods may connect to beside the cluster's DNS: models are downloaded."""

    enabled: bool = True
    """Whether the ranges below may be reached."""
    cidrs: list[_Range] = Field(default=["0.0.0.0/0", "::/0"])
    """Ranges that may be reached."""
    except_cidrs: list[_Range] = Field(default=[*_PRIVATE, "fd00::/8", "fe80::/10"])
    """Ranges within these that may not: private networks, the cluster itself. A cloud's metadata service never may."""
    also: list[dict[str, Any]] = Field(default=[])
    """More rules, as NetworkPolicy has them, also where nothing else may be reached: a mirror of models, say."""


class KubernetesSettings(Model):
    """See the module."""

    release: str = Field(default="llmos", max_length=53)
    """The release whose workloads these are: the label ``app.kubernetes.io/part-of`` of all objects."""
    namespace: str = "llmos"
    """Where the release itself runs; its gateway may reach the engines."""
    registry: str = ""
    """Before every image's name that has no registry of its own: ``registry.example.org/llmos/``."""
    images: dict[str, ImageSettings] = Field(
        default={
            "": _DEFAULT_IMAGE,
            "llamacpp": ImageSettings(image="llmos-engine-cpu:0.1.0"),
        }
    )
    """By engine; ``fetch`` downloads; the one with an empty name is used for all others."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default=[])
    """Secrets that must be in the namespace of each pod."""
    port: int = 8080
    """Where engines listen."""
    run_as: int = Field(default=1000, gt=0)
    """User and group that processes run as, and that files on the model volume belong to."""
    models: ModelVolumeSettings = ModelVolumeSettings()
    gpu_resource: str = "nvidia.com/gpu"
    """What the nodes call a GPU."""
    gpu_type_label: str = "nvidia.com/gpu.product"
    """The nodes' label that names the kind of GPU."""
    gpu_runtime_class: str | None = None
    """The RuntimeClass of pods with GPUs."""
    priority_class: str | None = None
    """The PriorityClass of engines: below what the platform itself has."""
    node_selector: dict[str, str] = Field(default={})
    tolerations: list[dict[str, Any]] = Field(default=[])
    gpu_tolerations: list[dict[str, Any]] = Field(
        default=[{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    )
    """More, for pods with GPUs."""
    lost_node_after: int = Field(default=30, ge=0)
    """Seconds after which a replica whose machine doesn't answer is started on another; Kubernetes' own is 300."""
    drain: int = Field(default=5, ge=0)
    """Seconds between a replica's leaving the ready ones and its SIGTERM: every gateway has heard of it by then."""
    egress: EgressSettings = EgressSettings()
    network_policies: bool = True
    """Whether each workload gets a NetworkPolicy: only gateways reach engines."""
    owned: bool = True
    """Whether objects are owned by the custom resource, so that they go with it; not where resources live elsewhere."""

    @classmethod
    def load(cls, data: Any) -> Self:
        """Read them from what a YAML file holds.

        Raises
        ------
        UsageError
            With a sentence per setting that is wrong.
        """
        try:
            return cls.model_validate(data or {})
        except ValidationError as error:
            message = f"{ENV_KUBERNETES_SETTINGS}: {invalid(error, cls).message}"
            raise UsageError(message) from None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the file that the environment names; all defaults where it names none.

        Raises
        ------
        UsageError
            The file can't be read.
        """
        path = environ.get(ENV_KUBERNETES_SETTINGS)
        if not path:
            return cls()
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            message = f"{ENV_KUBERNETES_SETTINGS}: {path} can't be read: {error}"
            raise UsageError(message) from None
        return cls.load(data)

    def image_for(self, name: str) -> ImageSettings:
        """The settings of an engine's image."""
        return self.images.get(name) or self.images.get("") or _DEFAULT_IMAGE

    def image_name(self, image: str) -> str:
        """An image's name with the registry's prefix, unless it names a registry itself.

        >>> KubernetesSettings(registry="registry.example.org/llmos/").image_name("llmos-hub:0.1.0")
        'registry.example.org/llmos/llmos-hub:0.1.0'
        """
        first, slash, _ = image.partition("/")
        named = slash and ("." in first or ":" in first or first == "localhost")
        return image if named or not self.registry else f"{self.registry.rstrip('/')}/{image}"
