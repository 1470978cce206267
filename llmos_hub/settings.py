"""What a process of the platform is told at its start, all of it through the environment.

The supervisor sets these for its children; in a cluster the chart does. Secrets are never in argv.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from llmos.errors import UsageError
from llmos_hub.names import ENV_DATA_DIR, ENV_REDIS_URL, DataDir, default_data_dir

__all__ = ["ProcessSettings"]


@dataclass(frozen=True)
class ProcessSettings:
    """The settings that API, gateway and controllers share.

    Attributes
    ----------
    data_dir
        ``LLMOS_DATA_DIR``.
    redis_url
        ``LLMOS_REDIS_URL``: ``unix://:PASSWORD@/path`` or ``redis://…``.
    hub_api_url
        ``JUPYTERHUB_API_URL``, such as ``http://127.0.0.1:8081/hub/api``.
    hub_token
        ``JUPYTERHUB_API_TOKEN``: the service's own token.
    encryption_key
        ``LLMOS_ENCRYPTION_KEY``: the Fernet key under which Credentials lie in the store; empty in processes
        that must not read them (the gateway).
    host, port
        ``LLMOS_HOST``, ``LLMOS_PORT``: where an HTTP server listens.
    public_url
        ``LLMOS_PUBLIC_URL``: the Hub's address for people, for messages.
    gateway_url
        ``LLMOS_GATEWAY_URL``: the gateway's address for people, without ``/v1``.
    """

    data_dir: DataDir
    redis_url: str
    hub_api_url: str = ""
    hub_token: str = ""
    encryption_key: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    public_url: str = ""
    gateway_url: str = ""

    @classmethod
    def from_environment(cls) -> ProcessSettings:
        """Read them.

        Raises
        ------
        UsageError
            A variable is missing or can't be read; the message names it.
        """
        environ = os.environ
        redis_url = environ.get(ENV_REDIS_URL, "")
        if not redis_url:
            message = f"{ENV_REDIS_URL} is not set. This process is started by `llmos up`, which sets it."
            raise UsageError(message)
        try:
            port = int(environ.get("LLMOS_PORT", "0"))
        except ValueError:
            message = f'LLMOS_PORT: "{environ["LLMOS_PORT"][:20]}" is not a port.'
            raise UsageError(message) from None
        configured = environ.get(ENV_DATA_DIR)
        return cls(
            data_dir=DataDir(Path(configured) if configured else default_data_dir()),
            redis_url=redis_url,
            hub_api_url=environ.get("JUPYTERHUB_API_URL", "").rstrip("/"),
            hub_token=environ.get("JUPYTERHUB_API_TOKEN", ""),
            encryption_key=environ.get("LLMOS_ENCRYPTION_KEY", ""),
            host=environ.get("LLMOS_HOST", "127.0.0.1"),
            port=port,
            public_url=environ.get("LLMOS_PUBLIC_URL", ""),
            gateway_url=environ.get("LLMOS_GATEWAY_URL", ""),
        )
