"""The values of the parts that run."""

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

__all__ = ["Api", "Backup", "Controllers", "Culler", "ExternalHub", "Gateway", "Hub", "Mirror", "Proxy", "Valkey"]

Replicas = Annotated[int, Field(ge=0, le=100)]
Username = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._@-]{0,62}$")]


class HubDatabase(Section):
    """Where the Hub keeps users, tokens and servers."""

    type: Literal["sqlite", "url"] = "sqlite"
    """`sqlite`: a file on a volume, enough for some hundred people. `url`: a database of your own."""
    url: str = ""
    """With type `url`: an SQLAlchemy address such as `postgresql+psycopg://llmos@db.example.org/llmos`."""
    existing_secret: Name = ""
    """A Secret whose key `url` holds the address with its password, in place of `url` here."""
    storage: Storage = Storage(size="1Gi")
    """The volume of type `sqlite`. It stays when the release is uninstalled."""
    existing_claim: Name = ""
    """A PersistentVolumeClaim that is there already, in place of one of the chart's."""


class Hub(Component):
    """JupyterHub: users, log-in, tokens, the life of notebook servers."""

    enabled: bool = True
    """`false` where a Hub is there already (Zero to JupyterHub): see `externalHub`."""
    admin: Username = "admin"
    """The first admin's name; the first password is in the Secret under `admin-password`. Counts with the built-in log-in only."""
    config: dict[str, dict[str, Any]] = {}
    """
    Any setting of JupyterHub, its authenticator or its spawner, by class: `{JupyterHub: {authenticator_class: google},
    GoogleOAuthenticator: {client_id: ...}}`. Kept in a Secret. Without an authenticator, LLMOS' own log-in by password is used.
    """
    extra_config: dict[str, str] = {}
    """Python that is run after everything else and before LLMOS is merged in, in the order of the names."""
    db: HubDatabase = HubDatabase()
    """Where the Hub keeps users, tokens and servers."""
    named_server_limit: Annotated[int, Field(ge=0)] = 10
    """How many servers a person may have besides the default one; 0 is no limit."""
    concurrent_spawn_limit: Annotated[int, Field(ge=0)] = 64
    """
    How many servers start at once; whoever comes then waits for a turn, and the page says how many are before. Protects the API server
    when a class begins; where nodes are added on demand, no fewer than come at once: who waits has no pod yet. 0 is no limit.
    """
    extra_volumes: list[KubernetesObject] = []
    """More volumes of the pod."""
    extra_volume_mounts: list[KubernetesObject] = []
    """Where they are mounted."""
    egress: list[KubernetesObject] = []
    """More rules of egress for the Hub's NetworkPolicy: an identity provider or a database inside the cluster."""
    resources: ResourceRequirements = requests("100m", "256Mi", limit="1Gi")


class ExternalHub(Section):
    """A Hub that is there already; counts where `hub.enabled` is false. `helm get notes` prints the values for it."""

    api_url: OptionalUrl = "http://hub:8081/hub/api"
    """The Hub's API inside the cluster. A host without a dot is a Service in the Hub's namespace."""
    namespace: Name = ""
    """The Hub's namespace; empty: this release's own. In another one, a Secret with the two services' tokens is put there."""
    service_account: Name = "hub"
    """The Hub's ServiceAccount, which gets the rights that the spawner needs."""
    hub_labels: dict[str, str] = {"component": "hub", "app": "jupyterhub"}
    """Labels of the Hub's pod, for NetworkPolicies."""
    proxy_labels: dict[str, str] = {"component": "proxy", "app": "jupyterhub"}
    """Labels of the proxy's pod, for NetworkPolicies."""
    keep_spawner: bool = False
    """
    `true`: the Hub goes on to start servers as it does, in its own namespace with the homes that are there; LLMOS only
    adds its addresses and tokens. The Hub gets no rights in the cluster then. `false`: LLMOS' spawner, which gives each
    person a namespace.
    """
    server_labels: dict[str, str] = {"component": "singleuser-server", "app": "jupyterhub"}
    """Labels of notebook servers' pods in the Hub's namespace, for NetworkPolicies; counts with `keepSpawner`."""


class Culler(Section):
    """Stops notebook servers that nobody uses. Models are not concerned."""

    enabled: bool = True
    """Whether it is done."""
    timeout: Annotated[int, Field(ge=60)] = 7200
    """Seconds without activity after which a server is stopped. Two hours: a lunch break is survived."""
    every: Annotated[int, Field(ge=10)] = 600
    """Seconds between two looks."""
    max_age: Annotated[int, Field(ge=0)] = 0
    """Seconds after which a server is stopped even if it is used; 0: never."""


class Proxy(Component):
    """The Hub's proxy (configurable-http-proxy): notebooks, and the API for what is outside the cluster."""

    service: Service = Service()
    """How people reach it where no Ingress or HTTPRoute leads to it."""
    resources: ResourceRequirements = requests("50m", "128Mi", limit="512Mi")


class Api(Component):
    """The REST API."""

    replicas: Replicas = 1
    """How many. A second one halves what is lost when a node dies; one answers thousands of people."""
    resources: ResourceRequirements = requests("50m", "128Mi", limit="512Mi")


class Controllers(Component):
    """What turns resources into pods."""

    replicas: Replicas = 2
    """How many. One works, the others take over within seconds when it dies (a Lease says whose turn it is)."""
    lease_seconds: Annotated[int, Field(ge=5, le=300)] = 15
    """For how long nobody works when the one that does is killed, in seconds; 15, as Kubernetes' own controllers have it."""
    resources: ResourceRequirements = requests("50m", "128Mi", limit="1Gi")


class Autoscaling(Section):
    """A HorizontalPodAutoscaler; needs metrics-server."""

    enabled: bool = False
    """Whether replicas follow the load; `replicas` is ignored then."""
    min_replicas: Annotated[int, Field(ge=1, le=1000)] = 2
    """The fewest."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 10
    """The most."""
    target_cpu: Annotated[int, Field(ge=1, le=1000)] = 70
    """The processor's use in percent of what was requested, that is aimed at."""
    scale_down_after: Annotated[int, Field(ge=0, le=3600)] = 300
    """Seconds of less load before a replica goes."""


class Gateway(Component):
    """The OpenAI-compatible front of all models."""

    replicas: Replicas = 2
    """How many. Two, so that one can be replaced without a client noticing."""
    autoscaling: Autoscaling = Autoscaling()
    """A HorizontalPodAutoscaler."""
    service: Service = Service()
    """How clients reach it where no Ingress or HTTPRoute leads to it."""
    drain_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """How long requests under way may go on when a replica is told to stop."""
    shutdown_delay_seconds: Annotated[int, Field(ge=0, le=300)] = 5
    """How long a replica that is to stop still takes requests, until every node and load balancer has heard that it goes."""
    resources: ResourceRequirements = requests("100m", "128Mi", limit="1Gi")


class ExternalValkey(Section):
    """A Valkey or Redis of your own."""

    url: Annotated[str, Field(pattern=r"^(rediss?://\S+)?$")] = ""
    """Its address: `redis://:PASSWORD@host:6379/0`, `rediss://` with TLS. Must write to disk before it answers (`appendfsync always`)."""
    existing_secret: Name = ""
    """A Secret whose key `redis-url` holds the address, in place of `url` here."""
    egress: list[KubernetesObject] = []
    """Rules of egress that let API, controllers and gateway reach it; empty: its port on every address."""
    port: Annotated[int, Field(ge=1, le=65535)] = 6379
    """Its port, for NetworkPolicies."""


class Valkey(Component):
    """Settings: what isn't a custom resource or a Secret."""

    enabled: bool = True
    """`false` for one of your own: see `external`."""
    external: ExternalValkey = ExternalValkey()
    """A Valkey or Redis of your own."""
    storage: Storage = Storage(size="2Gi")
    """Its volume. Stays when the release is uninstalled."""
    resources: ResourceRequirements = requests("50m", "64Mi", limit="512Mi")


class Mirror(Component):
    """Serves models to people's pods from a volume, in a cluster without internet; what `llmos bundle` writes fills it."""

    enabled: bool = False
    """Whether there is one; `users.models.mirror` leads to it then, unless that names another."""
    storage: Storage = Storage(size="50Gi")
    """Its volume: as much as all bundled models have. Stays when the release is uninstalled."""
    existing_claim: Name = ""
    """A PersistentVolumeClaim that is there already, in place of one of the chart's."""
    resources: ResourceRequirements = requests("50m", "64Mi", limit="512Mi")


class Backup(Section):
    """Copies of the Hub's database (type `sqlite`) and of Valkey's files, made by a CronJob."""

    enabled: bool = False
    """Whether they are made."""
    schedule: Annotated[str, Field(pattern=r"^(@\w+|\S+ \S+ \S+ \S+ \S+)$")] = "17 3 * * *"
    """When, in cron's words (UTC)."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 7
    """How many are kept."""
    storage: Storage = Storage(size="5Gi")
    """The volume they go to. Stays when the release is uninstalled."""
    existing_claim: Name = ""
    """A PersistentVolumeClaim that is there already, in place of one of the chart's."""
    before_upgrade: bool = False
    """Make one before every `helm upgrade` as well; the upgrade doesn't begin when it fails."""
    resources: ResourceRequirements = requests("50m", "64Mi", limit="512Mi")
    """What the job's container gets."""
