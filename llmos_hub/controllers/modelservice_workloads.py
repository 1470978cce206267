"""The workloads of a ModelService: one that fetches its model, one that serves it. Pure functions."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from llmos.errors import Cause, Invalid
from llmos.resources import ModelService
from llmos.resources.quantities import parse_quantity
from llmos.trust import ENV_CA_CERTIFICATES, ENV_CA_FILE
from llmos_hub.controllers.layout import Layout
from llmos_hub.engines.base import Plan
from llmos_hub.names import ENV_ENGINE_KEY
from llmos_hub.workload import PodOptions, ProcessTemplate, Role, Workload, WorkloadRef

__all__ = [
    "FETCH",
    "REPLICA",
    "SERVE",
    "fetch_environment",
    "fetch_secrets_digest",
    "fetch_source",
    "make_fetch",
    "make_ref",
    "make_serve",
    "wanted_replicas",
]

SERVE = "serve"
"""The part that answers."""
FETCH = "fetch"
"""The part that downloads, and the role of its one process."""
REPLICA = "replica"
"""The role of the processes that answer."""

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
"""Where programs look for the key that they are to ask for."""
_FETCH_SECRETS = ("HF_TOKEN",)
"""What a download gets of a Credential: nothing that could change what its program does."""


def make_ref(service: ModelService, part: str) -> WorkloadRef:
    """What a part of the service is called."""
    meta = service.metadata
    return WorkloadRef(service.kind, meta.namespace or "", meta.name, meta.uid or "", part)


def wanted_replicas(service: ModelService) -> int:
    """How many processes shall answer."""
    return 0 if service.spec.paused else service.spec.replicas


def fetch_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What of the platform's own environment a download needs: the way through proxies, mirrors and their certificates."""
    made = environ.get(ENV_CA_FILE)  # this process's own; a pod makes one of what the site has given
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


def fetch_source(service: ModelService, directory: Path) -> str:
    """Twelve hex digits that tell one download from another: what is fetched, and where to."""
    return hashlib.sha256(f"{service.spec.model}\0{directory}".encode()).hexdigest()[:12]


def fetch_secrets_digest(service: ModelService, secrets: Mapping[str, str]) -> str:
    """Twelve hex digits that change with the secrets a download gets; the uid keeps equal tokens from being told."""
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
) -> Workload:
    """The job that fetches the model and reads its header.

    Parameters
    ----------
    service
        Whose ``spec.model`` is fetched.
    directory
        The cache.
    layout
        Whether it runs in a pod.
    attempt
        1, 2, 3 …: another number makes the job run again, as do another generation of the spec and other secrets.
    environment
        From `fetch_environment`.
    secrets
        The Credential's data.
    """
    fetching = _fetching(service, directory, layout, environment, secrets)
    run = {"LLMOS_FETCH_RUN": f"{service.metadata.generation}.{attempt}"}
    template = replace(fetching, env={**fetching.env, **run}, completes=True)
    labels = {
        "llmos.ai/source": fetch_source(service, directory),
        "llmos.ai/secrets": fetch_secrets_digest(service, secrets),
        "llmos.ai/generation": str(service.metadata.generation),
        "llmos.ai/attempt": str(attempt),
    }
    return Workload(make_ref(service, FETCH), (Role(FETCH, 1, template),), labels)


def _fetching(
    service: ModelService,
    directory: Path,
    layout: Layout,
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
) -> ProcessTemplate:
    """The process that fetches the model; quick where it is there already."""
    # -P: the current directory's modules are not ours
    argv = (sys.executable, "-P", "-m", "llmos_hub.sources.fetch", str(service.spec.model), str(directory))
    token = {name: secrets[name] for name in _FETCH_SECRETS if name in secrets}
    # the address of a proxy or a mirror may hold a name and a password
    secret = {name: value for name, value in environment.items() if "@" in value}
    plain = {name: value for name, value in environment.items() if name not in secret}
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
) -> Workload:
    """The processes that answer.

    Parameters
    ----------
    service
        Says how many, and how much memory each may use.
    plan
        The engine's process.
    secrets
        The Credential's data; what opens the model's source is of no use to the engine.
    layout
        Where files are; unset, here.
    engine
        Whose image a pod has.
    environment
        From `fetch_environment`, for pods that fetch what their volume lacks.
    key
        What the gateway will send to a command of one's own; empty where it sends nothing.

    Raises
    ------
    Invalid
        A variable is the platform's own: by it the platform finds its processes again, to end them. Or a command of
        one's own is to listen where nobody reaches it.
    """
    estimate = plan.memory_estimate
    limit = plan.template.memory_limit
    if limit is None and service.spec.resources.memory:
        limit = int(parse_quantity(service.spec.resources.memory))
    if limit is None and estimate:
        limit = 2 * estimate
    request = plan.template.memory_request
    if request is None and estimate:
        request = min(estimate, limit) if limit else estimate
    others = {name: value for name, value in secrets.items() if name not in _FETCH_SECRETS}
    _refuse_our_names("spec.env", plan.template.env)
    _refuse_our_names("spec.credentialRef", others)
    template = replace(
        plan.template,
        memory_limit=limit,
        memory_request=request,
        secret_env={**plan.template.secret_env, **others},
    )
    if service.spec.engine == "custom":
        template = _with_key(template, key)
    if layout is not None and layout.per_namespace:
        template = _in_pod(template, service, engine)
        if service.spec.model is not None:
            fetching = _fetching(service, layout.directory(service), layout, environment or {}, secrets)
            template = replace(template, init=(fetching,))
    count = wanted_replicas(service)
    labels = {"llmos.ai/replicas": str(count), "llmos.ai/template": template.hash}
    return Workload(make_ref(service, SERVE), (Role(REPLICA, count, template),), labels)


def _with_key(template: ProcessTemplate, key: str) -> ProcessTemplate:
    """The same process with its key in the environment: where ``{api_key}`` stands, and as engines look for it."""
    asked = {name: value.replace("{api_key}", key) for name, value in template.env.items() if "{api_key}" in value}
    plain = {name: value for name, value in template.env.items() if name not in asked}
    usual = {name: key for name in _KEY_VARIABLES if name not in (*plain, *template.secret_env)} if key else {}
    return replace(template, env=plain, secret_env={**usual, **template.secret_env, **asked})


def _in_pod(template: ProcessTemplate, service: ModelService, engine: str) -> ProcessTemplate:
    """The same process with what a pod of it needs."""
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
    """A command of one's own that listens on a unix socket: the gateway is in another pod and can't open it."""
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
