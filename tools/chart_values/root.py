"""The values as a whole, and those that concern all components."""

# ruff: noqa: RUF012 - pydantic copies a default for each object

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

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

__all__ = ["Values"]

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
    """One image."""

    repository: Repository
    """Its name, below the registry."""
    tag: Tag = ""
    """Its tag, in place of `images.tag`."""
    digest: Digest = ""
    """Its digest, `sha256:` and 64 hex digits: nodes then run exactly this image, whatever its tag leads to."""


class Images(Section):
    """The images; `images/` in the sources builds them."""

    registry: Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*)?$")] = ""
    """Put before every image's name: a private registry or a mirror, such as `registry.example.org/ai`. Empty: images that the nodes have already."""
    tag: Tag = ""
    """The tag of all images; empty: the chart's appVersion."""
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    """When nodes ask the registry."""
    pull_secrets: list[Annotated[str, Field(min_length=1)]] = []
    """Names of Secrets with the registry's credentials, in the release's namespace."""
    hub: Image = Image(repository="llmos-hub")
    """The control plane: Hub, proxy, API, controllers, gateway and Valkey."""
    notebook: Image = Image(repository="llmos-notebook")
    """Notebook servers."""
    engine_cpu: Image = Image(repository="llmos-engine-cpu")
    """llama.cpp on processors."""


class PriorityClasses(Section):
    """Who stays when a node is full."""

    create: bool = True
    """Make the PriorityClasses that aren't named below; needs rights on the whole cluster."""
    existing_system: Name = ""
    """An existing PriorityClass for LLMOS' own parts, in place of one of the chart's."""
    existing_users: Name = ""
    """An existing PriorityClass for notebook servers and models, in place of one of the chart's; below `existingSystem`."""
    system: Annotated[int, Field(ge=-2147483648, le=1000000000)] = 1000000
    """The value of LLMOS' own parts."""
    users: Annotated[int, Field(ge=-2147483648, le=1000000000)] = 1000
    """The value of notebook servers and models. Below LLMOS' own: they make room for it, never the other way round."""


class Scheduling(Section):
    """Where all components run."""

    node_selector: dict[str, str] = {}
    """Labels that the nodes must have."""
    tolerations: list[Toleration] = []
    """Taints that the pods tolerate."""
    priority_classes: PriorityClasses = PriorityClasses()
    """Who stays when a node is full."""


class UserNetwork(Section):
    """What pods in people's namespaces may reach besides the Hub, the API, the gateway and the name service."""

    internet: bool = True
    """Addresses outside the cluster: models and packages are downloaded. Never those of a cloud's metadata service."""
    cluster_cidrs: list[Cidr] = [
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "fc00::/7",
        "fe80::/10",
    ]
    """What is not the internet: the addresses of pods, Services and nodes, the site's own network, the metadata service."""
    also: list[KubernetesObject] = []
    """More rules of egress for model pods: a mirror of models in the site's network, say."""


class ModelStorage(Section):
    """Where downloaded models are kept."""

    storage_class: str = ""
    """The StorageClass of one volume per namespace, shared by all its models. Empty: no volume, each model pod downloads its own."""
    access_mode: Literal["ReadWriteOnce", "ReadWriteMany"] = "ReadWriteMany"
    """`ReadWriteOnce` keeps all model pods of a namespace on one node."""
    size: Quantity = "50Gi"
    """Of the volume, or what each pod may write where there is none."""
    mirror: OptionalUrl = ""
    """
    Where models are looked for first: the address of a directory that `llmos bundle` has written (its `models`), on any web server.
    Empty: the chart's own, where `mirror.enabled`. A rule in `users.network.also` lets model pods reach another.
    """


class Gpus(Section):
    """How the cluster offers GPUs."""

    resource: Annotated[str, Field(min_length=1)] = "nvidia.com/gpu"
    """What the nodes call one."""
    type_label: Annotated[str, Field(min_length=1)] = "nvidia.com/gpu.product"
    """The nodes' label that names the kind."""
    runtime_class: Name = ""
    """The RuntimeClass of pods with GPUs; empty: the default one."""
    tolerations: list[Toleration] = [Toleration(key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")]
    """Taints that pods with GPUs tolerate."""


class Limits(Section):
    """What a container in a person's namespace gets where it doesn't say, and what it may say at most: a LimitRange."""

    default_request: dict[str, Quantity] = {"cpu": "100m", "memory": "128Mi"}
    """Set aside for a container that asks for nothing."""
    default: dict[str, Quantity] = {}
    """The limit of a container that has none; needed for each of `limits.cpu`, `limits.memory` … that a quota bounds."""
    max: dict[str, Quantity] = {}
    """The most that a container may ask for."""


class Users(Section):
    """People's namespaces, made on first need, and what runs in them."""

    quota: dict[str, Quantity] = {"pods": 50, "persistentvolumeclaims": 20}
    """A person's ResourceQuota: `requests.cpu`, `requests.memory`, `requests.nvidia.com/gpu`, `requests.storage`; `{}` is none."""
    group_quota: dict[str, Quantity] = {}
    """A group's; empty: as a person's."""
    counts: dict[str, Quantity] = {"count/modelservices.llmos.ai": 100, "count/secrets": 500}
    """How many objects a person's or a group's namespace may have, since all of them fill the cluster's one database; added
    to the quota. A model has up to two Secrets, a server and a Credential one."""
    limits: Limits = Limits()
    """What containers get and may ask for."""
    pod_security: Literal["", "privileged", "baseline", "restricted"] = "baseline"
    """The Pod Security Standard that pods there are held to; empty: the cluster's own setting."""
    namespace_labels: dict[str, str] = {}
    """More labels of these namespaces."""
    orphan_grace_hours: Annotated[float, Field(ge=0)] = 72
    """Hours for which everything of a person is kept after the Hub lost them: a weekend, and time to notice a mistake."""
    delete_volumes: bool = False
    """Whether the volumes of a person who was deleted go too; else the namespace stays for as long as there is one."""

    home: Storage = Storage(size="10Gi")
    """One volume per person, the home in each of their servers. Stays until the person is deleted."""
    models: ModelStorage = ModelStorage()
    """Where downloaded models are kept."""
    gpus: Gpus = Gpus()
    """How the cluster offers GPUs."""
    network: UserNetwork = UserNetwork()
    """What their pods may reach."""
    node_selector: dict[str, str] = {}
    """Labels that the nodes of notebook servers and models must have."""
    tolerations: list[Toleration] = []
    """Taints that notebook servers and models tolerate."""
    lost_node_after: Annotated[int, Field(ge=0)] = 30
    """Seconds after which a model on a node that doesn't answer is started on another; Kubernetes' own is 300."""


class Certificate(Section):
    """TLS of an Ingress."""

    enabled: bool = False
    """Whether addresses begin with https."""
    secret_name: Name = ""
    """A Secret with the certificate; empty: the controller's default certificate, or one that its annotations ask for."""


class Ingress(Section):
    """An Ingress to the Hub's proxy, whose `/services/llm/v1` and whose API host name lead straight to the gateway."""

    enabled: bool = False
    """Whether there is one."""
    class_name: Name = ""
    """The IngressClass; empty: the cluster's default."""
    annotations: dict[str, str] = {}
    """Annotations; a body size of 32 MiB or more and timeouts of ten minutes suit models."""
    host: Host = ""
    """The host name of the Hub; empty: any."""
    gateway_host: Host = ""
    """A host name for models alone, such as `models.example.org`; `https://HOST/v1` is then the OpenAI base URL."""
    tls: Certificate = Certificate()
    """TLS."""


class HttpRoute(Section):
    """The same with the Gateway API."""

    enabled: bool = False
    """Whether there is one."""
    parent_refs: list[KubernetesObject] = []
    """The Gateways it hangs on, such as `[{name: main, namespace: gateways}]`."""
    host: Host = ""
    """The host name of the Hub; empty: any."""
    gateway_host: Host = ""
    """A host name for models alone."""
    tls: bool = True
    """Whether the Gateway ends TLS, so that addresses begin with https."""


class NetworkPolicies(Section):
    """Default deny in the release's namespace, and exactly what the parts need of each other."""

    enabled: bool = True
    """Whether there are NetworkPolicies; they hold where the cluster's network enforces them."""
    ingress_from: list[KubernetesObject] = []
    """Who may reach the proxy and the gateway from outside, as peers of a NetworkPolicy; empty: everybody."""
    metrics_from: list[KubernetesObject] = []
    """Who may read `/metrics`, as peers of a NetworkPolicy: the API's at port 9090 of its pods, where nobody else gets, the
    gateway's and the controllers' at port 8080. Without it, an admin's token reads the API's at `/services/llmos/metrics`."""
    api_server_cidrs: list[Cidr] = ["0.0.0.0/0"]
    """Where the cluster's API server is; `kubectl get endpointslices kubernetes` tells it, for a tighter rule."""
    api_server_ports: list[Annotated[int, Field(ge=1, le=65535)]] = [443, 6443]
    """Its ports."""
    dns_namespace: Name = "kube-system"
    """Where the cluster's name service is."""
    dns_labels: dict[str, str] = {"k8s-app": "kube-dns"}
    """The labels of its pods."""
    dns_port: Annotated[int, Field(ge=1, le=65535)] = 53
    """Where its pods listen; OpenShift's do on 5353."""


class Rbac(Section):
    """Rights in the cluster."""

    create: bool = True
    """Make roles and bindings; `false` where an administrator makes them."""
    confine: bool = True
    """
    Refuse, by a ValidatingAdmissionPolicy, whatever LLMOS' own accounts write outside the release's namespace and the namespaces
    that LLMOS has made: roles alone can't say "namespaces with this label".
    """
    aggregate: bool = True
    """Let Kubernetes' own roles `view`, `edit` and `admin` include LLMOS' resources."""


class Crds(Section):
    """Custom resource definitions. Helm installs them and never touches them again; this keeps them up to date."""

    upgrade: bool = True
    """Apply them by a job before each `helm upgrade`."""


class Values(Section):
    """The values of the chart."""

    name_override: Label = ""
    """In place of the chart's name in names and labels."""
    fullname_override: Label = ""
    """In place of RELEASE-llmos at the front of all names."""
    instance: Name = ""
    """
    What marks people's namespaces as this release's, and the front of names that the whole cluster shares; empty: what the
    release has been called so far, else NAMESPACE-RELEASE, or NAMESPACE.RELEASE where either has a dash in it. To be set where a
    tool that doesn't ask the cluster (`helm template`, Argo CD) upgrades a release that was called otherwise.
    """
    public_url: OptionalUrl = ""
    """The Hub's address for people, such as `https://hub.example.org`; empty: from `ingress` or `httpRoute`, else the Service's."""
    gateway_url: OptionalUrl = ""
    """The gateway's address for people, without `/v1`; empty: as above."""
    existing_secret: Name = ""
    """
    A Secret of your own with all passwords and tokens (see the guide for its keys), in place of the one that the chart makes on
    the first install and keeps from then on. Needed where a tool renders the chart without asking the cluster.
    """
    ca_certificates: Certificates = ""
    """
    Certificates (PEM) of the site's own authorities, such as `--set-file caCertificates=company.pem`. The Hub, the API, the
    gateway, the controllers, downloads and notebook servers of LLMOS' image trust them beside the public ones.
    """
    images: Images = Images()
    """The images."""
    scheduling: Scheduling = Scheduling()
    """Where all components run."""
    hub: Hub = Hub()
    """JupyterHub."""
    external_hub: ExternalHub = ExternalHub()
    """A Hub that is there already."""
    culler: Culler = Culler()
    """Stops notebook servers that nobody uses."""
    proxy: Proxy = Proxy()
    """The Hub's proxy."""
    api: Api = Api()
    """The REST API."""
    controllers: Controllers = Controllers()
    """What turns resources into pods."""
    gateway: Gateway = Gateway()
    """The OpenAI-compatible front of all models."""
    valkey: Valkey = Valkey()
    """Settings: what isn't a custom resource or a Secret."""
    mirror: Mirror = Mirror()
    """A mirror of models inside the cluster."""
    users: Users = Users()
    """People's namespaces."""
    ingress: Ingress = Ingress()
    """An Ingress."""
    http_route: HttpRoute = HttpRoute()
    """An HTTPRoute of the Gateway API."""
    network_policy: NetworkPolicies = NetworkPolicies()
    """NetworkPolicies."""
    rbac: Rbac = Rbac()
    """Rights in the cluster."""
    crds: Crds = Crds()
    """Custom resource definitions."""
    backup: Backup = Backup()
    """Backups."""
    global_: dict[str, Any] = Field(default={}, alias="global")
    """Helm's own: values that a chart around this one shares with it. Nothing here is read."""
