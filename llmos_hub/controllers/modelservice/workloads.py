"""The workloads of a ModelService: one that fetches its model, and one that serves it. Pure functions."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from llmos.errors import Cause, Invalid
from llmos.resources import ModelService, Volume
from llmos.resources.modeluri import volume_of
from llmos.trust import ENV_CA_CERTIFICATES, ENV_CA_FILE
from llmos_hub.controllers.layout import Layout
from llmos_hub.engines.base import Plan
from llmos_hub.names import (
    ENV_ENGINE_KEY,
    KEY_ATTEMPT,
    KEY_GENERATION,
    KEY_REPLICAS,
    KEY_SECRETS,
    KEY_SOURCE,
    KEY_TEMPLATE,
)
from llmos_hub.sources.volume import ENV_VOLUME
from llmos_hub.workload import Mount, PodOptions, ProcessTemplate, Role, Workload, WorkloadRef

__all__ = [
    "FETCH",
    "REPLICA",
    "SERVE",
    "cache_directory",
    "fetch_environment",
    "fetch_secrets_digest",
    "fetch_source",
    "make_fetch",
    "make_ref",
    "make_serve",
    "model_mounts",
]

SERVE = "serve"
"""The part that serves requests."""
FETCH = "fetch"
"""The part that downloads, and the role of its only process."""
REPLICA = "replica"
"""The role of the processes that serve requests."""

_MODEL = "model"
"""The name of the mount that a model is in."""
_PASSED = (
    "LLMOS_MODELS_MIRROR",
    ENV_CA_CERTIFICATES,
    "HF_ENDPOINT",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
_PASSED_PREFIXES = ("HF_HUB_", "PIP_", "UV_")
_PASSED_ANY_CASE = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
_KEY_VARIABLES = (ENV_ENGINE_KEY, "VLLM_API_KEY")
"""Environment variables in which servers look for the API key they must require."""
_FETCH_SECRETS = ("HF_TOKEN",)
"""The keys of a Credential that a download gets: none that could change the behavior of its program."""


def make_ref(service: ModelService, part: str) -> WorkloadRef:
    """Return the reference of a part of the service."""
    meta = service.metadata
    return WorkloadRef(service.kind, meta.namespace or "", meta.name, meta.uid or "", part)


def cache_directory(service: ModelService, layout: Layout) -> Path:
    """Return the directory of the service's model files; what a Credential opened is only for its namespace."""
    return layout.directory(service.metadata.namespace or "", private=service.spec.credential_ref is not None)


def fetch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the platform's environment that a download needs: proxies, mirrors and certificates."""
    made = environ.get(ENV_CA_FILE)  # a file of this process; a pod creates its own from the site's certificates
    return {
        name: value
        for name, value in environ.items()
        if (
            name in _PASSED
            or (name.startswith(_PASSED_PREFIXES) and name != "HF_HUB_TOKEN")
            or name.upper() in _PASSED_ANY_CASE
        )
        and (not made or value != made)
    }


def fetch_source(service: ModelService, directory: Path, mounts: Mapping[str, Mount]) -> str:
    """Return twelve hex digits that identify a download by its model, directory and the volume that it is in."""
    places = "".join(f"\0{mount.source}" for mount in mounts.values())
    return hashlib.sha256(f"{service.spec.model}\0{directory}{places}".encode()).hexdigest()[:12]


def model_mounts(volume: Volume, source: str) -> dict[str, Mount]:
    """Return the mounts of a process whose model is in a volume.

    Parameters
    ----------
    volume
        The volume.
    source
        What a mount of it calls its source.
    """
    return {_MODEL: Mount(source, f"/volumes/{volume.metadata.name}", read_only=True)}


def fetch_secrets_digest(service: ModelService, secrets: Mapping[str, str]) -> str:
    """Return twelve hex digits that change with a download's secrets; the uid hides that two services share a token."""
    values = "\0".join(secrets.get(name, "") for name in _FETCH_SECRETS)
    return hashlib.sha256(f"{service.metadata.uid}\0{values}".encode()).hexdigest()[:12]


def make_fetch(
    service: ModelService,
    directory: Path,
    layout: Layout,
    *,
    attempt: int,
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
    mounts: Mapping[str, Mount] | None = None,
) -> Workload:
    """Return the job that fetches the model and reads its header.

    Parameters
    ----------
    service
        The service whose ``spec.model`` is fetched.
    directory
        The cache directory.
    layout
        The layout, which determines whether it runs in a pod.
    attempt
        The attempt, from 1: a new number runs the job again, as do a new generation of the spec and new secrets.
    environment
        Variables from `fetch_environment`.
    secrets
        The Credential's data.
    mounts
        The volume that the model is in, from `model_mounts`.
    """
    mounts = mounts or {}
    fetching = _fetching(service, directory, layout, environment, secrets)
    run = {"LLMOS_FETCH_RUN": f"{service.metadata.generation}.{attempt}"}
    template = replace(fetching, env={**fetching.env, **run}, completes=True, mounts=mounts)
    labels = {
        KEY_SOURCE: fetch_source(service, directory, mounts),
        KEY_SECRETS: fetch_secrets_digest(service, secrets),
        KEY_GENERATION: str(service.metadata.generation),
        KEY_ATTEMPT: str(attempt),
    }
    return Workload(make_ref(service, FETCH), (Role(FETCH, 1, template),), labels)


def _fetching(
    service: ModelService,
    directory: Path,
    layout: Layout,
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
) -> ProcessTemplate:
    """Return the process that fetches the model; it ends at once if the model is complete."""
    # -P: don't import modules from the current directory
    argv = (sys.executable, "-P", "-m", "llmos_hub.sources.fetch", str(service.spec.model), str(directory))
    token = {name: secrets[name] for name in _FETCH_SECRETS if name in secrets}
    # the URL of a proxy or mirror may contain a user name and a password
    secret = {name: value for name, value in environment.items() if "@" in value}
    plain = {name: value for name, value in environment.items() if name not in secret}
    if volume_of(service.spec.model) is not None:
        plain[ENV_VOLUME] = f"{{mount.{_MODEL}}}"
    return ProcessTemplate(
        argv=argv,
        env={**plain, "PYTHONUNBUFFERED": "1"},
        secret_env={**secret, **token},
        grace=3.0,
        pod=PodOptions(image=FETCH) if layout.per_namespace else PodOptions(),
    )


def make_serve(
    service: ModelService,
    plan: Plan,
    secrets: Mapping[str, str],
    *,
    layout: Layout | None = None,
    engine: str = "",
    environment: Mapping[str, str] | None = None,
    key: str = "",
    mounts: Mapping[str, Mount] | None = None,
) -> Workload:
    """Return the serving processes.

    Parameters
    ----------
    service
        The service, with the number of replicas and their memory limit.
    plan
        The engine's plan, with the process to run.
    secrets
        The Credential's data; the engine doesn't get the token for the model's source.
    layout
        The layout of files; by default on this machine.
    engine
        The engine whose image a pod gets.
    environment
        Variables from `fetch_environment`, for pods that fetch a model missing on their volume.
    key
        The key that the gateway sends to a custom command; empty if it sends none.
    mounts
        The volume that the model is in, from `model_mounts`.

    Raises
    ------
    Invalid
        A variable is reserved for the platform, which identifies its processes by such variables. Or a custom command
        would listen where it can't be reached.
    """
    others = {name: value for name, value in secrets.items() if name not in _FETCH_SECRETS}
    _refuse_our_names("spec.env", plan.template.env)
    _refuse_our_names("spec.credentialRef", others)
    template = _with_memory(plan, service.spec.resources.memory_bytes)
    template = replace(
        template,
        secret_env={**template.secret_env, **others},
        mounts={**template.mounts, **(mounts or {})},
    )
    if service.spec.engine == "custom":
        template = _with_key(template, key)
    if layout is not None and layout.per_namespace:
        template = _in_pod(template, service, engine)
        if service.spec.model is not None:
            fetching = _fetching(service, cache_directory(service, layout), layout, environment or {}, secrets)
            template = replace(template, init=(fetching,))
    count = service.wanted_replicas
    labels = {KEY_REPLICAS: str(count), KEY_TEMPLATE: template.hash}
    try:
        return Workload(make_ref(service, SERVE), (Role(REPLICA, count, template),), labels)
    except ValueError as error:  # a placeholder in the service's own arguments or environment
        raise Invalid(f"spec.args or spec.env: {error}") from None


def _with_memory(plan: Plan, wanted: int | None) -> ProcessTemplate:
    """Return the plan's process with its memory limit and request: its own ones, as wanted, or from the estimate."""
    template, estimate = plan.template, plan.memory_estimate
    limit = template.memory_limit or wanted or (2 * estimate if estimate else None)
    request = template.memory_request
    if request is None and estimate:
        request = min(estimate, limit) if limit else estimate
    return replace(template, memory_limit=limit, memory_request=request)


def _with_key(template: ProcessTemplate, key: str) -> ProcessTemplate:
    """Return the process with its key in the environment: in place of ``{api_key}``, and in the usual variables."""
    asked = {name: value.replace("{api_key}", key) for name, value in template.env.items() if "{api_key}" in value}
    plain = {name: value for name, value in template.env.items() if name not in asked}
    usual = {name: key for name in _KEY_VARIABLES if name not in (*plain, *template.secret_env)} if key else {}
    return replace(template, env=plain, secret_env={**usual, **template.secret_env, **asked})


def _in_pod(template: ProcessTemplate, service: ModelService, engine: str) -> ProcessTemplate:
    """Return the process with the options of its pod."""
    _refuse_sockets(service)
    wanted = service.spec.resources
    pod = template.pod
    if pod == PodOptions():
        pod = PodOptions(
            image=engine,
            gpus=wanted.gpus,
            gpu_type=wanted.gpu_type or "",
            overrides=service.spec.template or {},
        )
    return replace(template, pod=pod)


def _refuse_sockets(service: ModelService) -> None:
    """Refuse a custom command that listens on a unix socket: the gateway is in another pod and can't open it."""
    spec = service.spec
    if spec.engine != "custom":
        return
    places = {"spec.args": spec.args, **{f"spec.env.{name}": [value] for name, value in spec.env.items()}}
    for place, texts in places.items():
        if any("{socket}" in text for text in texts):
            text = (
                "{socket} stands for a unix socket, which other pods can't reach. In a cluster let the command listen on "
                'all addresses and {port}, such as ["my-server", "--host", "0.0.0.0", "--port", "{port}"]'
            )
            raise Invalid(f"{place}: {text}.", causes=[Cause(place, text)])


def _refuse_our_names(field: str, names: Iterable[str]) -> None:
    for name in names:
        if name.startswith("LLMOS_"):
            text = f"{name} can't be set: variables that begin with LLMOS_ are the platform's own"
            raise Invalid(f"{field}: {text}.", causes=[Cause(field, text)])
