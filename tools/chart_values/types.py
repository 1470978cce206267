"""What the sections of the values are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "Component",
    "EnvVar",
    "KubernetesObject",
    "Label",
    "Name",
    "OptionalUrl",
    "Quantity",
    "ResourceRequirements",
    "Section",
    "Service",
    "Storage",
    "Toleration",
    "requests",
]

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")] | int | float
"""A Kubernetes quantity: ``500m``, ``256Mi``, 2."""

Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$")]
"""The name of an object in the cluster, or nothing."""

Label = Annotated[str, Field(pattern=r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", max_length=63)]
"""What a Service's name may begin with, or nothing."""

OptionalUrl = Annotated[str, Field(pattern=r"^(https?://[^/\s]+(/\S*)?)?$")]
"""An address of HTTP, or nothing."""

KubernetesObject = dict[str, Any]
"""Handed to Kubernetes as it is, which checks it."""

Port = Annotated[int, Field(ge=1, le=65535)]
NodePort = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """A part of the values; unknown names are refused."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )


class EnvVar(Section):
    """One environment variable, as a container has it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Its name."""
    value: str | None = None
    """Its value."""
    value_from: KubernetesObject | None = None
    """Or where the value is: a key of a Secret, say."""


class Toleration(Section):
    """A taint that pods may be placed in spite of."""

    key: str | None = None
    """The taint's key; without one, every taint."""
    operator: Literal["Exists", "Equal"] | None = None
    """How the value is compared."""
    value: str | None = None
    """The taint's value."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; without one, every effect."""
    toleration_seconds: int | None = None
    """How long a pod stays after NoExecute, in seconds."""


class ResourceRequirements(Section):
    """What a container gets."""

    requests: dict[str, Quantity] = {}
    """What is set aside for it."""
    limits: dict[str, Quantity] = {}
    """What it may use at most."""


def requests(cpu: str, memory: str, *, limit: str) -> ResourceRequirements:
    """A share of the processor and of memory, and a bound for memory alone: a bound for the processor slows bursts down."""
    return ResourceRequirements(requests={"cpu": cpu, "memory": memory}, limits={"memory": limit})


class Component(Section):
    """What every component has."""

    resources: ResourceRequirements = ResourceRequirements()
    """What the container gets."""
    extra_env: list[EnvVar] = []
    """More environment variables, as a container has them."""
    pod_annotations: dict[str, str] = {}
    """Annotations of the pods."""
    node_selector: dict[str, str] = {}
    """Labels that the node must have, together with those of `scheduling`."""
    tolerations: list[Toleration] = []
    """Taints that the pods tolerate, together with those of `scheduling`."""
    affinity: KubernetesObject = {}
    """Affinity of the pods, in place of the default: the replicas of a component on different nodes where that is possible."""


class Service(Section):
    """How a component is reached."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """`ClusterIP` behind an Ingress or HTTPRoute; the others open a port of their own."""
    port: Port = 80
    """The Service's port."""
    node_port: NodePort = 0
    """The port on every node, for types `NodePort` and `LoadBalancer`; 0 lets the cluster choose."""
    annotations: dict[str, str] = {}
    """Annotations, for load balancers."""


class Storage(Section):
    """A volume."""

    size: Quantity = "1Gi"
    """How much."""
    storage_class: str = ""
    """The StorageClass; empty: the cluster's default."""
