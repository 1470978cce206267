"""Settings of the platform's processes, which are read from the environment at their start.

The supervisor sets these for its children; in a cluster the chart does. Secrets are never in argv.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from llmos.errors import UsageError
from llmos_hub.names import (
    ENV_BACKEND,
    ENV_DATA_DIR,
    ENV_ENGINE_SECRET,
    ENV_POD_NAMESPACE,
    ENV_REDIS_URL,
    ENV_RELEASE,
    ENV_STORE,
    DataDir,
    default_data_dir,
)

__all__ = ["BackendName", "ProcessSettings", "StoreName", "seconds"]

StoreName = Literal["redis", "kubernetes"]
BackendName = Literal["local", "kubernetes"]

_STORES: Final[tuple[StoreName, ...]] = ("redis", "kubernetes")
_BACKENDS: Final[tuple[BackendName, ...]] = ("local", "kubernetes")
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
"""A DNS label, as Kubernetes wants it (RFC 1123)."""


@dataclass(frozen=True)
class ProcessSettings:
    """The settings that API, gateway and controllers share.

    Attributes
    ----------
    data_dir
        ``LLMOS_DATA_DIR``.
    redis_url
        ``LLMOS_REDIS_URL``: ``unix://:PASSWORD@/path`` or ``redis://…``. May be empty only with the store
        ``kubernetes``, in a process that neither reads nor writes Settings.
    hub_api_url
        ``JUPYTERHUB_API_URL``, such as ``http://127.0.0.1:8081/hub/api``.
    hub_token
        ``JUPYTERHUB_API_TOKEN``: the service's own token.
    encryption_key
        ``LLMOS_ENCRYPTION_KEY``: the Fernet key with which Credentials are encrypted in the store; empty in processes
        that must not read them (the gateway).
    engine_secret
        ``LLMOS_ENGINE_SECRET``: the secret from which the keys of engines that listen on a port are derived; empty in a
        cluster, where NetworkPolicies keep others away.
    host, port
        ``LLMOS_HOST``, ``LLMOS_PORT``: the address on which an HTTP server listens.
    metrics_port
        ``LLMOS_METRICS_PORT``: the port on which the API serves its metrics without a token; 0: none. The chart's
        NetworkPolicy restricts access to it.
    public_url
        ``LLMOS_PUBLIC_URL``: the Hub's address for people, for messages.
    gateway_url
        ``LLMOS_GATEWAY_URL``: the gateway's address for people, without ``/v1``.
    store
        ``LLMOS_STORE``: the store of the resources. ``redis``, or ``kubernetes``: custom resources and Secrets, while
        Settings stay in Valkey.
    backend
        ``LLMOS_BACKEND``: the backend that runs workloads. ``local``: processes on this machine; ``kubernetes``: pods.
        The default depends on the store.
    namespace
        ``LLMOS_POD_NAMESPACE``: the release's own namespace, in a cluster.
    release
        ``LLMOS_RELEASE``: the release's name, unique in its cluster; it is a label of the release's namespaces.
    """

    data_dir: DataDir
    redis_url: str
    hub_api_url: str = ""
    hub_token: str = ""
    encryption_key: str = ""
    engine_secret: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    metrics_port: int = 0
    public_url: str = ""
    gateway_url: str = ""
    store: StoreName = "redis"
    backend: BackendName = "local"
    namespace: str = ""
    release: str = "llmos"

    @property
    def in_cluster(self) -> bool:
        """True if workloads are pods."""
        return self.backend == "kubernetes"

    @classmethod
    def from_environment(cls) -> ProcessSettings:
        """Read the settings from the environment.

        Raises
        ------
        UsageError
            A variable is missing or invalid; the message names it.
        """
        environ = os.environ
        store, backend, namespace = _places(environ)
        redis_url = environ.get(ENV_REDIS_URL, "")
        if not redis_url and store == "redis":
            raise UsageError(f"{ENV_REDIS_URL} is not set. This process is started by `llmos up`, which sets it.")
        configured = environ.get(ENV_DATA_DIR)
        return cls(
            data_dir=DataDir(Path(configured) if configured else default_data_dir()),
            redis_url=redis_url,
            hub_api_url=environ.get("JUPYTERHUB_API_URL", "").rstrip("/"),
            hub_token=environ.get("JUPYTERHUB_API_TOKEN", ""),
            encryption_key=environ.get("LLMOS_ENCRYPTION_KEY", ""),
            engine_secret=environ.get(ENV_ENGINE_SECRET, ""),
            host=environ.get("LLMOS_HOST", "127.0.0.1"),
            port=_port(environ, "LLMOS_PORT"),
            metrics_port=_port(environ, "LLMOS_METRICS_PORT"),
            public_url=environ.get("LLMOS_PUBLIC_URL", ""),
            gateway_url=environ.get("LLMOS_GATEWAY_URL", ""),
            store=store,
            backend=backend,
            namespace=namespace,
            release=environ.get(ENV_RELEASE) or "llmos",
        )


def seconds(environ: Mapping[str, str], name: str, default: float, least: float, most: float) -> float:
    """Return a variable's number of seconds; `default` if it is not set.

    Raises
    ------
    UsageError
        The value is not such a number.
    """
    text = environ.get(name)
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not least <= found <= most:
        raise UsageError(f'{name}: "{text[:20]}" is not a number of seconds from {least:.0f} to {most:.0f}.')
    return found


def _port(environ: Mapping[str, str], name: str) -> int:
    """Return a port; 0 if none is set.

    Raises
    ------
    UsageError
        The value is not a port.
    """
    text = environ.get(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < 65536):
        raise UsageError(f'{name}: "{text[:20]}" is not a port.')
    return int(text)


def _places(environ: Mapping[str, str]) -> tuple[StoreName, BackendName, str]:
    """Return the store, the backend, and the release's own namespace.

    Raises
    ------
    UsageError
        A value is unknown, or they can't be combined.
    """
    store = environ.get(ENV_STORE) or "redis"
    if store not in _STORES:
        raise UsageError(f'{ENV_STORE}: "{store[:40]}" is unknown. Use one of: {", ".join(_STORES)}.')
    backend = environ.get(ENV_BACKEND) or ("kubernetes" if store == "kubernetes" else "local")
    if backend not in _BACKENDS:
        raise UsageError(f'{ENV_BACKEND}: "{backend[:40]}" is unknown. Use one of: {", ".join(_BACKENDS)}.')
    if backend == "kubernetes" and store != "kubernetes":
        raise UsageError(
            f"{ENV_BACKEND}=kubernetes needs {ENV_STORE}=kubernetes as well: pods are owned by custom resources, and "
            "go with them."
        )
    namespace = environ.get(ENV_POD_NAMESPACE, "")
    if not namespace and store == "kubernetes":
        raise UsageError(
            f"{ENV_POD_NAMESPACE} is not set. In a cluster it is the namespace of the release itself; the chart sets it."
        )
    if namespace and not _NAMESPACE.fullmatch(namespace):
        raise UsageError(f'{ENV_POD_NAMESPACE}: "{namespace[:80]}" is not the name of a namespace.')
    return store, backend, namespace
