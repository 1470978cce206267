"""The processes of a workstation: what each is started with, after which others, and how it is asked for its health.

Pure: everything that was found out before (binaries, ports, secrets) comes in, a list of programs goes out.
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
from llmos_hub.supervisor.database_files import explain_exit
from llmos_hub.supervisor.probes import HttpProbe, Probe, RedisProbe
from llmos_hub.supervisor.secrets import Secrets
from llmos_hub.supervisor.store_check import StoreCheck

__all__ = ["END_SIGNALS", "INTERNAL_PORTS", "Binaries", "Options", "Program", "make_plan"]

INTERNAL_PORTS: Final = ("hub", "proxy-api", "api", "controllers")
"""Loopback ports that the platform chooses for itself and keeps."""


@dataclass(frozen=True)
class Options:
    """What ``llmos up`` was told.

    Attributes
    ----------
    data_dir
        Where all state lies.
    host, port
        Where the Hub's proxy listens.
    gateway_port
        Where the gateway listens, on the same host.
    redis_url
        An external Valkey or Redis instead of the embedded one; empty for that.
    admin
        The first admin's name.
    recover
        The part of the data directory to replace or repair first (`llmos_hub.supervisor.recovery`); empty: none.
    detached
        Whether nobody sits before it: it was started by one that has ended (`llmos_hub.supervisor.detach`).
    known_database
        The id of the embedded database that was there the last time; empty where there was none.
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
    """The programs that are started.

    Attributes
    ----------
    python
        The interpreter of the environment that LLMOS is installed in.
    node, proxy
        Node itself (no wrapper script: it would outlive a signal) and configurable-http-proxy's script.
    valkey
        The arguments that start the embedded Valkey; empty where an external one is used.
    valkey_config
        Its configuration, for its standard input: the path of a file would be taken for a pattern.
    valkey_url
        Its address with its password.
    """

    python: str
    node: str
    proxy: str
    valkey: tuple[str, ...] = ()
    valkey_config: str = ""
    valkey_url: str = ""


END_SIGNALS: Final[Mapping[str, signal.Signals]] = {"controllers": signal.SIGINT}
"""What ends a program when everything is to end, where that isn't SIGTERM: at SIGTERM the controllers leave the models
running for those that come after them, at SIGINT they stop them."""


@dataclass(frozen=True)
class Program:
    """One process to keep running.

    Attributes
    ----------
    name
        In words on the console, in the log's and the record's file name.
    argv
        The command.
    environment
        What is set for it, over what the supervisor has itself.
    probe
        How its health is asked for.
    ready
        What must be well before it counts as started, where that is more than its health: a process that waits
        for another one is healthy, and starting it again would help nobody.
    after
        The programs that must be healthy before it is started.
    start_timeout
        Seconds from its start until it must be healthy.
    patience
        Seconds without health after which it is started again.
    grace
        Seconds it has to end by itself.
    stdin
        What it reads on standard input; empty: nothing.
    explain
        Makes a sentence for people of its last log lines, where a start that failed has a reason that they can do
        something about.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    probe: Probe
    ready: Probe | None = None
    after: tuple[str, ...] = ()
    start_timeout: float = 60.0
    patience: float = 60.0
    grace: float = 10.0
    cwd: Path = field(default_factory=Path.home)
    stdin: str = ""
    explain: Callable[[Sequence[str]], str | None] | None = None

    @property
    def end_signal(self) -> signal.Signals:
        """What ends it when everything is to end."""
        return END_SIGNALS.get(self.name, signal.SIGTERM)

    @property
    def fingerprint(self) -> str:
        """Changes when it would be started otherwise."""
        told = [self.argv, sorted(self.environment.items()), self.stdin]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def make_plan(
    options: Options, secrets: Secrets, ports: Mapping[str, int], binaries: Binaries, mark: str
) -> list[Program]:
    """The programs in the order in which they are started; they are stopped in the reverse one.

    Parameters
    ----------
    mark
        What everything that they start carries (`llmos_hub.supervisor.identity`).
    """
    redis_url = options.redis_url or binaries.valkey_url
    common = {
        ENV_DATA_DIR: str(options.data_dir.root),
        ENV_INSTANCE: mark,
        "PYTHONUNBUFFERED": "1",  # a log that is read while it is written
    }
    platform = {
        **common,
        ENV_REDIS_URL: redis_url,
        "JUPYTERHUB_API_URL": f"http://127.0.0.1:{ports['hub']}/hub/api",
        "LLMOS_PUBLIC_URL": options.hub_url,
        "LLMOS_GATEWAY_URL": options.gateway_url,
    }
    programs = []
    if binaries.valkey:
        programs.append(_valkey(options, binaries, common))
    needs_store = ("valkey",) if binaries.valkey else ()
    programs += [
        _proxy(options, secrets, ports, binaries, common),
        _service(
            "api",
            binaries,
            {
                **platform,
                "JUPYTERHUB_API_TOKEN": secrets.llmos_token,
                "LLMOS_ENCRYPTION_KEY": secrets.encryption_key,
                "LLMOS_HOST": "127.0.0.1",
                "LLMOS_PORT": str(ports["api"]),
            },
            f"http://127.0.0.1:{ports['api']}",
            needs_store,
        ),
        _service(
            "gateway",
            binaries,
            {
                **platform,
                "JUPYTERHUB_API_TOKEN": secrets.llm_token,
                ENV_ENGINE_SECRET: engine_secret(secrets.encryption_key),
                "LLMOS_HOST": options.host,
                "LLMOS_PORT": str(options.gateway_port),
            },
            options.gateway_url,
            needs_store,
        ),
        _service(
            "controllers",
            binaries,
            {
                **platform,
                "JUPYTERHUB_API_TOKEN": secrets.llmos_token,
                "LLMOS_ENCRYPTION_KEY": secrets.encryption_key,
                ENV_ENGINE_SECRET: engine_secret(secrets.encryption_key),
                "LLMOS_HOST": "127.0.0.1",
                "LLMOS_PORT": str(ports["controllers"]),
            },
            f"http://127.0.0.1:{ports['controllers']}",
            needs_store,
            grace=30.0,  # models have 10 seconds to end by themselves, then are made to
        ),
        _hub(options, secrets, ports, binaries, common),
    ]
    return programs


def _valkey(options: Options, binaries: Binaries, common: Mapping[str, str]) -> Program:
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
    name: str,
    binaries: Binaries,
    environment: Mapping[str, str],
    url: str,
    after: tuple[str, ...],
    *,
    grace: float = 10.0,
) -> Program:
    # -P: the current directory's modules are not ours
    argv = (binaries.python, "-P", "-m", "llmos_hub.app", name)
    health, ready = HttpProbe(f"{url}/health"), HttpProbe(f"{url}/ready")
    return Program(name, argv, environment, health, ready=ready, after=after, grace=grace)


def _proxy(
    options: Options, secrets: Secrets, ports: Mapping[str, int], binaries: Binaries, common: Mapping[str, str]
) -> Program:
    argv = (
        binaries.node,
        # small young generation and heap: the proxy streams, and keeps what it once had
        "--max-semi-space-size=2",
        "--max-old-space-size=256",
        binaries.proxy,
        "--ip",
        options.host,
        "--port",
        str(options.port),
        "--api-ip",
        "127.0.0.1",
        "--api-port",
        str(ports["proxy-api"]),
        "--error-target",
        f"http://127.0.0.1:{ports['hub']}/hub/error",
        "--log-level",
        "warn",
    )
    # CONFIGPROXY_AUTH_TOKEN is how configurable-http-proxy and the Hub are told it, never in argv
    environment = {**common, "CONFIGPROXY_AUTH_TOKEN": secrets.proxy_token, "NODE_ENV": "production"}
    return Program("proxy", argv, environment, HttpProbe(f"{options.hub_url}/_chp_healthz"))


def _hub(
    options: Options, secrets: Secrets, ports: Mapping[str, int], binaries: Binaries, common: Mapping[str, str]
) -> Program:
    argv = (
        binaries.python,
        "-P",
        "-m",
        "llmos_hub.supervisor.hub_main",
        "-f",
        str(Path(__file__).with_name("hub_config.py")),
    )
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
    # servers have 10 seconds to end by themselves, then are made to; the Hub waits for them all
    return Program(
        "hub",
        argv,
        environment,
        HttpProbe(f"http://127.0.0.1:{ports['hub']}/hub/health"),
        after=(),
        start_timeout=90.0,
        patience=90.0,
        grace=40.0,
        cwd=options.data_dir.hub,
    )
