"""What the platform puts into people's namespaces in a cluster: what the chart's values say of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self

import yaml
from pydantic import Field, ValidationError

from llmos.errors import UsageError
from llmos.resources.base import Model, invalid

__all__ = ["ENV_NAMESPACE_SETTINGS", "Binding", "Limits", "NamespaceOptions", "Network", "Peer"]

ENV_NAMESPACE_SETTINGS: Final = "LLMOS_NAMESPACE_SETTINGS"
"""The file (YAML or JSON) with these settings; in a cluster a mounted ConfigMap."""

CIDR = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Quantities = dict[str, str]


class Peer(Model):
    """A part of the platform that people's pods talk to, or that talks to them.

    Ports are those of its pods: a NetworkPolicy sees addresses after a Service has translated them.
    """

    namespace: str = ""
    """Where its pods are; empty: the release's own namespace."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of its pods."""
    ports: list[Port] = Field(default_factory=list)
    """Where its pods listen."""


class Network(Model):
    """Who may talk to whom."""

    internet: bool = True
    """Whether pods may reach the outside world; addresses of cloud metadata services they never may."""
    cluster_cidrs: list[CIDR] = Field(
        default_factory=lambda: [
            "10.0.0.0/8",
            "172.16.0.0/12",
            "192.168.0.0/16",
            "100.64.0.0/10",
            "169.254.0.0/16",
            "fc00::/7",
            "fe80::/10",
        ]
    )
    """What is not the outside world: pods, Services, nodes, the site's own network."""
    dns: Peer = Field(default_factory=lambda: Peer(namespace="kube-system", labels={"k8s-app": "kube-dns"}, ports=[53]))
    """The name service."""
    dns_cidrs: list[CIDR] = Field(default_factory=lambda: ["169.254.20.10/32"])
    """Addresses that answer names beside it: a node's own cache."""
    hub: Peer = Field(default_factory=lambda: Peer(labels={"app.kubernetes.io/component": "hub"}, ports=[8081]))
    """The Hub: asked by servers, and looks whether they answer."""
    proxy: Peer = Field(default_factory=lambda: Peer(labels={"app.kubernetes.io/component": "proxy"}, ports=[8000]))
    """The Hub's proxy: brings people to their servers."""
    api: Peer = Field(default_factory=lambda: Peer(labels={"app.kubernetes.io/component": "api"}, ports=[8080]))
    """The API."""
    gateway: Peer = Field(default_factory=lambda: Peer(labels={"app.kubernetes.io/component": "gateway"}, ports=[8080]))
    """The gateway: asked by servers, and the only one that reaches engines."""
    server_ports: list[Port] = Field(default_factory=lambda: [8888])
    """Where notebook servers listen."""
    engine_ports: list[Port] = Field(default_factory=lambda: [8080])
    """Where engines listen."""


class Limits(Model):
    """What a container gets where it doesn't say, and what it may say at most: a LimitRange."""

    default_request: Quantities = Field(default_factory=lambda: {"cpu": "100m", "memory": "128Mi"})
    """Set aside for a container that asks for nothing; without, a quota would refuse it."""
    default: Quantities = Field(default_factory=dict)
    """The limit of a container that has none; needed where the quota has ``limits.memory`` or ``limits.cpu``."""
    max: Quantities = Field(default_factory=dict)
    """The most that a container may ask for."""


class Binding(Model):
    """Lets a service account of the platform use a ClusterRole in people's namespaces, and only there."""

    cluster_role: str
    """The role."""
    service_account: str
    """Who."""
    namespace: str = ""
    """Where the account is; empty: the release's own namespace."""


class NamespaceOptions(Model):
    """What each namespace has."""

    instance: str = "llmos"
    """The release's name, put on everything, so that two releases leave each other's namespaces alone."""
    public: bool = True
    """Whether there is a namespace ``public``, whose models everybody may use."""
    quota: Quantities = Field(default_factory=lambda: {"pods": "50", "persistentvolumeclaims": "20"})
    """A person's ResourceQuota: ``requests.cpu``, ``requests.memory``, ``requests.nvidia.com/gpu``,
    ``requests.storage``; empty: none."""
    group_quota: Quantities | None = None
    """A group's; unset, as a person's."""
    counts: Quantities = Field(default_factory=lambda: {"count/modelservices.llmos.ai": "100", "count/secrets": "500"})
    """How many objects a person's or a group's namespace may have, since all of them fill the cluster's one database: added
    to the ResourceQuota, which may say otherwise. (A model has up to two Secrets, a server one.)"""
    limits: Limits = Field(default_factory=Limits)
    """What containers get and may ask for."""
    network: Network = Field(default_factory=Network)
    """Who may talk to whom."""
    service_account: str = "llmos"
    """The service account of people's pods; it may nothing, and its token is not mounted."""
    pull_secrets: list[str] = Field(default_factory=list)
    """Secrets of the release's namespace with a registry's credentials, copied into each namespace."""
    bindings: list[Binding] = Field(default_factory=list)
    """What the platform's own parts may do there."""
    pod_security: Literal["", "privileged", "baseline", "restricted"] = "baseline"
    """The Pod Security Standard that pods are held to; empty: the cluster's own setting."""
    labels: dict[str, str] = Field(default_factory=dict)
    """More labels on the namespace."""
    orphan_grace_hours: float = Field(default=72.0, ge=0)
    """Hours for which what belongs to a person is kept after the Hub lost them: long enough to notice a mistake and
    over a weekend."""
    delete_volumes: bool = False
    """Whether the volumes of a person that was deleted go as well; else their namespace stays for as long as there is
    one."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read the file that the environment names; all defaults where it names none.

        Raises
        ------
        UsageError
            The file can't be read, or with a sentence per setting that is wrong.
        """
        path = environ.get(ENV_NAMESPACE_SETTINGS)
        if not path:
            return cls()
        try:
            data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise UsageError(f"{ENV_NAMESPACE_SETTINGS}: {path} can't be read: {error}") from None
        try:
            return cls.model_validate(data or {})
        except ValidationError as error:
            raise UsageError(f"{ENV_NAMESPACE_SETTINGS}: {invalid(error, cls).message}") from None
