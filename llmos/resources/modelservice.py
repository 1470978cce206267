"""ModelService: a model that answers through an OpenAI-compatible API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from llmos.names import PERSONAL
from llmos.resources import cel
from llmos.resources.base import Condition, Model, Name, ObjectMeta, Resource, Timestamp
from llmos.resources.modeluri import ModelURI
from llmos.resources.podtemplate import check_pod_template
from llmos.resources.quantities import CPU, Memory

__all__ = [
    "DownloadProgress",
    "Endpoint",
    "Engine",
    "ModelInfo",
    "ModelService",
    "ModelServiceSpec",
    "ModelServiceStatus",
    "Phase",
    "PromptCache",
    "ReplicaStatus",
    "Resources",
    "Task",
]

Engine = Literal["auto", "llamacpp", "custom"]
Task = Literal["auto", "generate", "embed", "rerank"]
PromptCache = Literal["auto", "perCaller", "shared"]
Phase = Literal["Pending", "Downloading", "Starting", "Ready", "Degraded", "Paused", "Failed", "Deleting"]

_ENV_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
_MODEL_ID = re.compile(r"^[A-Za-z0-9][\w.:/-]{0,127}$")


def _check_env(env: dict[str, str]) -> dict[str, str]:
    for name in env:
        if not _ENV_NAME.fullmatch(name):
            message = f'"{name[:80]}" is not the name of an environment variable'
            raise ValueError(message)
    return env


def _check_model_id(name: str) -> str:
    if not _MODEL_ID.fullmatch(name):
        message = (
            f'"{name[:80]}" is not a model name: letters, digits and . _ : / -, at most 128, a letter or digit first'
        )
        raise ValueError(message)
    return name


PodTemplate = Annotated[dict[str, Any], AfterValidator(check_pod_template)]


def _env_rules() -> dict[str, Any]:
    pattern = cel.text(_ENV_NAME.pattern)
    wrong = f"self.filter(name, !name.matches({pattern}))[0]"
    says = f"{cel.quoted(wrong, 80)} + ' is not the name of an environment variable'"
    return cel.validations(cel.rule(f"self.all(name, name.matches({pattern}))", says=says))


def _model_id_rules() -> dict[str, Any]:
    says = (
        f"{cel.quoted('self', 80)} + ' is not a model name: letters, digits and . _ : / -, at most 128, "
        "a letter or digit first'"
    )
    # the bound is for the rule's cost
    return cel.validations(cel.rule(f"self.matches({cel.text(_MODEL_ID.pattern)})", says=says), maxLength=253)


ModelID = Annotated[str, Field(json_schema_extra=_model_id_rules()), AfterValidator(_check_model_id)]


_MEDIA_HOST = re.compile(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")


def _check_media_host(host: str) -> str:
    if not _MEDIA_HOST.fullmatch(host):
        message = f'"{host[:80]}" is not the name of a host, such as images.example.org'
        raise ValueError(message)
    return host


def _media_host_rules() -> dict[str, Any]:
    says = f"{cel.quoted('self', 80)} + ' is not the name of a host, such as images.example.org'"
    return cel.validations(cel.rule(f"self.matches({cel.text(_MEDIA_HOST.pattern)})", says=says), maxLength=253)


MediaHost = Annotated[str, Field(json_schema_extra=_media_host_rules()), AfterValidator(_check_media_host)]


class Resources(Model):
    """What a replica may use."""

    cpu: CPU | None = None
    """CPUs a replica computes on; unset, all of the machine's. Sets the number of threads of engines that have one."""
    memory: Memory | None = None
    """The most memory a replica may use, in bytes; over it, the replica is stopped and the reason is shown.
    Unset, twice what the model's header lets expect."""
    gpus: int = Field(default=0, ge=0, le=64)
    """GPUs a replica gets for itself."""
    gpu_type: str | None = Field(default=None, max_length=63)
    """The kind of GPU, as ``llmos nodes`` names it; unset, any."""


_NO_COMMAND = 'engine custom needs its command in args, such as ["my-server", "--port", "{port}"]'
_NO_MODEL = "model is required, such as hf://org/repo or demo://smollm2"


class ModelServiceSpec(Model):
    """What is wanted of the service."""

    model_config = ConfigDict(
        json_schema_extra=cel.validations(
            cel.rule("self.engine != 'custom' || (has(self.args) && self.args.size() > 0)", _NO_COMMAND),
            cel.rule("self.engine == 'custom' || has(self.model)", _NO_MODEL),
        )
    )

    model: ModelURI | None = None
    """Where the model comes from: ``hf://org/repo[@revision][:file]``, ``file:///path``, ``demo://smollm2``.
    Required but for engine ``custom``."""
    engine: Engine = "auto"
    """The program that serves it; ``auto`` chooses by the model's files and says why."""
    args: list[Annotated[str, Field(max_length=4096)]] = Field(default_factory=list, max_length=200)
    """More arguments for the engine, in its own words; for engine ``custom`` the whole command, in which
    ``{port}``, ``{socket}`` and ``{model}`` are filled in."""
    env: Annotated[dict[str, Annotated[str, Field(max_length=32768)]], AfterValidator(_check_env)] = Field(
        default_factory=dict, max_length=200, json_schema_extra=_env_rules()
    )
    """More environment variables for the engine. Secrets belong into a Credential. For engine ``custom`` ``{api_key}`` stands
    for the key that the gateway sends to it, on a workstation."""
    served_model_name: ModelID | None = None
    """The name that clients ask for; unset, the resource's own."""
    aliases: list[ModelID] = Field(default_factory=list, max_length=20)
    """Further names it answers to."""
    task: Task = "auto"
    """What it is for; ``auto`` reads it from the model's header."""
    resources: Resources = Field(default_factory=Resources)
    replicas: int = Field(default=1, ge=0, le=64)
    """How many processes or pods serve it at once."""
    credential_ref: Name | None = None
    """The Credential of the same namespace whose ``HF_TOKEN`` opens a gated model, and whose other entries
    the engine gets as environment variables."""
    prompt_cache: PromptCache = "auto"
    """Whose prompts an engine may take up again where another prompt begins like them, which answers it sooner, and tells
    whoever asks how much was known: by trying, a stranger's prompt can be read so. ``perCaller``: nobody's but the caller's own
    (llama.cpp, which can't tell callers apart, computes each prompt anew). ``shared``: everybody's; what is not one person's
    alone only an admin may set so. ``auto``: ``shared`` in a person's own namespace, else ``perCaller``."""
    media_hosts: list[MediaHost] = Field(default_factory=list, max_length=50)
    """Hosts from which its engine may fetch pictures, sounds and films that a request names by address; unset, none: requests
    carry them, as ``data:``. An engine fetches from where it runs, and a host may send it on to another."""
    paused: bool = False
    """Keep the service but run nothing."""
    template: PodTemplate | None = None
    """Changes to the pods, in a cluster only, merged strategically: ``{"spec": {"nodeSelector": {"disk": "fast"}}}``.
    The engine's container is called ``engine``. What would reach beyond the pod can't be set, nor what is the operator's
    to say (tolerations, runtime classes, names); labels and annotations begin with ``custom.llmos.ai/``."""

    @model_validator(mode="after")
    def _check_engine(self) -> ModelServiceSpec:
        if self.engine == "custom" and not self.args:
            raise ValueError(_NO_COMMAND)
        if self.engine != "custom" and self.model is None:
            raise ValueError(_NO_MODEL)
        return self


class DownloadProgress(Model):
    """How far a download is."""

    file: str = ""
    """The file under way."""
    done: int = 0
    """Bytes that are here."""
    total: int | None = None
    """Bytes in all, when known."""
    rate: float | None = None
    """Bytes a second, over the last seconds."""


class ModelInfo(Model):
    """What the model's own files say of it."""

    name: str = ""
    """As the header names it, for people."""
    architecture: str = ""
    """The header's ``general.architecture``: ``llama``, ``bert``."""
    quantization: str = ""
    """How the weights are stored: ``Q4_K_M``."""
    parameters: int | None = None
    """Number of weights."""
    context_length: int | None = None
    """Tokens the model was trained for."""
    file_size: int = 0
    """Bytes on disk."""
    revision: str = ""
    """What exactly was fetched: a commit or a hash."""
    choice: str = ""
    """Which of a repository's files was taken, and why."""
    chat_template: bool = False
    """Whether the files bring a chat template."""


class Endpoint(Model):
    """Where the gateway reaches a replica; readable by the platform, useless from elsewhere."""

    replica: str
    """The replica's id."""
    url: str
    """``unix:///path/to.sock`` or ``http://127.0.0.1:PORT``."""


class ReplicaStatus(Model):
    """One process or pod."""

    id: str
    """Unique while the service lives."""
    phase: Literal["Starting", "Ready", "NotReady", "Waiting", "Failed", "Stopping"]
    """What it is doing; ``Waiting`` is for its next start after a crash."""
    restarts: int = 0
    """Times it was started again after a crash."""
    memory: int | None = None
    """Bytes in use."""
    memory_limit: int | None = None
    """Bytes it may use."""
    started_at: Timestamp | None = None
    """When its process was started."""
    message: str = ""
    """Why it is not ready."""


class ModelServiceStatus(Model):
    """How the service is."""

    phase: Phase = "Pending"
    """One word for lists."""
    message: str = ""
    """The reason for the phase, in a sentence."""
    observed_generation: int = 0
    """The generation of ``spec`` that this status speaks of."""
    conditions: list[Condition] = Field(default_factory=list)
    """Downloaded, ModelRecognised, Ready, each with its reason."""
    download: DownloadProgress | None = None
    """Present while files are being fetched."""
    engine: str = ""
    """The engine chosen."""
    task: str = ""
    """The task found: generate, embed or rerank."""
    model: ModelInfo | None = None
    """What the header says."""
    replicas: int = 0
    """Replicas there are."""
    ready_replicas: int = 0
    """Replicas that answer."""
    selector: str = ""
    """In a cluster the labels of the replicas' pods, as text: by it HorizontalPodAutoscalers and others find them."""
    desired_replicas: int | None = None
    """Written by autoscaler and waker; unset, ``spec.replicas`` counts."""
    replica_statuses: list[ReplicaStatus] = Field(default_factory=list)
    """Each replica on its own."""
    endpoints: list[Endpoint] = Field(default_factory=list)
    """The ready replicas' addresses."""
    last_log_lines: list[str] = Field(default_factory=list)
    """The last lines of the engine's log, when it failed."""
    next_try_at: Timestamp | None = None
    """When what failed is tried again by itself."""
    memory_estimate: int | None = None
    """Bytes that a replica will need, estimated from the header."""
    started_at: Timestamp | None = None
    """When this generation began to start."""
    ready_at: Timestamp | None = None
    """When it became ready first."""


class ModelService(Resource):
    """A model that answers through an OpenAI-compatible API."""

    plural: ClassVar[str] = "modelservices"
    singular: ClassVar[str] = "modelservice"
    short_names: ClassVar[tuple[str, ...]] = ("ms", "model", "models")
    has_logs: ClassVar[bool] = True
    placeholder: ClassVar[Mapping[str, Any]] = {"engine": "custom", "args": ["unreadable"], "paused": True}
    columns: ClassVar[tuple[tuple[str, str], ...]] = (
        ("MODEL", "spec.model"),
        ("ENGINE", "status.engine"),
        ("STATE", "status.phase"),
        ("READY", "status.readyReplicas"),
    )

    kind: Literal["ModelService"] = "ModelService"
    metadata: ObjectMeta
    spec: ModelServiceSpec
    status: ModelServiceStatus = Field(default_factory=ModelServiceStatus)

    @property
    def served_name(self) -> str:
        """The name under which its engine knows it."""
        return self.spec.served_model_name or self.metadata.name

    @property
    def parts_prompts(self) -> bool:
        """Whether what an engine remembers of prompts is kept apart by caller."""
        if self.spec.prompt_cache == "auto":
            return not (self.metadata.namespace or "").startswith(PERSONAL)
        return self.spec.prompt_cache == "perCaller"

    @property
    def engine_spec(self) -> ModelServiceSpec:
        """The spec as an engine needs it, with what follows from name and namespace filled in."""
        prompt_cache: PromptCache = "perCaller" if self.parts_prompts else "shared"
        return self.spec.model_copy(update={"served_model_name": self.served_name, "prompt_cache": prompt_cache})

    @property
    def model_names(self) -> tuple[str, ...]:
        """Every name clients may ask for within the namespace, the resource's own first."""
        names = [self.metadata.name, self.spec.served_model_name, *self.spec.aliases]
        return tuple(dict.fromkeys(n for n in names if n))
