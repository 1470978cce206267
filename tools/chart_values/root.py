"""The chart's values as a whole, and those for all components."""

# ruff: noqa: RUF012 - pydantic copies a default for each object

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from llmos_hub.names import PRIVATE_NETWORKS
from tools.chart_values.components import (
    Api,
    Backup,
    Controllers,
    Culler,
    ExternalHub,
    Gateway,
    Hub,
    Mirror,
    Proxy,
    Valkey,
)
from tools.chart_values.types import KubernetesObject, Label, Name, OptionalUrl, Quantity, Section, Storage, Toleration

Host = Annotated[str, Field(pattern=r"^([a-z0-9*]([-a-z0-9.]*[a-z0-9])?)?$", max_length=253)]
Tag = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?$")]
Digest = Annotated[str, Field(pattern=r"^(sha256:[0-9a-f]{64})?$")]
Certificates = Annotated[
    str,
    Field(
        pattern=r"^(\s*(#[^\n]*\s+)*-----BEGIN CERTIFICATE-----[^$]+-----END CERTIFICATE-----\s*)?$", max_length=65536
    ),
]
Cidr = Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+/[0-9]{1,3}$")]
Repository = Annotated[str, Field(pattern=r"^[a-z0-9]+([._/-]+[a-z0-9]+)*$")]


class Image(Section):
    """A container image."""

    repository: Repository
    """Name of the image, without the registry."""
    tag: Tag = ""
    """Tag of the image, in place of `images.tag`."""
    digest: Digest = ""
    """Digest of the image, `sha256:` and 64 hex digits; nodes then run exactly this image, whatever its tag refers
    to."""


class Images(Section):
    """The container images; `images/` in the sources builds them."""

    registry: Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*)?$")] = ""
    """Prefix of all images' names: a private registry or a mirror, such as `registry.example.org/ai`. Empty: images
    that the nodes already have."""
    tag: Tag = ""
    """Tag of all images; empty: the chart's appVersion."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """Pull policy of all images."""
    pull_secrets: list[Annotated[str, Field(min_length=1)]] = []
    """Names of Secrets with the registry's credentials, in the release's namespace."""
    hub: Image = Image(repository="llmos-hub")
    """The control plane: Hub, proxy, API, controllers, gateway and Valkey."""
    notebook: Image = Image(repository="llmos-notebook")
    """Notebook servers."""
    engine_cpu: Image = Image(repository="llmos-engine-cpu")
    """llama.cpp on processors."""


class PriorityClasses(Section):
    """Precedence of pods when a node is full."""

    create: bool = True
    """Create the PriorityClasses that aren't named below; needs cluster-wide permissions."""
    existing_system: Name = ""
    """An existing PriorityClass for LLMOS' own components, in place of the chart's."""
    existing_users: Name = ""
    """An existing PriorityClass for notebook servers and models, in place of the chart's; lower than
    `existingSystem`."""
    system: Annotated[int, Field(ge=-2147483648, le=1000000000)] = 1000000
    """Priority of LLMOS' own components."""
    users: Annotated[int, Field(ge=-2147483648, le=1000000000)] = 1000
    """Priority of notebook servers and models. Lower than LLMOS' own, so that they make room for it and not the
    reverse."""


class Scheduling(Section):
    """Placement of all components."""

    node_selector: dict[str, str] = {}
    """Node labels that the pods require."""
    tolerations: list[Toleration] = []
    """Taints that the pods tolerate."""
    priority_classes: PriorityClasses = PriorityClasses()
    """Precedence of pods when a node is full."""


class UserNetwork(Section):
    """Destinations that pods in users' namespaces may reach besides the Hub, the API, the gateway and DNS."""

    internet: bool = True
    """Addresses outside the cluster, for downloads of models and packages; never a cloud's metadata service."""
    cluster_cidrs: list[Cidr] = [*PRIVATE_NETWORKS]
    """Addresses that aren't the internet: pods, Services and nodes, the site's own network, the metadata service."""
    also: list[KubernetesObject] = []
    """Additional egress rules for model pods, such as for a mirror of models in the site's network."""


class ModelStorage(Section):
    """Storage for downloaded models."""

    storage_class: str = ""
    """StorageClass of one volume per namespace, shared by all its models. Empty: no volume, each model pod downloads
    its own."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteMany"
    """Access mode of the volume; `ReadWriteOnce` keeps all model pods of a namespace on one node."""
    size: Quantity = "50Gi"
    """Size of the volume, or without a volume the limit for each pod's files."""
    mirror: OptionalUrl = ""
    """
    First place to look for models: the URL of a directory that `llmos bundle` has written (its `models`), on any web
    server. Empty: the chart's own mirror if `mirror.enabled`. To reach another, model pods need a rule in
    `users.network.also`.
    """


class Gpus(Section):
    """GPUs of the cluster."""

    resource: Annotated[str, Field(min_length=1)] = "nvidia.com/gpu"
    """Name of the GPU resource on the nodes."""
    type_label: Annotated[str, Field(min_length=1)] = "nvidia.com/gpu.product"
    """Node label with the type of GPU."""
    runtime_class: Name = ""
    """RuntimeClass of pods with GPUs; empty: the default."""
    tolerations: list[Toleration] = [Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")]
    """Taints that pods with GPUs tolerate."""


class Limits(Section):
    """Defaults and maximum values for containers in users' namespaces: a LimitRange."""

    default_request: dict[str, Quantity] = {"cpu": "100m", "memory": "128Mi"}
    """Requests of a container that sets none."""
    default: dict[str, Quantity] = {}
    """Limits of a container that sets none; needed for each of `limits.cpu`, `limits.memory` … that a quota
    restricts."""
    max: dict[str, Quantity] = {}
    """Maximum limits of a container."""


class Users(Section):
    """Users' namespaces, which are created at first need, and their content."""

    quota: dict[str, Quantity] = {"pods": 50, "persistentvolumeclaims": 20}
    """ResourceQuota of a user: `requests.cpu`, `requests.memory`, `requests.nvidia.com/gpu`, `requests.storage`; `{}`
    is none."""
    group_quota: dict[str, Quantity] = {}
    """ResourceQuota of a group; empty: the same as a user's."""
    counts: dict[str, Quantity] = {"count/modelservices.llmos.ai": 100, "count/secrets": 500}
    """Maximum numbers of objects in a user's or group's namespace, added to the quota because all objects share the
    cluster's database. A model has up to two Secrets, a server and a Credential have one."""
    limits: Limits = Limits()
    """Defaults and maximum values for containers."""
    pod_security: Literal["", "privileged", "baseline", "restricted"] = "baseline"
    """Pod Security Standard that is enforced; empty: the cluster's own setting."""
    namespace_labels: dict[str, str] = {}
    """Additional labels of these namespaces."""
    orphan_grace_hours: Annotated[float, Field(ge=0)] = 72
    """Hours for which a user's objects are kept after the Hub lost the user: a weekend, and time to notice a
    mistake."""
    delete_volumes: bool = False
    """`true` to delete the volumes of deleted users; otherwise a namespace stays as long as it has a volume."""

    home: Storage = Storage(size="10Gi")
    """The home volume of each user, mounted in all of their servers. It is kept until the user is deleted."""
    models: ModelStorage = ModelStorage()
    """Storage for downloaded models."""
    gpus: Gpus = Gpus()
    """GPUs of the cluster."""
    network: UserNetwork = UserNetwork()
    """Destinations that users' pods may reach."""
    node_selector: dict[str, str] = {}
    """Node labels that notebook servers and models require."""
    tolerations: list[Toleration] = []
    """Taints that notebook servers and models tolerate."""
    lost_node_after: Annotated[int, Field(ge=0)] = 30
    """Seconds after which a model is started elsewhere if its node doesn't respond; Kubernetes' default is 300."""


class Certificate(Section):
    """TLS of the Ingress."""

    enabled: bool = False
    """`true` for URLs that begin with https."""
    secret_name: Name = ""
    """A Secret with the certificate; empty: the controller's default certificate, or one requested by annotations."""


class Ingress(Section):
    """An Ingress to the Hub's proxy; `/services/llm/v1` and the API's host name lead directly to the gateway."""

    enabled: bool = False
    """`true` to create it."""
    class_name: Name = ""
    """The IngressClass; empty: the cluster's default."""
    annotations: dict[str, str] = {}
    """Annotations; for models, allow a body size of 32 MiB or more and timeouts of ten minutes."""
    host: Host = ""
    """Host name of the Hub; empty: any."""
    gateway_host: Host = ""
    """Host name for models alone, such as `models.example.org`; the OpenAI base URL is then `https://HOST/v1`."""
    tls: Certificate = Certificate()
    """TLS."""


class HttpRoute(Section):
    """The same routes with the Gateway API."""

    enabled: bool = False
    """`true` to create it."""
    parent_refs: list[KubernetesObject] = []
    """The parent Gateways, such as `[{name: main, namespace: gateways}]`."""
    host: Host = ""
    """Host name of the Hub; empty: any."""
    gateway_host: Host = ""
    """Host name for models alone."""
    tls: bool = True
    """`true` if the Gateway terminates TLS, so that URLs begin with https."""


class NetworkPolicies(Section):
    """Denies all traffic in the release's namespace by default, and allows what the components need."""

    enabled: bool = True
    """`true` to create NetworkPolicies; they need a cluster network that enforces them."""
    ingress_from: list[KubernetesObject] = []
    """Sources outside that may reach the proxy and the gateway, as peers of a NetworkPolicy; empty: all."""
    metrics_from: list[KubernetesObject] = []
    """Sources that may read `/metrics`, as peers of a NetworkPolicy: the API's on port 9090 of its pods, which nobody
    else reaches; the gateway's and the controllers' on port 8080. Without it, the API's at `/services/llmos/metrics`
    needs an admin's token."""
    api_server_cidrs: list[Cidr] = ["0.0.0.0/0"]
    """Addresses of the cluster's API server; `kubectl get endpointslices kubernetes` shows them, for a narrower
    rule."""
    api_server_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [443, 6443]
    """Its ports."""
    dns_namespace: Name = "kube-system"
    """Namespace of the cluster's DNS."""
    dns_labels: dict[str, str] = {"k8s-app": "kube-dns"}
    """Labels of the DNS pods."""
    dns_port: Annotated[int, Field(ge=1, le=65535)] = 53
    """Port of the DNS pods; 5353 on OpenShift."""


class Rbac(Section):
    """Permissions in the cluster."""

    create: bool = True
    """Create roles and bindings; `false` if an administrator creates them."""
    confine: bool = True
    """
    Reject, with a ValidatingAdmissionPolicy, all writes of LLMOS' own accounts outside the release's namespace and the
    namespaces that LLMOS created: roles can't express "namespaces with this label".
    """
    aggregate: bool = True
    """Include LLMOS' resources in Kubernetes' own roles `view`, `edit` and `admin`."""


class Crds(Section):
    """Custom resource definitions. Helm only installs them; this keeps them up to date."""

    upgrade: bool = True
    """Apply them in a job before each `helm upgrade`."""


class Values(Section):
    """The values of the chart."""

    name_override: Label = ""
    """Replacement for the chart's name in names and labels."""
    fullname_override: Label = ""
    """Replacement for RELEASE-llmos at the beginning of all names."""
    instance: Name = ""
    """
    Identifier of this release in labels of users' namespaces and in cluster-wide names; empty: the one that the release
    had so far, else NAMESPACE-RELEASE, or NAMESPACE.RELEASE if either has a dash in it. Set it if a tool that doesn't
    ask the cluster (`helm template`, Argo CD) upgrades a release that had another identifier.
    """
    public_url: OptionalUrl = ""
    """Public URL of the Hub, such as `https://hub.example.org`; empty: from `ingress` or `httpRoute`, else the
    Service's."""
    gateway_url: OptionalUrl = ""
    """Public URL of the gateway, without `/v1`; empty: as for `publicUrl`."""
    existing_secret: Name = ""
    """
    A Secret of your own with all passwords and tokens (docs/how-to/install-with-gitops.md names its keys), in place of
    the one that the chart creates on the first install and keeps. Needed if a tool renders the chart without asking the
    cluster.
    """
    ca_certificates: Certificates = ""
    """
    Certificates (PEM) of the site's own authorities, such as `--set-file caCertificates=company.pem`. The Hub, the API, the
    gateway, the controllers, downloads and notebook servers of LLMOS' image trust them in addition to the public ones.
    """
    images: Images = Images()
    """The container images."""
    scheduling: Scheduling = Scheduling()
    """Placement of all components."""
    hub: Hub = Hub()
    """JupyterHub."""
    external_hub: ExternalHub = ExternalHub()
    """An existing Hub."""
    culler: Culler = Culler()
    """Stops idle notebook servers."""
    proxy: Proxy = Proxy()
    """The Hub's proxy."""
    api: Api = Api()
    """The REST API."""
    controllers: Controllers = Controllers()
    """The controllers, which turn resources into pods."""
    gateway: Gateway = Gateway()
    """The OpenAI-compatible gateway to all models."""
    valkey: Valkey = Valkey()
    """The database for settings, which are neither custom resources nor Secrets."""
    mirror: Mirror = Mirror()
    """A mirror of models inside the cluster."""
    users: Users = Users()
    """Users' namespaces."""
    ingress: Ingress = Ingress()
    """An Ingress."""
    http_route: HttpRoute = HttpRoute()
    """An HTTPRoute of the Gateway API."""
    network_policy: NetworkPolicies = NetworkPolicies()
    """NetworkPolicies."""
    rbac: Rbac = Rbac()
    """Permissions in the cluster."""
    crds: Crds = Crds()
    """Custom resource definitions."""
    backup: Backup = Backup()
    """Backups."""
    global_: dict[str, Any] = Field(default={}, alias="global")
    """Helm's own field for values shared with a parent chart; this chart reads nothing in it."""
