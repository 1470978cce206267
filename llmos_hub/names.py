"""Names that several parts of the platform's processes must agree on: scopes, labels, variables, paths.

Those that clients and notebooks' images need as well are in `llmos.names`.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from llmos.configuration import data_dir

__all__ = [
    "API_PREFIX",
    "DEFAULT_GATEWAY_PORT",
    "DEFAULT_PORT",
    "ENV_BACKEND",
    "ENV_DATA_DIR",
    "ENV_ENGINE_KEY",
    "ENV_ENGINE_SECRET",
    "ENV_INSTANCE",
    "ENV_POD_NAMESPACE",
    "ENV_REDIS_URL",
    "ENV_RELEASE",
    "ENV_STORE",
    "GATEWAY_PREFIX",
    "HEADER_REQUEST_ID",
    "KEY_AFTER",
    "KEY_ANNOTATIONS",
    "KEY_APP",
    "KEY_APPLIED",
    "KEY_ATTEMPT",
    "KEY_COMPONENT",
    "KEY_GENERATION",
    "KEY_GPU_TYPE",
    "KEY_LABELS",
    "KEY_MISSING_FOR",
    "KEY_MODELS",
    "KEY_PART_OF",
    "KEY_REPLICAS",
    "KEY_RESTORED",
    "KEY_ROLE",
    "KEY_SECRETS",
    "KEY_SOURCE",
    "KEY_STATUS",
    "KEY_TEMPLATE",
    "KEY_UID",
    "KEY_WORKLOAD",
    "METADATA_SERVICES",
    "PRIVATE_NETWORKS",
    "PUBLIC_NAMESPACE",
    "RECOVERABLE",
    "SCOPE_ACCOUNTS",
    "SCOPE_INVOKE",
    "SCOPE_MANAGE",
    "DataDir",
    "default_data_dir",
]

PRIVATE_NETWORKS: Final = (
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "fc00::/7",
    "fe80::/10",
)
"""Addresses that are not the internet: pods, Services, nodes, the site's own network."""
METADATA_SERVICES: Final = (
    "169.254.0.0/16",  # link-local: that of most clouds, and the credentials of a container on ECS
    "168.63.129.16/32",  # Azure's, beside the one above
    "100.100.100.200/32",  # Alibaba's
    "192.0.0.192/32",  # Oracle's first
    "fd00:ec2::/32",  # Amazon's
    "fd20:ce::254/128",  # Google's
)
"""Addresses where clouds provide a machine's credentials to its processes. People's pods can never reach them.

The chart has the same list (`llmos.metadataServices`)."""
SCOPE_MANAGE: Final = "custom:llmos:manage"
"""Hub scope: the token may use the API as its owner."""
SCOPE_INVOKE: Final = "custom:llmos:invoke"
"""Hub scope: the token may call models as its owner."""
SCOPE_ACCOUNTS: Final = "custom:llmos:accounts"
"""Hub scope of the platform's own service: create admins and set their passwords, for the platform's operator."""

KEY_APP: Final = "app.kubernetes.io/name"
KEY_COMPONENT: Final = "app.kubernetes.io/component"
KEY_PART_OF: Final = "app.kubernetes.io/part-of"
KEY_MISSING_FOR: Final = "llmos.ai/owner-missing-seconds"
"""Annotation with the time for which a namespace's owner has been missing in the Hub, as counted by the controllers."""
KEY_RESTORED: Final = "llmos.ai/restored"
"""Annotation of a volume's claim with the request by which it was made from a snapshot."""
KEY_WORKLOAD: Final = "llmos.ai/workload"
"""Label with the workload's id, which selects its pods."""
KEY_ROLE: Final = "llmos.ai/role"
KEY_TEMPLATE: Final = "llmos.ai/template"
"""Label with the hash of the template that a pod was created from."""
KEY_UID: Final = "llmos.ai/uid"
KEY_APPLIED: Final = "llmos.ai/applied"
"""Annotation with a hash of the object as it was applied."""
KEY_AFTER: Final = "llmos.ai/after"
"""Annotation with the roles that a role is started after, which are stopped after it."""
KEY_LABELS: Final = "llmos.ai/labels"
"""Annotation with the labels of a workload or resource, as JSON."""
KEY_ANNOTATIONS: Final = "llmos.ai/annotations"
"""Annotation with the annotations of a resource that is stored as a Secret, as JSON."""
KEY_STATUS: Final = "llmos.ai/status"
"""Annotation with the status of a resource that is stored as a Secret, as JSON."""
KEY_GENERATION: Final = "llmos.ai/generation"
"""Annotation with the generation of a resource that is stored as a Secret; label with that of a download's resource."""
KEY_SOURCE: Final = "llmos.ai/source"
"""Label with a hash of what a download fetches, and to where."""
KEY_SECRETS: Final = "llmos.ai/secrets"
"""Label with a hash of the secrets that a download uses."""
KEY_ATTEMPT: Final = "llmos.ai/attempt"
"""Label with the number of a download's attempt."""
KEY_REPLICAS: Final = "llmos.ai/replicas"
"""Label with the number of replicas that a workload was applied with."""
KEY_MODELS: Final = "llmos.ai/models"
"""Label of pods that share a volume which only one node can mount."""
KEY_GPU_TYPE: Final = "llmos.ai/gpu-type"
"""Label of nodes with the type of their GPUs, set by the cluster's administrators."""

PUBLIC_NAMESPACE: Final = "public"
API_PREFIX: Final = "/services/llmos"
"""The API under the Hub. The API answers with and without the prefix."""
GATEWAY_PREFIX: Final = "/services/llm"
"""The gateway under the Hub; ``/v1`` follows. The gateway answers with and without the prefix."""
HEADER_REQUEST_ID: Final = "x-request-id"

DEFAULT_PORT: Final = 8000
DEFAULT_GATEWAY_PORT: Final = 8010

ENV_ENGINE_KEY: Final = "LLMOS_ENGINE_KEY"
"""Variable with the key of a custom engine: the gateway sends the key as a bearer token."""
ENV_ENGINE_SECRET: Final = "LLMOS_ENGINE_SECRET"  # noqa: S105 - the name of a variable
"""Variable with the secret from which controllers and gateway derive the engines' keys."""
ENV_DATA_DIR: Final = "LLMOS_DATA_DIR"
ENV_REDIS_URL: Final = "LLMOS_REDIS_URL"
"""Variable with Valkey's URL: ``unix://:PASSWORD@/path/valkey.sock`` or ``redis://:PASSWORD@host:6379/0``."""
ENV_STORE: Final = "LLMOS_STORE"
"""Variable with the store of the resources: ``redis`` or ``kubernetes``."""
ENV_BACKEND: Final = "LLMOS_BACKEND"
"""Variable with the backend that runs workloads: ``local`` or ``kubernetes``."""
ENV_POD_NAMESPACE: Final = "LLMOS_POD_NAMESPACE"
"""Variable with the release's own namespace, in a cluster."""
ENV_RELEASE: Final = "LLMOS_RELEASE"
"""Variable with the release's name, which is a label of its namespaces: a cluster may have several releases."""
ENV_INSTANCE: Final = "LLMOS_INSTANCE"
"""Variable that marks every process that a platform started, directly or indirectly, with the platform's id."""

RECOVERABLE: Final = ("secrets", "database", "empty-database", "people")
"""Parts of a data directory that ``llmos up --recover PART`` can do without."""

_SOCKET_PATH_MAX = 107  # sun_path less its terminating zero byte (unix(7))


def default_data_dir() -> Path:
    """Return `llmos.configuration.data_dir`, with symbolic links resolved, so that it always has the same path."""
    return data_dir().resolve()


class DataDir:
    """The data directory of a workstation, with the paths in it.

    Parameters
    ----------
    root
        The directory itself; its mode is 0700.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run = _run_directory(root)
        """Sockets and process records."""
        self.logs = root / "logs"
        """One log per process of the platform."""
        self.valkey = root / "valkey"
        """Valkey's append-only files."""
        self.hub = root / "hub"
        """JupyterHub's database and cookie secret."""
        self.hub_database = self.hub / "jupyterhub.sqlite"
        """Users, groups, tokens and passwords; the name is the Hub's default."""
        self.models = root / "models"
        """The model cache."""
        self.workloads = root / "workloads"
        """Records and logs of running workloads; their sockets are in `run`."""
        self.volumes = root / "volumes"
        """The files of volumes, by namespace."""
        self.volume_links = self.volumes / ".links"
        """A link to each volume by namespace and name, which servers are given."""
        self.homes = root / "homes"
        """One home per person."""
        self.secrets = root / "secrets.json"
        """Passwords and tokens of the platform's parts, mode 0600."""
        self.client = root / "client.json"
        """Addresses and a token for the operator's CLI, mode 0600."""
        self.admin_password = root / "admin-password"
        """The first admin's one-time password, mode 0600."""


def _run_directory(root: Path) -> Path:
    """Return the directory of sockets: below the data directory, unless a socket's path would not fit there.

    With a path that is too long for ``sun_path`` it is a directory of the same owner in ``/tmp``, named by a hash of the
    path.
    """
    plain = root / "run"
    if len(str(plain)) <= _SOCKET_PATH_MAX - 60:
        return plain
    digest = hashlib.sha256(str(root).encode()).hexdigest()[:16]
    return Path("/tmp") / f"llmos-{os.geteuid()}-{digest}"  # noqa: S108 - made 0700 and its owner checked
