"""Settings for the contents of people's namespaces in a cluster, from the chart's values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import Field

from llmos.resources import KINDS
from llmos.resources.base import API_VERSION, Model
from llmos_hub.names import KEY_COMPONENT, PRIVATE_NETWORKS
from llmos_hub.settings_files import read_model

__all__ = ["ENV_NAMESPACE_SETTINGS", "Binding", "Limits", "NamespaceOptions", "Network", "Peer"]

ENV_NAMESPACE_SETTINGS: Final = "LLMOS_NAMESPACE_SETTINGS"
"""Environment variable with the file (YAML or JSON) of these settings; in a cluster a mounted ConfigMap."""

CIDR = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Quantities = dict[str, str]


def _custom_resources() -> dict[str, str]:
    """Return the default maximum number of custom resources of each kind."""
    group = API_VERSION.partition("/")[0]
    kinds = [kind for kind in KINDS.values() if kind.scope == "Namespaced" and kind.stored_as == "CustomResource"]
    return {f"count/{kind.plural}.{group}": "100" for kind in kinds}


class Peer(Model):
    """A component of the platform that people's pods connect to, or that connects to them.

    Ports are those of its pods: a NetworkPolicy applies after a Service has translated addresses.
    """

    namespace: str = ""
    """Namespace of its pods; empty for the release's own namespace."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of its pods."""
    ports: list[Port] = Field(default_factory=list)
    """Ports its pods listen on."""


class Network(Model):
    """Network access of people's pods."""

    internet: bool = True
    """Allow pods to reach the internet; addresses of cloud metadata services are always excluded."""
    cluster_cidrs: list[CIDR] = Field(default_factory=lambda: [*PRIVATE_NETWORKS])
    """Addresses that are not the internet: pods, Services, nodes, the site's own network."""
    dns: Peer = Field(default_factory=lambda: Peer(namespace="kube-system", labels={"k8s-app": "kube-dns"}, ports=[53]))
    """The cluster's DNS."""
    dns_cidrs: list[CIDR] = Field(default_factory=lambda: ["169.254.20.10/32"])
    """Further addresses of DNS servers, such as a node's own cache."""
    hub: Peer = Field(default_factory=lambda: Peer(labels={KEY_COMPONENT: "hub"}, ports=[8081]))
    """The Hub: receives requests of servers, and checks that they answer."""
    proxy: Peer = Field(default_factory=lambda: Peer(labels={KEY_COMPONENT: "proxy"}, ports=[8000]))
    """The Hub's proxy: connects people to their servers."""
    api: Peer = Field(default_factory=lambda: Peer(labels={KEY_COMPONENT: "api"}, ports=[8080]))
    """The API."""
    gateway: Peer = Field(default_factory=lambda: Peer(labels={KEY_COMPONENT: "gateway"}, ports=[8080]))
    """The gateway: receives requests of servers, and is the only component that connects to engines."""
    server_ports: list[Port] = Field(default_factory=lambda: [8888])
    """Ports that notebook servers listen on."""
    engine_ports: list[Port] = Field(default_factory=lambda: [8080])
    """Ports that engines listen on."""


class Limits(Model):
    """Default and maximum resources of containers: a LimitRange."""

    default_request: Quantities = Field(default_factory=lambda: {"cpu": "100m", "memory": "128Mi"})
    """Request of a container that has none; without it, a quota would refuse the pod."""
    default: Quantities = Field(default_factory=dict)
    """Limit of a container that has none; required if the quota has ``limits.memory`` or ``limits.cpu``."""
    max: Quantities = Field(default_factory=dict)
    """Maximum of a container."""


class Binding(Model):
    """A RoleBinding that gives a service account of the platform a ClusterRole in people's namespaces only."""

    cluster_role: str
    """The ClusterRole."""
    service_account: str
    """The service account."""
    namespace: str = ""
    """Namespace of the account; empty for the release's own namespace."""


class NamespaceOptions(Model):
    """Settings of each namespace."""

    instance: str = "llmos"
    """The release's name, a label of all objects, so that two releases don't change each other's namespaces."""
    public: bool = True
    """Create a namespace ``public``, whose models everybody may use."""
    quota: Quantities = Field(default_factory=lambda: {"pods": "50", "persistentvolumeclaims": "20"})
    """A person's ResourceQuota: ``requests.cpu``, ``requests.memory``, ``requests.nvidia.com/gpu``,
    ``requests.storage``; empty for none."""
    group_quota: Quantities | None = None
    """A group's ResourceQuota; by default the same as a person's."""
    counts: Quantities = Field(default_factory=lambda: {**_custom_resources(), "count/secrets": "500"})
    """Maximum number of objects in a person's or a group's namespace, since all share the cluster's database; part of
    the ResourceQuota, which takes precedence. (A model has up to two Secrets, a server one.)"""
    limits: Limits = Field(default_factory=Limits)
    """Default and maximum resources of containers."""
    network: Network = Field(default_factory=Network)
    """Network access of people's pods."""
    service_account: str = "llmos"
    """The service account of people's pods; it has no rights, and its token is not mounted."""
    pull_secrets: list[str] = Field(default_factory=list)
    """Secrets of the release's namespace with a registry's credentials, copied into each namespace."""
    bindings: list[Binding] = Field(default_factory=list)
    """Rights of the platform's own components there."""
    pod_security: Literal["", "privileged", "baseline", "restricted"] = "baseline"
    """The Pod Security Standard that is enforced; empty for the cluster's own setting."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Additional labels of the namespace."""
    orphan_grace_hours: float = Field(default=72.0, ge=0)
    """Hours for which a person's namespace is kept after the Hub has deleted them: enough to notice a mistake, even
    over a weekend."""
    delete_volumes: bool = False
    """Delete the volumes of deleted people as well; otherwise their namespace is kept as long as it has
    one."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the file named by the environment; return the defaults if it names none.

        Raises
        ------
        UsageError
            The file can't be read, or a setting is invalid.
        """
        return read_model(cls, ENV_NAMESPACE_SETTINGS, environ)
