"""Programs in a stand-in image, and an adapter with which the contract suite tests the Kubernetes backend."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from llmos_hub.backends.base import Report
from llmos_hub.backends.changes import Subscription
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.workload import Observation, PodOptions, Probe, ProcessTemplate, ReplicaState, Workload, WorkloadRef

IMAGE = "registry.local/busybox:1"
"""An image with a shell and a small web server; every test cluster of ours has it."""
HEALTH = Probe("/health", period=1.0, timeout=1.0, failures=2)
CLAIM = "data"
_SERVE = "echo ok > /tmp/health; trap 'exit 0' TERM; httpd -f -p {port} -h /tmp & wait"


def settings_for(release: str, **more: object) -> KubernetesSettings:
    """Return settings with the stand-in image."""
    data = {
        "release": release,
        "namespace": "default",
        "images": {"": {"image": IMAGE}},
        "drain": 0,
        "owned": False,
        **more,
    }
    return KubernetesSettings.model_validate(data)


def script(text: str, **fields: object) -> ProcessTemplate:
    """Return a template that runs a shell script."""
    return ProcessTemplate(("/bin/sh", "-c", text), **{"grace": 1.0, **fields})


def serving(name: str = "a", **fields: object) -> ProcessTemplate:
    """Return a template that becomes ready."""
    return script(_SERVE, **{"env": {"NAME": name}, "readiness": HEALTH, **fields})


HEAD = script(
    "cat /proc/sys/kernel/random/uuid > /tmp/name; echo I am $(cat /tmp/name); httpd -p {port.hub} -h /tmp; " + _SERVE,
    ports={"hub": 9000},
    readiness=HEALTH,
)
"""Writes its id, and answers with it at its port ``hub``."""
WORKER = script(
    r"""trap 'exit 0' TERM; mkdir -p /tmp/www; httpd -p {port} -h /tmp/www; last=
    while true; do
        at=$(nslookup -type=a {head.address}.cluster.local | sed -n '/^Name/,$s/^Address: //p' | head -n 1)
        now=$(printf 'GET /name HTTP/1.0\r\n\r\n' | nc -w 2 "$at" {head.port.hub} | tail -n 1)
        if [ -n "$now" ] && [ "$now" != "$last" ]; then echo "met $now"; last=$now; echo ok > /tmp/www/health; fi
        sleep 1
    done""",
    readiness=HEALTH,
)
"""Writes the id of each head that it finds, and is ready from the first on.

The image's programs are linked statically: they can't look up names, but for nslookup, which searches no domains.
"""


def with_pod(template: ProcessTemplate, **options: object) -> ProcessTemplate:
    """Return the template with options of its pod."""
    return replace(template, pod=PodOptions(**options))


class _Changes:
    def __init__(self, inner: Subscription, namespace: str) -> None:
        self._inner, self._namespace = inner, namespace

    def __aiter__(self) -> _Changes:
        return self

    async def __anext__(self) -> WorkloadRef:
        return replace(await anext(self._inner), namespace=self._namespace)


@dataclass
class Placed:
    """The backend with one namespace under another name, and with numbers in place of process ids.

    The suite compares process ids to find out whether the same process still runs. For a pod, a number made of pod,
    container and restart count serves for that.
    """

    backend: KubernetesBackend
    api: KubernetesAPI
    namespace: str
    called: str = "user-ada"
    closed: bool = field(default=False)

    def _there(self, ref: WorkloadRef) -> WorkloadRef:
        return replace(ref, namespace=self.namespace) if ref.namespace == self.called else ref

    def _here(self, ref: WorkloadRef) -> WorkloadRef:
        return replace(ref, namespace=self.called) if ref.namespace == self.namespace else ref

    async def start(self) -> None:
        await self.backend.start()

    async def apply(self, workload: Workload) -> None:
        await self.backend.apply(replace(workload, ref=self._there(workload.ref)))

    async def observe(self, ref: WorkloadRef) -> Observation | None:
        seen = await self.backend.observe(self._there(ref))
        if seen is None:
            return None
        return replace(seen, ref=self._here(seen.ref), replicas=tuple(map(_numbered, seen.replicas)))

    async def refs(self) -> Sequence[WorkloadRef]:
        return [self._here(ref) for ref in await self.backend.refs()]

    def logs(self, ref: WorkloadRef, **options: object) -> AsyncIterator[str]:
        return self.backend.logs(self._there(ref), **options)

    async def progress(self, ref: WorkloadRef, *, replica: str | None = None) -> Report:
        return await self.backend.progress(self._there(ref), replica=replica)

    async def delete(self, ref: WorkloadRef) -> None:
        await self.backend.delete(self._there(ref))

    def changes(self) -> _Changes:
        return _Changes(self.backend.changes(), self.called)

    async def close(self, *, stop: bool = False) -> None:
        if not self.closed:
            self.closed = True
            await self.backend.close(stop=stop)


def _numbered(state: ReplicaState) -> ReplicaState:
    if state.started_at is None or state.phase in {"Waiting", "Succeeded", "Failed"}:
        return state
    digest = hashlib.sha256(f"{state.id}/{state.restarts}/{state.started_at}".encode()).hexdigest()
    return replace(state, pid=int(digest[:8], 16))
