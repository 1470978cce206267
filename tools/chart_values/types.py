"""Types that the sections of the values have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")] | int | float
"""A Kubernetes quantity: ``500m``, ``256Mi``, 2."""

Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
"""The name of an object in the cluster, or empty."""

Label = Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=63)]
"""A prefix of Services' names, or empty."""

OptionalUrl = Annotated[str, Field(pattern=r"^(https?://[^/\s]+(/\S*)?)?$")]
"""An HTTP URL, or empty."""

KubernetesObject = dict[str, Any]
"""An object that is passed to Kubernetes unchanged, which validates it."""

Port = Annotated[int, Field(ge=1, le=65535)]
NodePort = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A section of the values; unknown names are rejected."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class EnvVar(Section):
    """An environment variable of a container."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Name of the variable."""
    value: str | None = None
    """Value of the variable."""
    value_from: KubernetesObject | None = None
    """Source of the value, such as a key of a Secret, in place of `value`."""


class Toleration(Section):
    """A toleration of a taint."""

    key: str | None = None
    """Key of the taint; if unset, all taints."""
    operator: Literal["Exists", "Equal"] | None = None
    """Comparison of the value."""
    value: str | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; if unset, all effects."""
    toleration_seconds: int | None = None
    """Seconds for which a pod stays after NoExecute."""


class ResourceRequirements(Section):
    """Resources of a container."""

    requests: dict[str, Quantity] = {}
    """Requested resources."""
    limits: dict[str, Quantity] = {}
    """Maximum resources."""


def requests(cpu: str, memory: str, *, limit: str) -> ResourceRequirements:
    """Return requests for CPU and memory with a limit for memory only."""
    # a limit for CPU would slow down bursts
    return ResourceRequirements(requests={"cpu": cpu, "memory": memory}, limits={"memory": limit})


class Component(Section):
    """Values that every component has."""

    resources: ResourceRequirements = ResourceRequirements()
    """Resources of the container."""
    extra_env: list[EnvVar] = []
    """Additional environment variables of the container."""
    pod_annotations: dict[str, str] = {}
    """Annotations of the pods."""
    node_selector: dict[str, str] = {}
    """Node labels that the pods require, in addition to those of `scheduling`."""
    tolerations: list[Toleration] = []
    """Taints that the pods tolerate, in addition to those of `scheduling`."""
    affinity: KubernetesObject = {}
    """Affinity of the pods, in place of the default: replicas on different nodes if possible."""


class Service(Section):
    """The Service of a component."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """`ClusterIP` behind an Ingress or HTTPRoute; the other types open a port of their own."""
    port: Port = 80
    """Port of the Service."""
    node_port: NodePort = 0
    """Port on every node, for types `NodePort` and `LoadBalancer`; 0 lets the cluster choose."""
    annotations: dict[str, str] = {}
    """Annotations of the Service, for load balancers."""


class Storage(Section):
    """A volume."""

    size: Quantity = "1Gi"
    """Size of the volume."""
    storage_class: str = ""
    """StorageClass of the volume; empty: the cluster's default."""
