"""Workloads: the processes that a backend runs, described independently of the backend.

A reconciler builds a `Workload` from a resource's spec by pure functions and passes it to a backend; its actual
state, failures included, is returned as an `Observation`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, Literal

from llmos_hub.placeholders import find_names, find_roles

__all__ = [
    "Mount",
    "Observation",
    "PodOptions",
    "Probe",
    "ProcessTemplate",
    "ReplicaState",
    "Role",
    "Workload",
    "WorkloadRef",
    "start_order",
]

_OPERATORS: Final = ("", "ray", "dask")
_ROLE: Final = re.compile(r"[a-z](?:[a-z0-9-]{0,10}[a-z0-9])?")
"""Role names are parts of the names of a cluster's objects, of which 63 characters are allowed."""
_PORT: Final = re.compile(r"(?=.{1,15}$)[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
"""Names of ports as Kubernetes allows them (RFC 6335), but with a letter first."""
_RESERVED: Final = frozenset({"port", "mount"})
_ENGINE_PORT: Final = "http"
"""The name in a cluster of the port that ``{port}`` and ``{socket}`` stand for."""
_LATER: Final = ("ports", "mounts", "user")
"""Fields of a template that are not part of its hash while they are empty, so that older hashes are valid."""


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


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory outside the replica that a process uses.

    Attributes
    ----------
    source
        On a workstation the absolute path of a directory, which ``{mount.NAME}`` stands for; a symbolic link to it,
        ``NAME``, is in the replica's directory. In a cluster the name of a PersistentVolumeClaim in the namespace.
    path
        Absolute path at which a cluster mounts the claim, and which ``{mount.NAME}`` stands for there.
    read_only
        True to mount it read-only. On a workstation only the directory's own permissions protect it.
    """

    source: str
    path: str
    read_only: bool = False


@dataclass(frozen=True)  # no slots: the hash is cached, since it is used often
class ProcessTemplate:
    """One process of a role.

    In `argv` and values of `env`, the backend replaces placeholders; other braces are not changed.

    ``{index}``, ``{dir}``
        The replica's index and its own directory.
    ``{socket}``, ``{port}``
        The address of its server. A process whose template contains ``{port}`` gets a free loopback port and is
        reached there; otherwise it is reached at ``{socket}``. In a cluster both are port 8080 of the pod:
        ``{socket}`` becomes ``0.0.0.0:8080``.
    ``{port.NAME}``, ``{mount.NAME}``
        The number of one of its `ports`, and the path of one of its `mounts`.
    ``{ROLE.address}``, ``{ROLE.port.NAME}``
        The host and a port of the first replica of another role of the workload, or of its own. Both stay the same
        while replicas are restarted or replaced. In a cluster, the host of a role with several replicas stands for
        any of them.

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
    ports
        Ports that it listens on for other processes of the workload, by name, such as ``{"gcs": 6379}``: the number
        in a cluster. On a workstation each replica gets free loopback ports, keeps them while it is restarted or
        replaced, and is therefore stopped before its successor is started.
    mounts
        Directories outside the replica, by name.
    user
        Name or number of the operating system's user that it runs as on a workstation; empty: that of the platform,
        which only root can leave. In a cluster a number other than 0 is the container's user; a name is ignored.
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
    ports: Mapping[str, int] = field(default_factory=dict)
    mounts: Mapping[str, Mount] = field(default_factory=dict)
    user: str = ""

    @property
    def texts(self) -> Iterator[tuple[str, str]]:
        """The texts in which placeholders are replaced, each with its place, such as ``argv[2]``."""
        yield from ((f"argv[{index}]", text) for index, text in enumerate(self.argv))
        yield from ((f"env.{name}", text) for name, text in self.env.items())

    @property
    def peers(self) -> frozenset[str]:
        """The roles whose address or ports it needs."""
        return find_roles(text for _, text in self.texts)

    def content(self) -> dict[str, Any]:
        """Return its fields as data for JSON; without fields that have been added since, while they are empty."""
        content = _drop_empty(asdict(self))
        if not self.init and self.pod == PodOptions():
            del content["init"], content["pod"]
        return content

    @cached_property
    def hash(self) -> str:
        """Twelve hex digits that change when the process must be replaced.

        Secrets are part of it, but can't be recovered from it. For simplicity, requests and limits are part of it too,
        although they need no restart.
        """
        text = json.dumps(self.content(), sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Role:
    """A number of identical processes: ``replica``, ``head``, ``worker``, ``fetch``.

    Attributes
    ----------
    name
        Lowercase letters, digits and dashes; 12 characters at most.
    after
        Roles whose replicas must all be ready, or succeeded, before this one is started. When they are not ready later,
        replicas that run already are not stopped. When the workload is deleted, roles are stopped in the reverse order,
        each within the grace of its own template.
    """

    name: str
    count: int
    template: ProcessTemplate
    after: tuple[str, ...] = ()


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
    """The desired state: processes that should run.

    Attributes
    ----------
    operator
        The operator that runs the roles in a cluster: ``ray`` or ``dask``; empty: the backend itself. On a
        workstation it is ignored, and the roles are processes.

    Raises
    ------
    ValueError
        A name is invalid or used twice, a role starts after itself or an unknown one, a placeholder names an
        unknown role, port or mount, or the operator is unknown.
    """

    ref: WorkloadRef
    roles: tuple[Role, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    operator: str = ""

    def __post_init__(self) -> None:
        if self.operator not in _OPERATORS:
            raise ValueError(
                f'{self.ref.name}: there is no operator "{self.operator}", only {_listed(_OPERATORS[1:])}.'
            )
        for place, mistake in _find_mistakes(self.roles):
            raise ValueError(f"{self.ref.name}, {place}: {mistake}.")
        start_order({role.name: role.after for role in self.roles}, self.ref.name)

    @property
    def addressed(self) -> frozenset[str]:
        """The roles whose address or ports others need."""
        return frozenset().union(*(t.peers for role in self.roles for t in (role.template, *role.template.init)))


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
        ``Dependency`` (it is started after other roles), ``Volume``, ``Refused``; in a cluster also
        ``InsufficientCPU``, ``InsufficientGPU``, ``Unschedulable``, ``QuotaExceeded``, ``ImagePull``,
        ``Initializing``, ``Evicted``, ``NodeLost``.
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


def start_order(after: Mapping[str, Iterable[str]], name: str = "") -> list[tuple[str, ...]]:
    """Return roles in groups by the order of their start; those of a group are started together.

    Parameters
    ----------
    after
        The roles that must be ready before each role.
    name
        The name of the workload, for the error.

    Raises
    ------
    ValueError
        A role is started after itself, possibly by way of others.

    >>> start_order({"worker": ["head"], "head": [], "client": ["head", "worker"]})
    [('head',), ('worker',), ('client',)]
    """
    sorter = TopologicalSorter(after)
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"{name}: roles are started after each other: {' after '.join(error.args[1])}.") from None
    groups = []
    while sorter.is_active():
        groups.append(sorter.get_ready())
        sorter.done(*groups[-1])
    return groups


def _drop_empty(template: Mapping[str, Any]) -> dict[str, Any]:
    content = {name: value for name, value in template.items() if value or name not in _LATER}
    return {**content, "init": [_drop_empty(init) for init in template["init"]]}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _find_mistakes(roles: Sequence[Role]) -> Iterator[tuple[str, str]]:
    """Yield the mistakes in roles, each with its place."""
    by_name = {role.name: role for role in roles}
    if len(by_name) < len(roles):
        yield "roles", "two have the same name"
    for role in roles:
        if not _ROLE.fullmatch(role.name) or role.name in _RESERVED:
            yield (
                f'role "{role.name}"',
                f"a name has 12 lowercase letters, digits and dashes at most and isn't {_listed(_RESERVED)}",
            )
        for other in role.after:
            if other not in by_name:
                yield f"role {role.name}", f'it starts after "{other}", which is none of the roles {_listed(by_name)}'
        for place, mistake in _find_template_mistakes(role.template, by_name):
            yield f"role {role.name}, {place}", mistake
        for number, init in enumerate(role.template.init):
            if init.ports or init.mounts:
                yield f"role {role.name}, init[{number}]", "only the role's own template has ports and mounts"
            for place, text in init.texts:
                yield from (
                    (f"role {role.name}, init[{number}].{place}", mistake)
                    for mistake in _find_unknown(text, role.template, by_name)
                )


def _find_template_mistakes(template: ProcessTemplate, roles: Mapping[str, Role]) -> Iterator[tuple[str, str]]:
    for name, number in template.ports.items():
        if not _PORT.fullmatch(name) or name == _ENGINE_PORT:
            yield (
                f'port "{name}"',
                f"a name has 15 lowercase letters, digits and single dashes at most and isn't {_ENGINE_PORT}",
            )
        if not 0 < number < 2**16 or list(template.ports.values()).count(number) > 1:
            yield f"port {name}", f"{number} is not a number from 1 to 65535 of its own"
    for name, mount in template.mounts.items():
        if not _PORT.fullmatch(name):
            yield f'mount "{name}"', "a name has 15 lowercase letters, digits and single dashes at most"
        if not mount.path.startswith("/") or [m.path for m in template.mounts.values()].count(mount.path) > 1:
            yield f"mount {name}", f'"{mount.path}" is not an absolute path of its own'
    for place, text in template.texts:
        yield from ((place, mistake) for mistake in _find_unknown(text, template, roles))


def _find_unknown(text: str, template: ProcessTemplate, roles: Mapping[str, Role]) -> Iterator[str]:
    """Yield what placeholders name that doesn't exist."""
    for name in find_names(text):
        first, _, rest = name.partition(".")
        if first in _RESERVED:
            known: Mapping[str, Any] = template.ports if first == "port" else template.mounts
            if rest not in known:
                yield f"{{{name}}} names none of its {first}s ({_listed(known)})"
        elif first not in roles:
            yield f"{{{name}}} names none of the roles ({_listed(roles)})"
        elif rest != "address" and (port := rest.removeprefix("port.")) not in roles[first].template.ports:
            yield f'{{{name}}}: role {first} has no port "{port}" ({_listed(roles[first].template.ports)})'
