"""The configuration of a workstation's JupyterHub, read by ``jupyterhub -f``.

Its settings come from the supervisor in the environment (`llmos_hub.supervisor.plan`). A site's own configuration is
``DATA_DIR/jupyterhub_config.py``, which is read before LLMOS is merged in.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from llmos_spawners.local import LLMOSLocalSpawner

from llmos_hub.accounts.authenticator import LLMOSAuthenticator
from llmos_hub.accounts.former_groups import keep_names_of_groups
from llmos_hub.accounts.hub_handlers import api_handlers, error_handlers
from llmos_hub.accounts.secure_cookies import SecureCookies
from llmos_hub.jupyterhub_config import Tokens, configure
from llmos_hub.names import ENV_INSTANCE, SCOPE_ACCOUNTS, DataDir


def workstation(c: Any, environ: dict[str, str]) -> None:
    """Set the defaults of a Hub on one machine, before a site's own settings."""
    data_dir = DataDir(Path(environ["LLMOS_DATA_DIR"]))
    hub = c.JupyterHub
    hub.bind_url = environ["LLMOS_HUB_URL"]
    hub.hub_bind_url = f"http://127.0.0.1:{environ['LLMOS_HUB_PORT']}"
    # relative to this process's working directory, data_dir.hub: that path may contain characters special in a URL
    hub.db_url = "sqlite:///jupyterhub.sqlite"
    hub.cookie_secret_file = str(data_dir.hub / "cookie_secret")
    hub.upgrade_db = True
    # the Hub stops the servers when it is told to stop; when it is killed they continue, and the next one adopts them
    hub.cleanup_servers = True
    hub.cleanup_proxy = False
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = environ["LLMOS_PROXY_API_URL"]
    hub.template_paths = [str(Path(__file__).parents[1] / "templates")]
    hub.extra_handlers = []  # a list, so that a site's settings can append to it
    keep_names_of_groups()
    hub.log_level = "INFO"
    # 0: show the progress page at once, which has the place in the queue and the reason if a server doesn't start
    hub.tornado_settings = {"slow_spawn_timeout": 0, "transforms": [SecureCookies]}

    hub.authenticator_class = LLMOSAuthenticator
    c.Authenticator.admin_users = {environ["LLMOS_ADMIN_USER"]}
    c.LLMOSAuthenticator.first_password_file = str(data_dir.hub / "first-password")
    c.LLMOSAuthenticator.admin_password_file = str(data_dir.admin_password)
    c.LLMOSAuthenticator.homes = str(data_dir.homes)
    hub.template_vars = {"llmos_passwords": True, "llmos_gateway": environ["LLMOS_GATEWAY_URL"] + "/v1"}

    hub.spawner_class = LLMOSLocalSpawner
    hub.allow_named_servers = True
    hub.named_server_limit_per_user = 10  # a user who needs more has probably forgotten some
    hub.concurrent_spawn_limit = 0  # LLMOSLocalSpawner queues concurrent starts; the Hub would refuse them
    hub.active_server_limit = 0
    c.LLMOSLocalSpawner.homes = str(data_dir.homes)
    c.LLMOSLocalSpawner.volumes = str(data_dir.volume_links)
    c.LLMOSLocalSpawner.logs = str(data_dir.logs / "servers")
    c.LLMOSLocalSpawner.openai_base_url = environ["LLMOS_GATEWAY_URL"] + "/v1"
    c.LLMOSLocalSpawner.llmos_url = environ["LLMOS_API_URL"]
    c.Spawner.environment = {ENV_INSTANCE: environ[ENV_INSTANCE]}


def add_supervisor(c: Any, token: str) -> None:
    """Add the supervisor's own service, role and scope, after a site's settings."""
    hub = c.JupyterHub
    description = "Make admins and set their passwords, for the one who runs the platform"
    hub.custom_scopes = {**hub.get("custom_scopes", {}), SCOPE_ACCOUNTS: {"description": description}}
    services, roles = list(hub.get("services", [])), list(hub.get("load_roles", []))
    hub.services = [*services, {"name": "llmos-supervisor", "api_token": token, "display": False}]
    role = {
        "name": "llmos-supervisor",
        "description": "`llmos user`, `llmos group`, `llmos token`, and new routes after the proxy was started again",
        "scopes": ["admin:users", "delete:users", "admin:groups", "tokens", "proxy", SCOPE_ACCOUNTS],
        "services": ["llmos-supervisor"],
    }
    hub.load_roles = [*roles, role]


def add_handlers(c: Any) -> None:
    """Add LLMOS' own routes to those that a site has set."""
    c.JupyterHub.extra_handlers = [*c.JupyterHub.extra_handlers, *api_handlers(), *error_handlers()]


def load(c: Any, load_subconfig: Any, environ: dict[str, str]) -> None:
    """Load the whole configuration: the workstation's, the site's, LLMOS'."""
    workstation(c, environ)
    site = Path(environ["LLMOS_DATA_DIR"]) / "jupyterhub_config.py"
    if site.exists():
        load_subconfig(str(site))
    tokens = json.loads(environ["LLMOS_TOKENS"])
    add_supervisor(c, tokens["llmos-supervisor"])
    add_handlers(c)
    configure(
        c,
        api_url=environ["LLMOS_API_ADDRESS"],
        gateway_url=environ["LLMOS_GATEWAY_URL"],
        tokens=Tokens(llmos=tokens["llmos"], llm=tokens["llm"]),
        report=lambda line: print(f"LLMOS: {line}"),  # noqa: T201 - into the Hub's log
    )


if "get_config" in globals():
    # JupyterHub executes this file with these two names defined
    load(get_config(), load_subconfig, dict(os.environ))  # type: ignore[name-defined]  # noqa: F821
