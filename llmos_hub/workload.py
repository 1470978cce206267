"""What a backend runs, free of where it runs: roles of processes.

A reconciler builds a `Workload` from a resource's spec by pure functions and hands it to a backend;
what is wrong with it in the world comes back as an `Observation`.
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
    """An HTTP GET that tells how a process is; any 2xx is good.

    Attributes
    ----------
    path
        Such as ``/health``.
    period
        Seconds between two.
    timeout
        Seconds one may take.
    failures
        How many in a row count.
    """

    path: str
    period: float = 1.0
    timeout: float = 5.0
    failures: int = 3


@dataclass(frozen=True, slots=True)
class PodOptions:
    """What only a cluster needs to know of a process; on one machine it is ignored.

    Attributes
    ----------
    image
        Which of the images that the backend's settings name: that of an engine (``llamacpp``, ``vllm``) or
        ``fetch``; empty: the default one.
    gpus
        GPUs that it gets for itself.
    gpu_type
        The kind of GPU, as nodes are labelled with it; empty: any.
    hosts
        Machines that one replica spans: over one, the first leads and the others work for it.
    overrides
        Merged into the pod's template strategically: ``{"spec": {"nodeSelector": {…}}}``.
    """

    image: str = ""
    gpus: int = 0
    gpu_type: str = ""
    hosts: int = 1
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)  # no slots: the hash is kept, since it is asked for again and again
class ProcessTemplate:
    """One process of a role.

    In `argv` and `env` values ``{socket}``, ``{port}``, ``{index}`` and ``{dir}`` (a directory of the replica's
    own) are filled in by the backend; other braces are left alone. A template that contains ``{port}`` gets
    a free loopback port and is reached there, otherwise it is reached at ``{socket}``. In a cluster both are
    port 8080 of the pod: ``{socket}`` becomes ``0.0.0.0:8080``.

    Attributes
    ----------
    argv
        Program and arguments; readable by everyone on the machine, so never a secret.
    env
        Variables beside the few (PATH, HOME, LANG, TMPDIR) that every process gets.
    secret_env
        Variables whose values must be written nowhere: not to a record, not to a log.
    readiness
        When it may get requests; None: as soon as it runs.
    liveness
        When it must be restarted; None: only when it exits.
    startup_timeout
        Seconds until it must have been ready once; then it is restarted, with that reason.
    memory_limit
        Bytes it and its children may use; over it, it is killed with the reason. None: no limit.
    memory_request
        Bytes it is expected to use: it isn't started while the machine has less. None: not checked.
    cpus
        CPUs it computes on, for scheduling; None: unlimited.
    grace
        Seconds between SIGTERM and SIGKILL.
    completes
        A job: exit 0 is success and it isn't started again.
    init
        What runs before it, in a cluster, in the same pod: each to its end, one after the other. They see the same
        model volume, and may write to it.
    pod
        What only a cluster needs to know.
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

        Secrets go in as a hash; requests and limits that need no restart count too, for simplicity.
        """
        content = asdict(self)
        if not self.init and self.pod == PodOptions():  # as it was before there were clusters
            del content["init"], content["pod"]
        text = json.dumps(content, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Role:
    """A number of equal processes: ``replica``, ``head``, ``worker``, ``fetch``."""

    name: str
    count: int
    template: ProcessTemplate


@dataclass(frozen=True, slots=True)
class WorkloadRef:
    """What a workload is called: the kind, namespace and name of its resource, and a part of it.

    Attributes
    ----------
    uid
        The resource's uid, so that a name used anew is another workload.
    part
        ``serve``, ``fetch``: a resource may need several workloads.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    part: str = "serve"

    @property
    def id(self) -> str:
        """A short unique name fit for files: part, name and a hash of all."""
        digest = hashlib.sha256("\0".join((self.kind, self.namespace, self.name, self.uid, self.part)).encode())
        return f"{self.name[:20]}-{self.part[:8]}-{digest.hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Workload:
    """What should run."""

    ref: WorkloadRef
    roles: tuple[Role, ...]
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """How one process is.

    Attributes
    ----------
    id
        Unique while the workload lives: role, index and a count of starts.
    phase
        ``Starting`` until ready once; ``Ready``; ``NotReady`` when its readiness probe fails after it was;
        ``Waiting`` for the next start after a crash (or for memory to come free); ``Failed`` when a job has
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
        The same as a sentence that says what to do.
    retry_at
        When a waiting one is started again.
    last_log_lines
        The last lines of its log, when it failed; 20 at most.
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
    """How a workload is.

    Attributes
    ----------
    replicas
        Every process there is, those being replaced included.
    updated
        Whether all of them are of the newest template and count.
    """

    ref: WorkloadRef
    replicas: tuple[ReplicaState, ...]
    updated: bool = True
    labels: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
