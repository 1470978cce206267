"""Workloads: the processes that a backend runs, described independently of the backend.

A reconciler builds a `Workload` from a resource's spec by pure functions and passes it to a backend; its actual
state, failures included, is returned as an `Observation`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

__all__ = ["Observation", "PodOptions", "Probe", "ProcessTemplate", "ReplicaState", "Role", "Workload", "WorkloadRef"]


@dataclass(frozen=True, slots=True)
class Probe:
    """An HTTP GET that checks a process; any 2xx status is a success.

    Attributes
    ----------
    path
        The path, such as ``/health``.
    period
        Seconds between two probes.
    timeout
        Seconds after which a probe has failed.
    failures
        Number of consecutive failures that count as a failure of the process.
    """

    path: str
    period: float = 1.0
    timeout: float = 5.0
    failures: int = 3


@dataclass(frozen=True, slots=True)
class PodOptions:
    """Options of a process that only a cluster uses; they are ignored on a single machine.

    Attributes
    ----------
    image
        Name of an image in the backend's settings: that of an engine (``llamacpp``, ``vllm``) or ``fetch``;
        empty: the default one.
    gpus
        Number of GPUs, for its exclusive use.
    gpu_type
        The type of GPU, as in the label of the nodes; empty: any.
    hosts
        Number of machines that one replica spans; if more than one, the first leads and the others work for it.
    overrides
        Merged into the pod's template strategically: ``{"spec": {"nodeSelector": {…}}}``.
    """

    image: str = ""
    gpus: int = 0
    gpu_type: str = ""
    hosts: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)  # no slots: the hash is cached, since it is used often
class ProcessTemplate:
    """One process of a role.

    In `argv` and values of `env`, the backend replaces ``{socket}``, ``{port}``, ``{index}`` and ``{dir}`` (the
    replica's own directory); other braces are not changed. A process whose template contains ``{port}`` gets a
    free loopback port and is reached there; otherwise it is reached at ``{socket}``. In a cluster both are port
    8080 of the pod: ``{socket}`` becomes ``0.0.0.0:8080``.

    Attributes
    ----------
    argv
        Program and arguments. They are readable by everyone on the machine, so they must not contain secrets.
    env
        Environment variables in addition to those that every process gets (PATH, HOME, LANG, TMPDIR).
    secret_env
        Environment variables whose values must never be written, neither to records nor to logs.
    readiness
        Probe that tells when it may get requests; None: as soon as it runs.
    liveness
        Probe that tells when it must be restarted; None: only when it exits.
    startup_timeout
        Seconds within which it must become ready for the first time; otherwise it is restarted with that reason.
    memory_limit
        Maximum memory in bytes, with its children; if it uses more, it is killed with that reason. None: no limit.
    memory_request
        Expected memory in bytes; it isn't started while the machine has less available. None: not checked.
    cpus
        Number of CPUs, for scheduling; None: unlimited.
    grace
        Seconds between SIGTERM and SIGKILL.
    completes
        True for a job: exit status 0 is success, and it isn't started again.
    init
        Init containers in a cluster: they run before it in the same pod, each to its end, one after the other. They
        have the same model volume, and may write to it.
    pod
        Options that only a cluster uses.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    secret_env: Mapping[str, str] = field(default_factory=dict)
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup_timeout: float = 600.0
    memory_limit: int | None = None
    memory_request: int | None = None
    cpus: float | None = None
    grace: float = 10.0
    completes: bool = False
    init: tuple[ProcessTemplate, ...] = ()
    pod: PodOptions = field(default_factory=PodOptions)

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits that change when the process must be replaced.

        Secrets are part of it, but can't be recovered from it. For simplicity, requests and limits are part of it too,
        although they need no restart.
        """
        content = asdict(self)
        if not self.init and self.pod == PodOptions():  # so that hashes stay as they were before these fields existed
            del content["init"], content["pod"]
        text = json.dumps(content, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Role:
    """A number of identical processes: ``replica``, ``head``, ``worker``, ``fetch``."""

    name: str
    count: int
    template: ProcessTemplate


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    """A reference to a workload: kind, namespace and name of its resource, and a part of it.

    Attributes
    ----------
    uid
        The resource's uid, so that a reused name refers to another workload.
    part
        ``serve`` or ``fetch``: a resource may need several workloads.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    part: str = "serve"

    @property
    def id(self) -> str:
        """A short unique name that can be used in file names: name, part and a hash of all fields."""
        digest = hashlib.sha256("\0".join((self.kind, self.namespace, self.name, self.uid, self.part)).encode())
        return f"{self.name[:20]}-{self.part[:8]}-{digest.hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Workload:
    """The desired state: processes that should run."""

    ref: WorkloadRef
    roles: tuple[Role, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """The state of one process.

    Attributes
    ----------
    id
        An id that is unique within the workload's lifetime: role, index and a counter of starts.
    phase
        ``Starting`` until it is ready for the first time; ``Ready``; ``NotReady`` when its readiness probe fails
        after that; ``Waiting`` for the next start after a crash (or for free memory); ``Failed`` when a job has
        exited with an error; ``Succeeded`` when a job is done; ``Stopping``.
    endpoint
        ``unix:///path`` (percent-encoded), ``http://127.0.0.1:port``, or in a cluster ``http://POD_IP:8080``.
    template
        The hash of the template that it was started with.
    reason
        One word: ``OutOfMemory``, ``Crashed``, ``InsufficientMemory``, ``StartupTimeout``, ``Unhealthy``, ``NotFound``;
        in a cluster also ``InsufficientCPU``, ``InsufficientGPU``, ``Unschedulable``, ``QuotaExceeded``, ``Refused``,
        ``ImagePull``, ``Volume``, ``Initializing``, ``Evicted``, ``NodeLost``.
    message
        The reason as a sentence that says what to do.
    retry_at
        The time at which a waiting replica is started again.
    last_log_lines
        The last lines of its log if it failed; 20 at most.
    """

    id: str
    role: str
    index: int
    phase: Literal["Starting", "Ready", "NotReady", "Waiting", "Failed", "Succeeded", "Stopping"]
    endpoint: str | None = None
    template: str = ""
    pid: int | None = None
    started_at: datetime | None = None
    ready_at: datetime | None = None
    restarts: int = 0
    memory: int | None = None
    memory_limit: int | None = None
    exit_code: int | None = None
    reason: str = ""
    message: str = ""
    retry_at: datetime | None = None
    last_log_lines: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Observation:
    """The observed state of a workload.

    Attributes
    ----------
    replicas
        All processes, including those that are being replaced.
    updated
        True if number and templates of the processes match the desired state.
    """

    ref: WorkloadRef
    replicas: tuple[ReplicaState, ...]
    updated: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
