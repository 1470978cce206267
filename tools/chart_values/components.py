"""The values of the components."""

# ruff: noqa: RUF012 - pydantic copies a default for each object

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from tools.chart_values.types import (
    Component,
    KubernetesObject,
    Name,
    OptionalUrl,
    ResourceRequirements,
    Section,
    Service,
    Storage,
    requests,
)

Replicas = Annotated[int, Field(ge=0, le=100)]
Username = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._@-]{0,62}$")]


class HubDatabase(Section):
    """The database for the Hub's users, tokens and servers."""

    type: Literal["sqlite", "url"] = "sqlite"
    """`sqlite`: a file on a volume, enough for some hundred people. `url`: a database of your own."""
    url: str = ""
    """For type `url`: an SQLAlchemy URL such as `postgresql+psycopg://llmos@db.example.org/llmos`."""
    existing_secret: Name = ""
    """A Secret whose key `url` has the URL with its password, in place of `url` here."""
    storage: Storage = Storage(size="1Gi")
    """The volume for type `sqlite`. It is kept when the release is uninstalled."""
    existing_claim: Name = ""
    """An existing PersistentVolumeClaim, in place of the chart's."""


class Hub(Component):
    """JupyterHub: users, log-in, tokens, and the start and end of notebook servers."""

    enabled: bool = True
    """`false` to use an existing Hub (Zero to JupyterHub): see `externalHub`."""
    admin: Username = "admin"
    """The first admin's name; the first password is in the Secret under `admin-password`. Only for the built-in
    log-in."""
    config: dict[str, dict[str, Any]] = {}
    """
    Any setting of JupyterHub, its authenticator or its spawner, by class: `{JupyterHub: {authenticator_class: google},
    GoogleOAuthenticator: {client_id: ...}}`. Stored in a Secret. Without an authenticator, LLMOS' own log-in by
    password is used.
    """
    extra_config: dict[str, str] = {}
    """Python code that runs after everything else and before LLMOS is merged in, in the order of the names."""
    db: HubDatabase = HubDatabase()
    """The database for the Hub's users, tokens and servers."""
    named_server_limit: Annotated[int, Field(ge=0)] = 10
    """Maximum number of servers per user besides the default one; 0 is no limit."""
    concurrent_spawn_limit: Annotated[int, Field(ge=0)] = 64
    """
    Maximum number of servers that start at once; further users wait for their turn, and the page shows how many are
    before them. It protects the API server when a class begins. If nodes are added on demand, allow as many as come at
    once, because waiting users have no pod yet. 0 is no limit.
    """
    extra_volumes: list[KubernetesObject] = []
    """Additional volumes of the pod."""
    extra_volume_mounts: list[KubernetesObject] = []
    """Mounts of the additional volumes."""
    egress: list[KubernetesObject] = []
    """Additional egress rules of the Hub's NetworkPolicy, such as for an identity provider or a database inside the
    cluster."""
    resources: ResourceRequirements = requests("100m", "256Mi", limit="1Gi")


class ExternalHub(Section):
    """An existing Hub, if `hub.enabled` is false. `helm get notes` prints the values for it."""

    api_url: OptionalUrl = "http://hub:8081/hub/api"
    """URL of the Hub's API inside the cluster. A host without a dot is a Service in the Hub's namespace."""
    namespace: Name = ""
    """The Hub's namespace; empty: this release's own. In another one the chart puts a Secret with the two services'
    tokens."""
    service_account: Name = "hub"
    """The Hub's ServiceAccount, which gets the permissions that the spawner needs."""
    hub_labels: dict[str, str] = {"component": "hub", "app": "jupyterhub"}
    """Labels of the Hub's pod, for NetworkPolicies."""
    proxy_labels: dict[str, str] = {"component": "proxy", "app": "jupyterhub"}
    """Labels of the proxy's pod, for NetworkPolicies."""
    keep_spawner: bool = False
    """
    `true`: the Hub starts servers as before, in its own namespace with the existing homes; LLMOS only adds its
    addresses and tokens, and the Hub gets no permissions in the cluster. `false`: LLMOS' spawner, which gives each user
    a namespace.
    """
    server_labels: dict[str, str] = {"component": "singleuser-server", "app": "jupyterhub"}
    """Labels of notebook servers' pods in the Hub's namespace, for NetworkPolicies; only with `keepSpawner`."""


class Culler(Section):
    """Stops idle notebook servers. Models are not affected."""

    enabled: bool = True
    """`true` to stop idle servers."""
    timeout: Annotated[int, Field(ge=60)] = 7200
    """Seconds without activity after which a server is stopped; two hours, longer than a lunch break."""
    every: Annotated[int, Field(ge=10)] = 600
    """Seconds between two checks."""
    max_age: Annotated[int, Field(ge=0)] = 0
    """Seconds after which a server is stopped even if it is in use; 0: never."""


class Proxy(Component):
    """The Hub's proxy (configurable-http-proxy): notebooks, and the API for clients outside the cluster."""

    service: Service = Service()
    """The Service, for access without an Ingress or HTTPRoute."""
    resources: ResourceRequirements = requests("50m", "128Mi", limit="512Mi")


class Api(Component):
    """The REST API."""

    replicas: Replicas = 1
    """Number of replicas. A second one halves the loss when a node fails; one is enough for thousands of users."""
    resources: ResourceRequirements = requests("50m", "128Mi", limit="512Mi")


class Controllers(Component):
    """The controllers, which turn resources into pods."""

    replicas: Replicas = 2
    """Number of replicas. One is active; when it fails, another takes over within seconds, by a Lease."""
    lease_seconds: Annotated[int, Field(ge=5, le=300)] = 15
    """Maximum time in seconds without an active controller after the active one is killed; 15, as in Kubernetes
    itself."""
    resources: ResourceRequirements = requests("50m", "128Mi", limit="1Gi")


class Autoscaling(Section):
    """A HorizontalPodAutoscaler; needs metrics-server."""

    enabled: bool = False
    """`true` to adapt the number of replicas to the load; `replicas` is then ignored."""
    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 2
    """Minimum number of replicas."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 10
    """Maximum number of replicas."""
    target_cpu: Annotated[int, Field(ge=1, le=1000)] = 70
    """Target CPU utilization in percent of the request."""
    scale_down_after: Annotated[int, Field(ge=0, le=3600)] = 300
    """Seconds of lower load before a replica is removed."""


class Gateway(Component):
    """The OpenAI-compatible gateway to all models."""

    replicas: Replicas = 2
    """Number of replicas. Two, so that one can be replaced unnoticed by clients."""
    autoscaling: Autoscaling = Autoscaling()
    """A HorizontalPodAutoscaler."""
    service: Service = Service()
    """The Service, for access without an Ingress or HTTPRoute."""
    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Maximum time in seconds for running requests when a replica is stopped."""
    shutdown_delay_seconds: Annotated[int, Field(ge=0, le=300)] = 10
    """Seconds for which a stopping replica still accepts requests, until all nodes and load balancers know that it
    stops."""
    resources: ResourceRequirements = requests("100m", "128Mi", limit="1Gi")


class ExternalValkey(Section):
    """A Valkey or Redis of your own."""

    url: Annotated[str, Field(pattern=r"^(rediss?://\S+)?$")] = ""
    """Its URL: `redis://:PASSWORD@host:6379/0`, `rediss://` for TLS. It must write to disk before it responds
    (`appendfsync always`)."""
    existing_secret: Name = ""
    """A Secret whose key `redis-url` has the URL, in place of `url` here."""
    egress: list[KubernetesObject] = []
    """Egress rules by which API, controllers and gateway reach it; empty: its port on every address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 6379
    """Its port, for NetworkPolicies."""


class Valkey(Component):
    """The database for settings, which are neither custom resources nor Secrets."""

    enabled: bool = True
    """`false` to use your own: see `external`."""
    external: ExternalValkey = ExternalValkey()
    """A Valkey or Redis of your own."""
    storage: Storage = Storage(size="2Gi")
    """Its volume. It is kept when the release is uninstalled."""
    resources: ResourceRequirements = requests("50m", "64Mi", limit="512Mi")


class Mirror(Component):
    """A web server with models from a volume, for a cluster without internet; `llmos bundle` writes its content."""

    enabled: bool = False
    """`true` to run it; `users.models.mirror` then is its address, unless set otherwise."""
    storage: Storage = Storage(size="50Gi")
    """Its volume, with the size of all bundled models. It is kept when the release is uninstalled."""
    existing_claim: Name = ""
    """An existing PersistentVolumeClaim, in place of the chart's."""
    resources: ResourceRequirements = requests("50m", "64Mi", limit="512Mi")


class Backup(Section):
    """Backups of the Hub's database (type `sqlite`) and of Valkey's files, made by a CronJob."""

    enabled: bool = False
    """`true` to make backups."""
    schedule: Annotated[str, Field(pattern=r"^(@\w+|\S+ \S+ \S+ \S+ \S+)$")] = "17 3 * * *"
    """Schedule in cron's format (UTC)."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 7
    """Number of backups to keep."""
    storage: Storage = Storage(size="5Gi")
    """The volume for backups. It is kept when the release is uninstalled."""
    existing_claim: Name = ""
    """An existing PersistentVolumeClaim, in place of the chart's."""
    before_upgrade: bool = False
    """Also make a backup before every `helm upgrade`; the upgrade doesn't begin if it fails."""
    resources: ResourceRequirements = requests("50m", "64Mi", limit="512Mi")
    """Resources of the job's container."""
