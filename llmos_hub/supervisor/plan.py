"""The processes of a workstation: command, environment, order and probes of each.

Pure functions: binaries, ports and secrets are parameters, and the result is a list of programs.
"""

from __future__ import annotations

import hashlib
import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from llmos_hub.engine_keys import engine_secret
from llmos_hub.names import API_PREFIX, ENV_DATA_DIR, ENV_ENGINE_SECRET, ENV_INSTANCE, ENV_REDIS_URL, DataDir
from llmos_hub.supervisor.binaries import proxy_command
from llmos_hub.supervisor.database_files import explain_exit
from llmos_hub.supervisor.probes import HealthProbe, HttpProbe, RedisProbe
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.store_check import StoreCheck

__all__ = ["END_SIGNALS", "INTERNAL_PORTS", "Binaries", "Program", "UpOptions", "make_plan"]

INTERNAL_PORTS: Final = ("hub", "proxy-api", "api", "controllers")
"""Loopback ports that the platform chooses for itself and keeps."""


@dataclass(frozen=True)
class UpOptions:
    """The options of ``llmos up``.

    Attributes
    ----------
    data_dir
        The directory with all state.
    host, port
        Address on which the Hub's proxy listens.
    gateway_port
        Port on which the gateway listens, on the same host.
    redis_url
        URL of an external Valkey or Redis; empty for the embedded one.
    admin
        The first admin's name.
    recover
        The part of the data directory to replace or repair first (`llmos_hub.supervisor.recovery`); empty for none.
    detached
        True if it runs without a terminal (`llmos_hub.supervisor.detach`).
    known_database
        The id of the embedded database at the last start; empty if there was none.
    """

    data_dir: DataDir
    host: str = "127.0.0.1"
    port: int = 8000
    gateway_port: int = 8010
    redis_url: str = ""
    admin: str = "admin"
    recover: str = ""
    detached: bool = False
    known_database: str = ""

    @property
    def _connect_host(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"[{host}]" if ":" in host else host

    @property
    def hub_url(self) -> str:
        """The Hub's address from this machine."""
        return f"http://{self._connect_host}:{self.port}"

    @property
    def gateway_url(self) -> str:
        """The gateway's address from this machine, without ``/v1``."""
        return f"http://{self._connect_host}:{self.gateway_port}"


@dataclass(frozen=True)
class Binaries:
    """Paths and commands of the programs to start.

    Attributes
    ----------
    python
        The interpreter of the environment in which LLMOS is installed.
    node, proxy
        Node's binary (not the wrapper script, which would outlive a signal) and configurable-http-proxy's script.
    valkey
        The command of the embedded Valkey; empty if an external one is used.
    valkey_config
        The configuration for its standard input, as Valkey treats the path of a configuration file as a pattern.
    valkey_url
        Its URL with the password.
    """

    python: str
    node: str
    proxy: str
    valkey: tuple[str, ...] = ()
    valkey_config: str = ""
    valkey_url: str = ""


END_SIGNALS: Final[Mapping[str, signal.Signals]] = {"controllers": signal.SIGINT}
"""Signals other than SIGTERM that end a program when the whole platform stops. On SIGTERM the controllers leave the
models running for the next controllers to adopt, on SIGINT they stop them."""


@dataclass(frozen=True)
class Program:
    """One process to keep running.

    Attributes
    ----------
    name
        Name on the console, and of its log and record files.
    argv
        The command.
    environment
        Variables added to the supervisor's own environment.
    probe
        The probe of its health; a program that fails it is restarted.
    ready
        The probe of a start, if that requires more than health: a process that waits for another one is healthy, and
        restarting it would not help.
    after
        Names of programs that must be ready before this one is started.
    start_timeout
        Seconds after the start until it must be ready.
    patience
        Seconds of failed probes after which it is restarted.
    grace
        Seconds between the signal to end and SIGKILL.
    cwd
        Its working directory.
    stdin
        Text for its standard input; empty for none.
    explain
        Returns a message for the last log lines of a failed start, if users can do something about the cause.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    probe: HealthProbe
    ready: HealthProbe | None = None
    after: tuple[str, ...] = ()
    start_timeout: float = 60.0
    patience: float = 60.0
    grace: float = 10.0
    cwd: Path = field(default_factory=Path.home)
    stdin: str = ""
    explain: Callable[[Sequence[str]], str | None] | None = None

    @property
    def end_signal(self) -> signal.Signals:
        """The signal that ends it when the whole platform stops."""
        return END_SIGNALS.get(self.name, signal.SIGTERM)

    @property
    def fingerprint(self) -> str:
        """A hash of everything with which it is started."""
        told = [self.argv, sorted(self.environment.items()), self.stdin]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def make_plan(
    options: UpOptions, secrets: Secrets, ports: Mapping[str, int], binaries: Binaries, mark: str
) -> list[Program]:
    """Return the programs in the order of their start, the reverse of the order in which they are stopped.

    Parameters
    ----------
    options
        The options of ``llmos up``.
    secrets
        Passwords and tokens.
    ports
        The internal ports by name (`INTERNAL_PORTS`).
    binaries
        Paths and commands of the programs.
    mark
        The platform's mark, carried by all its processes (`llmos_hub.supervisor.platform_mark`).
    """
    common = {
        ENV_DATA_DIR: str(options.data_dir.root),
        ENV_INSTANCE: mark,
        "PYTHONUNBUFFERED": "1",  # logs are read while they are written
    }
    return [
        *([_valkey(options, binaries, common)] if binaries.valkey else []),
        _proxy(options, secrets, ports, binaries, common),
        *_services(options, secrets, ports, binaries, common),
        _hub(options, secrets, ports, binaries, common),
    ]


def _services(
    options: UpOptions, secrets: Secrets, ports: Mapping[str, int], binaries: Binaries, common: Mapping[str, str]
) -> list[Program]:
    """Return API, gateway and controllers."""
    platform = {
        **common,
        ENV_REDIS_URL: options.redis_url or binaries.valkey_url,
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{ports['hub']}/hub/api",
        "LLMOS_PUBLIC_URL": options.hub_url,
        "LLMOS_GATEWAY_URL": options.gateway_url,
    }
    as_llmos = {"JUPYTERHUB_API_TOKEN": secrets.llmos_token, "LLMOS_ENCRYPTION_KEY": secrets.encryption_key}
    engines = {ENV_ENGINE_SECRET: engine_secret(secrets.encryption_key)}
    gateway = {"JUPYTERHUB_API_TOKEN": secrets.llm_token, **engines}
    return [
        _service(binaries, "api", {**platform, **as_llmos}, "127.0.0.1", ports["api"]),
        _service(
            binaries, "gateway", {**platform, **gateway}, options.host, options.gateway_port, url=options.gateway_url
        ),
        _service(
            binaries,
            "controllers",
            {**platform, **as_llmos, **engines},
            "127.0.0.1",
            ports["controllers"],
            grace=30.0,  # models have 10 seconds to end by themselves, then are killed
        ),
    ]


def _valkey(options: UpOptions, binaries: Binaries, common: Mapping[str, str]) -> Program:
    directory = options.data_dir.valkey
    return Program(
        "valkey",
        binaries.valkey,
        common,
        RedisProbe(binaries.valkey_url),
        ready=StoreCheck(binaries.valkey_url, directory, options.known_database),
        grace=20.0,
        stdin=binaries.valkey_config,
        explain=partial(explain_exit, directory),
    )


def _service(
    binaries: Binaries,
    name: str,
    environment: Mapping[str, str],
    host: str,
    port: int,
    *,
    url: str = "",
    grace: float = 10.0,
) -> Program:
    """Return a service that listens on this host and port; `url` is its address from here, if the host isn't."""
    # -P: don't import modules from the current directory
    argv = (binaries.python, "-P", "-m", "llmos_hub.app", name)
    environment = {**environment, "LLMOS_HOST": host, "LLMOS_PORT": str(port)}
    url = url or f"http://{host}:{port}"
    health, ready = HttpProbe(f"{url}/health"), HttpProbe(f"{url}/ready")
    after = ("valkey",) if binaries.valkey else ()
    return Program(name, argv, environment, health, ready=ready, after=after, grace=grace)


def _proxy(
    options: UpOptions, secrets: Secrets, ports: Mapping[str, int], binaries: Binaries, common: Mapping[str, str]
) -> Program:
    argv = (
        *proxy_command(binaries.node, binaries.proxy),
        *("--ip", options.host, "--port", str(options.port)),
        *("--api-ip", "127.0.0.1", "--api-port", str(ports["proxy-api"])),
        *("--error-target", f"http://127.0.0.1:{ports['hub']}/hub/llmos/error"),
        *("--log-level", "warn"),
    )
    # the token is passed in the environment, as arguments can be read by every local user
    environment = {**common, "CONFIGPROXY_AUTH_TOKEN": secrets.proxy_token, "NODE_ENV": "production"}
    return Program("proxy", argv, environment, HttpProbe(f"{options.hub_url}/_chp_healthz"))


def _hub(
    options: UpOptions, secrets: Secrets, ports: Mapping[str, int], binaries: Binaries, common: Mapping[str, str]
) -> Program:
    configuration = Path(__file__).with_name("hub_config.py")
    argv = (binaries.python, "-P", "-m", "llmos_hub.supervisor.hub_main", "-f", str(configuration))
    environment = {
        **common,
        "CONFIGPROXY_AUTH_TOKEN": secrets.proxy_token,
        "LLMOS_HUB_URL": options.hub_url,
        "LLMOS_HUB_PORT": str(ports["hub"]),
        "LLMOS_PROXY_API_URL": f"http://127.0.0.1:{ports['proxy-api']}",
        "LLMOS_API_ADDRESS": f"http://127.0.0.1:{ports['api']}",
        "LLMOS_GATEWAY_URL": options.gateway_url,
        "LLMOS_API_URL": options.hub_url + API_PREFIX,
        "LLMOS_ADMIN_USER": options.admin,
        "LLMOS_TOKENS": json.dumps(
            {"llmos": secrets.llmos_token, "llm": secrets.llm_token, "llmos-supervisor": secrets.supervisor_token}
        ),
    }
    # servers have 10 seconds to end by themselves, then are killed; the Hub waits for all of them
    return Program(
        "hub",
        argv,
        environment,
        HttpProbe(f"http://127.0.0.1:{ports['hub']}/hub/health"),
        start_timeout=90.0,
        patience=90.0,
        grace=40.0,
        cwd=options.data_dir.hub,
    )
