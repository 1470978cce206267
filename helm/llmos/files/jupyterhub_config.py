"""The configuration of the chart's Hub.

The chart's values are in ``settings.json`` beside this file, secrets are in the environment. A site's
own settings (`hub.config`, `hub.extraConfig`) are applied after the chart's, and LLMOS' own last.
"""

# ruff: noqa: INP001 - not part of a package: the chart mounts this file unchanged

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos_hub.accounts.secure_cookies import SecureCookies
from llmos_hub.jupyterhub_config import Tokens, configure

SETTINGS = Path("/etc/llmos/settings.json")
FIRST_PASSWORD = Path("/tmp/first-password")  # noqa: S108 - the container's own, read and deleted at once
DATA = Path("/var/lib/llmos")


def cluster(c: Any, settings: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Configure the Hub in its pod: its addresses, its database, and the separate proxy."""
    hub = c.JupyterHub
    hub.bind_url = "http://:8000"
    hub.hub_bind_url = "http://:8081"
    hub.hub_connect_url = settings["hubConnectUrl"]
    hub.db_url = environ["LLMOS_HUB_DB_URL"]
    hub.upgrade_db = True
    # servers and the proxy's routes keep working while the Hub restarts
    hub.cleanup_servers = False
    hub.cleanup_proxy = False
    hub.proxy_class = "llmos_hub.hub_proxy.WatchedProxy"
    c.ConfigurableHTTPProxy.should_start = False
    c.ConfigurableHTTPProxy.api_url = settings["proxyApiUrl"]
    hub.last_activity_interval = 60
    # shows the progress page at once
    hub.tornado_settings = {"slow_spawn_timeout": 0, "transforms": [SecureCookies]}
    hub.allow_named_servers = True
    hub.named_server_limit_per_user = settings["namedServerLimit"]
    hub.concurrent_spawn_limit = settings["concurrentSpawnLimit"]
    hub.active_server_limit = 0


def spawner(c: Any, settings: Mapping[str, Any]) -> None:
    """Configure notebook servers as pods, in a namespace per person."""
    from llmos_spawners.profiles.config import default_sizes

    pods = settings["spawner"]
    c.JupyterHub.spawner_class = "llmos_spawners.kubernetes.LLMOSKubeSpawner"
    c.LLMOSKubeSpawner.openai_base_url = settings["gatewayUrl"] + "/v1"
    c.LLMOSKubeSpawner.llmos_url = settings["apiUrl"] + "/services/llmos"
    c.LLMOSKubeSpawner.ca_certificates = pods["caCertificates"]
    # the controllers select the namespaces to fill by these labels
    c.LLMOSKubeSpawner.user_namespace_labels = pods["namespaceLabels"]
    c.LLMOSKubeSpawner.sizes = default_sizes()
    kube = c.KubeSpawner
    kube.image = pods["image"]
    kube.image_pull_policy = pods["imagePullPolicy"]
    kube.image_pull_secrets = pods["imagePullSecrets"]
    kube.node_selector = pods["nodeSelector"]
    kube.tolerations = pods["tolerations"]
    kube.storage_capacity = pods["storageCapacity"]
    if pods["storageClass"]:
        kube.storage_class = pods["storageClass"]
    if pods["priorityClass"]:
        kube.priority_class_name = pods["priorityClass"]


def passwords(c: Any, settings: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Configure log-in with LLMOS' own passwords; the first admin's comes from the Secret."""
    import llmos_hub
    from llmos_hub.accounts.hub_handlers import api_handlers

    hub = c.JupyterHub
    hub.authenticator_class = "llmos_hub.accounts.authenticator.LLMOSAuthenticator"
    hub.template_paths = [str(Path(llmos_hub.__file__).parent / "templates")]
    hub.template_vars = {"llmos_passwords": True}
    hub.extra_handlers = [*added(hub, "extra_handlers"), *api_handlers()]
    c.Authenticator.admin_users = {settings["admin"]}
    if not has_passwords(environ["LLMOS_HUB_DB_URL"]):
        content = json.dumps({"password": environ["LLMOS_ADMIN_PASSWORD"], "one_time": True})
        FIRST_PASSWORD.touch(mode=0o600)
        FIRST_PASSWORD.write_text(content, encoding="utf-8")
        c.LLMOSAuthenticator.first_password_file = str(FIRST_PASSWORD)


def has_passwords(db_url: str) -> bool:
    """Return whether the Hub's database has any password; then the first admin's is not set again."""
    from sqlalchemy import create_engine, inspect, select

    from llmos_hub.accounts.passwords import PasswordRow

    engine = create_engine(db_url)
    try:
        if not inspect(engine).has_table(PasswordRow.__tablename__):
            return False
        with engine.connect() as connection:
            return connection.execute(select(PasswordRow.__table__).limit(1)).first() is not None
    finally:
        engine.dispose()


def culler(c: Any, settings: Mapping[str, Any]) -> None:
    """Add the service that stops idle servers, and its role."""
    options = settings["culler"]
    if not options["enabled"]:
        return
    command = [
        *(sys.executable, "-P", "-m", "jupyterhub_idle_culler"),
        f"--url={settings['hubConnectUrl']}/hub/api",
        f"--timeout={options['timeout']}",
        f"--cull-every={options['every']}",
        "--concurrency=10",
    ]
    if options["maxAge"]:
        command.append(f"--max-age={options['maxAge']}")
    hub = c.JupyterHub
    hub.services = [*added(hub, "services"), {"name": "idle-culler", "command": command}]
    role = {
        "name": "idle-culler",
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
        "services": ["idle-culler"],
    }
    hub.load_roles = [*added(hub, "load_roles"), role]


def added(section: Any, name: str) -> list[Any]:
    """Return a copy of a list that is set already; traitlets returns a placeholder for an unset name."""
    return list(section[name]) if name in section else []


def site(c: Any, settings: Mapping[str, Any]) -> None:
    """Apply `hub.config` and `hub.extraConfig`."""
    for name, traits in sorted(settings["config"].items()):
        c[name].update(traits)
    for name, code in sorted(settings["extraConfig"].items()):
        print(f"LLMOS: running hub.extraConfig.{name}")  # noqa: T201 - into the Hub's log
        exec(compile(code, f"hub.extraConfig.{name}", "exec"), {**globals(), "c": c})  # noqa: S102 - it is the site's own configuration


def errors(c: Any) -> None:
    """Add the answers to requests for API and gateway while the proxy doesn't reach them, with any authenticator."""
    from llmos_hub.accounts.hub_handlers import error_handlers

    c.JupyterHub.extra_handlers = [*added(c.JupyterHub, "extra_handlers"), *error_handlers()]


def load(c: Any, settings: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    """Apply the whole configuration: the chart's, the site's, LLMOS'."""
    cluster(c, settings, environ)
    spawner(c, settings)
    if "authenticator_class" not in settings["config"].get("JupyterHub", {}):
        passwords(c, settings, environ)
    culler(c, settings)
    site(c, settings)
    errors(c)
    configure(
        c,
        api_url=settings["apiUrl"],
        gateway_url=settings["gatewayUrl"],
        tokens=Tokens(llmos=environ["LLMOS_SERVICE_TOKEN"], llm=environ["LLM_SERVICE_TOKEN"]),
        report=lambda line: print(f"LLMOS: {line}"),  # noqa: T201 - into the Hub's log
    )


if "get_config" in globals():
    # executed by JupyterHub, which defines this name
    load(get_config(), json.loads(SETTINGS.read_text(encoding="utf-8")), dict(os.environ))  # type: ignore[name-defined]  # noqa: F821
