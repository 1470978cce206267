"""ModelService: a model served through an OpenAI-compatible API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from llmos.errors import ModelNotReady, NotReady
from llmos.names import PERSONAL, WORKLOADS_FINALIZER
from llmos.resources import cel
from llmos.resources.base import Condition, Meaning, Model, Name, ObjectMeta, Resource, Timestamp, Titles, Unit, Usage
from llmos.resources.modeluri import ModelURI, volume_of
from llmos.resources.podtemplate import check_pod_template
from llmos.resources.workload import DownloadProgress, Endpoint, ReplicaStatus, Resources, usage_of

__all__ = [
    "ENGINES",
    "Engine",
    "ModelInfo",
    "ModelService",
    "ModelServiceSpec",
    "ModelServiceStatus",
    "Phase",
    "PromptCache",
    "Task",
]

Engine = Literal["auto", "llamacpp", "custom"]
ENGINES = Titles({"llamacpp": "llama.cpp", "vllm": "vLLM", "sglang": "SGLang"})
Task = Literal["auto", "generate", "embed", "rerank"]
PromptCache = Literal["auto", "perCaller", "shared"]
Phase = Literal["Pending", "Downloading", "Starting", "Ready", "Degraded", "Paused", "Failed", "Deleting"]

_ENV_NAME = cel.Pattern(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", "the name of an environment variable")
_MODEL_ID = cel.Pattern(
    r"^[A-Za-z0-9][\w.:/-]{0,127}$",
    "a model name: letters, digits and . _ : / -, at most 128, a letter or digit first",
)
_MEDIA_HOST = cel.Pattern(r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", "the name of a host, such as images.example.org")
ModelID = Annotated[str, Field(json_schema_extra=_MODEL_ID.rules()), AfterValidator(_MODEL_ID.check)]
MediaHost = Annotated[str, Field(json_schema_extra=_MEDIA_HOST.rules()), AfterValidator(_MEDIA_HOST.check)]
PodTemplate = Annotated[dict[str, Any], AfterValidator(check_pod_template)]

_NO_COMMAND = 'engine custom needs its command in args, such as ["my-server", "--port", "{port}"]'
_NO_MODEL = "model is required, such as hf://org/repo or demo://smollm2"


class ModelServiceSpec(Model):
    """The desired state of a model service."""

    model_config = ConfigDict(
        json_schema_extra=cel.validations(
            cel.rule("self.engine != 'custom' || (has(self.args) && self.args.size() > 0)", _NO_COMMAND),
            cel.rule("self.engine == 'custom' || has(self.model)", _NO_MODEL),
        )
    )

    model: ModelURI | None = None
    """Source of the model: ``hf://org/repo[@revision][:file]``, ``file:///path``, ``volume://name/path`` for a file in a
    Volume of the same namespace, ``demo://smollm2``. Required except for engine ``custom``."""
    engine: Annotated[Engine, ENGINES] = "auto"
    """Program that serves the model; ``auto`` chooses one by the model's files and reports the reason."""
    args: Annotated[list[Annotated[str, Field(max_length=4096)]], Unit("command")] = Field(
        default_factory=list, max_length=200
    )
    """Further command-line arguments of the engine; for engine ``custom`` the whole command, in which ``{port}``,
    ``{socket}`` and ``{model}`` are replaced."""
    env: Annotated[dict[str, Annotated[str, Field(max_length=32768)]], AfterValidator(_ENV_NAME.check_keys)] = Field(
        default_factory=dict, max_length=200, json_schema_extra=_ENV_NAME.key_rules()
    )
    """Further environment variables of the engine. Put secrets into a Credential. For engine ``custom`` on a
    workstation, ``{api_key}`` is replaced by the key that the gateway sends to the engine."""
    served_model_name: ModelID | None = None
    """Name that clients ask for; by default the resource's name."""
    aliases: list[ModelID] = Field(default_factory=list, max_length=20)
    """Further names that clients can ask for."""
    task: Task = "auto"
    """Task of the model; ``auto`` reads it from the model's header."""
    resources: Resources = Field(default_factory=Resources)
    replicas: int = Field(default=1, ge=0, le=64)
    """Number of processes or pods that serve the model."""
    credential_ref: Name | None = None
    """Credential in the same namespace whose ``HF_TOKEN`` gives access to a gated model, and whose other entries the
    engine gets as environment variables."""
    prompt_cache: PromptCache = "auto"
    """Sharing of the engine's prompt cache, which speeds up prompts that begin like an earlier one. The response tells
    how much of a prompt was cached, so a caller could find out somebody else's prompt by trying. ``perCaller``: callers
    share nothing; llama.cpp can't tell callers apart and computes each prompt again. ``shared``: all callers share the
    cache; outside of personal namespaces only an admin may set it. ``auto``: ``shared`` in a personal namespace, else
    ``perCaller``."""
    media_hosts: list[MediaHost] = Field(default_factory=list, max_length=50)
    """Hosts from which the engine may fetch images, audio and video that a request refers to by URL; by default none,
    and requests must contain them as ``data:`` URLs. The engine fetches from where it runs, and a host may redirect to
    another."""
    paused: bool = False
    """True to keep the service without running replicas."""
    template: PodTemplate | None = None
    """Changes to the pods, on a cluster only, merged strategically: ``{"spec": {"nodeSelector": {"disk": "fast"}}}``.
    The engine's container is named ``engine``. Fields with effects beyond the pod can't be set, nor those reserved for
    the operator (tolerations, runtime classes, names). Labels and annotations must begin with ``custom.llmos.ai/``."""

    @model_validator(mode="after")
    def _check_engine(self) -> ModelServiceSpec:
        if self.engine == "custom" and not self.args:
            raise ValueError(_NO_COMMAND)
        if self.engine != "custom" and self.model is None:
            raise ValueError(_NO_MODEL)
        return self


class ModelInfo(Model):
    """Properties of the model, read from its files."""

    name: str = ""
    """Name in the model's header."""
    architecture: str = ""
    """``general.architecture`` in the header: ``llama``, ``bert``."""
    quantization: str = ""
    """Format of the weights: ``Q4_K_M``."""
    parameters: Annotated[int | None, Unit("count")] = None
    """Number of weights."""
    context_length: Annotated[int | None, Unit("count")] = None
    """Context length in tokens that the model was trained with."""
    file_size: Annotated[int, Unit("file bytes")] = 0
    """Size on disk in bytes."""
    revision: str = ""
    """Downloaded revision: a commit or a hash."""
    choice: str = ""
    """The file chosen from the repository, and the reason."""
    chat_template: bool = False
    """True if the files contain a chat template."""


class ModelServiceStatus(Model):
    """The observed state of a model service."""

    phase: Phase = "Pending"
    """Summary of the status in one word."""
    message: str = ""
    """Reason for the phase, as a sentence."""
    observed_generation: int = 0
    """Generation of ``spec`` that this status refers to."""
    conditions: list[Condition] = Field(default_factory=list)
    """The conditions Downloaded, ModelRecognised and Ready, each with its reason."""
    download: DownloadProgress | None = None
    """Progress of the download, while files are downloaded."""
    engine: Annotated[str, ENGINES] = ""
    """Engine in use."""
    task: str = ""
    """Task of the model: generate, embed or rerank."""
    model: ModelInfo | None = None
    """Properties from the model's header."""
    replicas: int = 0
    """Number of replicas."""
    ready_replicas: int = 0
    """Number of ready replicas."""
    selector: str = ""
    """On a cluster the label selector of the replicas' pods, as text, for HorizontalPodAutoscalers and others."""
    desired_replicas: int | None = None
    """Number of replicas wanted by the autoscaler or the waker; if unset, ``spec.replicas`` applies."""
    replica_statuses: list[ReplicaStatus] = Field(default_factory=list)
    """Status of each replica."""
    endpoints: list[Endpoint] = Field(default_factory=list)
    """Addresses of the ready replicas."""
    last_log_lines: list[str] = Field(default_factory=list)
    """Last lines of the engine's log after a failure."""
    next_try_at: Annotated[Timestamp | None, Unit("wait")] = None
    """Time of the next automatic attempt after a failure."""
    memory_estimate: Annotated[int | None, Unit("bytes")] = None
    """Estimated memory per replica in bytes, from the model's header."""
    started_at: Annotated[Timestamp | None, Unit("age")] = None
    """Time when this generation began to start."""
    ready_at: Annotated[Timestamp | None, Unit("age")] = None
    """Time when it first became ready."""


class ModelService(Resource):
    """A model served through an OpenAI-compatible API."""

    plural: ClassVar[str] = "modelservices"
    singular: ClassVar[str] = "modelservice"
    short_names: ClassVar[tuple[str, ...]] = ("ms", "model", "models")
    nouns: ClassVar[tuple[str, str]] = ("model", "models")
    has_logs: ClassVar[bool] = True
    log_parts: ClassVar[tuple[str, ...]] = ("serve", "fetch")
    scalable: ClassVar[bool] = True
    pausable: ClassVar[bool] = True
    phases: ClassVar[Mapping[str, Meaning]] = {
        "Pending": "working",
        "Downloading": "working",
        "Starting": "working",
        "Ready": "ready",
        "Degraded": "degraded",
        "Paused": "stopped",
        "Failed": "failed",
    }
    refusals: ClassVar[frozenset[str]] = frozenset(
        {"InsufficientResources", "Invalid", "Unsupported", "DownloadFailed"}
    )
    not_ready: ClassVar[type[NotReady]] = ModelNotReady
    finalizer: ClassVar[str] = WORKLOADS_FINALIZER
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

    def usage(self) -> Usage | None:
        """Return what its replicas on this machine use; None if it has none."""
        return usage_of(self.spec.resources, self.status.replica_statuses)

    @property
    def wanted_replicas(self) -> int:
        """The wanted number of replicas: none while paused, else what the autoscaler wants, or else the spec."""
        if self.spec.paused:
            return 0
        desired = self.status.desired_replicas
        return self.spec.replicas if desired is None else desired

    @property
    def uses(self) -> Sequence[tuple[str, str]]:
        """The volume that its model is in, while it isn't paused."""
        found = volume_of(self.spec.model)
        return [("Volume", found[0])] if found is not None and not self.spec.paused else []

    @property
    def served_name(self) -> str:
        """The model's name in the engine."""
        return self.spec.served_model_name or self.metadata.name

    @property
    def parts_prompts(self) -> bool:
        """True if the engine's prompt cache is kept apart by caller."""
        if self.spec.prompt_cache == "auto":
            return not (self.metadata.namespace or "").startswith(PERSONAL)
        return self.spec.prompt_cache == "perCaller"

    @property
    def engine_spec(self) -> ModelServiceSpec:
        """The spec for the engine, with defaults that depend on name and namespace filled in."""
        prompt_cache: PromptCache = "perCaller" if self.parts_prompts else "shared"
        return self.spec.model_copy(update={"served_model_name": self.served_name, "prompt_cache": prompt_cache})

    @property
    def model_names(self) -> tuple[str, ...]:
        """All names that clients in the namespace can ask for, the resource's own first."""
        return tuple(self.claims)

    @property
    def claims(self) -> Mapping[str, str]:
        """The model names, each with its field: clients could not tell two models of one name apart."""
        found = {self.metadata.name: "metadata.name"}
        if self.spec.served_model_name:
            found.setdefault(self.spec.served_model_name, "spec.servedModelName")
        for index, alias in enumerate(self.spec.aliases):
            found.setdefault(alias, f"spec.aliases[{index}]")
        return found
