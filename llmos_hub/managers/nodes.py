"""The nodes: their capacity, free resources and workloads.

A workstation is one node. In a cluster the requests of pods count as used, since the
scheduler goes by them: a node with idle CPUs may be full.
"""

from __future__ import annotations

import asyncio
import os
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

from llmos.errors import Internal
from llmos.names import KEY_KIND, KEY_NAME, KEY_PART
from llmos.proc import machine_memory
from llmos.resources import KINDS, MAIN_KIND, Resource
from llmos.resources.node import Node, NodeList, NodeWork
from llmos.resources.quantities import parse_quantity
from llmos.resources.workload import Resources
from llmos_hub.engines.base import Machine
from llmos_hub.engines.llamacpp_build import find_build, gpu_summary
from llmos_hub.engines.machine import detect
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from llmos_hub.names import KEY_GPU_TYPE
from llmos_hub.policy import Ref, Rights
from llmos_hub.stores.base import Store

__all__ = ["KubernetesNodes", "LocalNodes", "Nodes", "largest_machine", "read_nodes", "visible_to"]

_REMEMBERED: Final = 3.0
"""Seconds for which an answer is cached: listing all pods puts load on the cluster."""
_ROLE_PREFIX: Final = "node-role.kubernetes.io/"
_GPU: Final = re.compile(r"[a-z0-9.-]+/(gpu|i915|xe|mig-.+|.*gpu.*)")
"""Extended resources that are GPUs: ``nvidia.com/gpu``, ``amd.com/gpu``, ``gpu.intel.com/i915``, ``nvidia.com/mig-1g.5gb``."""
_GPU_TYPE_LABELS: Final = (
    KEY_GPU_TYPE,
    "nvidia.com/gpu.product",
    "amd.com/gpu.product-name",
    "cloud.google.com/gke-accelerator",
)
_SYSTEM_NAMESPACES: Final = ("kube-system", "kube-public", "kube-node-lease")


class Nodes(Protocol):
    """A reader of the nodes."""

    async def all(self) -> Sequence[Node]:
        """Return all nodes sorted by name, with all their workloads."""
        ...


def visible_to(rights: Rights, nodes: Iterable[Node]) -> NodeList:
    """Return the nodes as the caller may see them: all with their usage, but only workloads that they may list."""

    def listed(work: NodeWork) -> bool:
        return rights.may("list", Ref(KINDS.get(work.kind, MAIN_KIND), work.namespace, work.name))

    return NodeList(
        items=[node.model_copy(update={"running": [w for w in node.running if listed(w)]}) for node in nodes]
    )


# A workstation


class LocalNodes:
    """The machine this process runs on, as the only node.

    Parameters
    ----------
    store
        The store of resources.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def all(self) -> Sequence[Node]:
        """Return the only node."""
        machine = await asyncio.to_thread(detect)
        gpus_used = gpu_summary(machine.gpus, await asyncio.to_thread(find_build)) if machine.gpus else ""
        kinds = [kind for kind in KINDS.values() if kind.has_logs]
        resources = [resource for kind in kinds for resource in (await self._store.list(kind)).items]
        running = [work for resource in resources if (work := _local_work(resource)) is not None]
        gpus = sum(work.gpus for work in running)
        return [
            Node(
                name=platform.node() or "localhost",
                roles=["workstation"],
                message=f"{gpus_used}." if gpus_used else "",
                architecture={"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine()),
                cpus=float(machine.cpus),
                cpus_free=round(max(0.0, machine.cpus - os.getloadavg()[0]), 1),
                memory=machine.memory,
                memory_free=min(machine.memory, machine_memory().available),
                gpus=len(machine.gpus),
                gpus_free=max(0, len(machine.gpus) - gpus),
                gpu_type=", ".join(sorted(set(machine.gpus))),
                counts=dict(Counter(work.kind for work in running)),
                running=running,
            )
        ]


def _local_work(resource: Resource) -> NodeWork | None:
    """Return the workload of a resource with its usage; None if it has no processes."""
    usage = resource.usage()
    if usage is None:
        return None
    meta = resource.metadata
    return NodeWork(
        kind=resource.kind,
        namespace=meta.namespace or "",
        name=meta.name,
        cpus=usage.cpus,
        memory=usage.memory,
        gpus=usage.gpus,
    )


# A cluster


class KubernetesNodes:
    """The nodes of a cluster.

    Parameters
    ----------
    api
        The connection to the cluster. Not closed here.
    release
        The release's namespace: its pods count as the system's.
    clock
        A monotonic clock in seconds.
    """

    def __init__(self, api: KubernetesAPI, release: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._release = release
        self._clock = clock
        self._asking = asyncio.Lock()
        self._known: Sequence[Node] = ()
        self._known_at = float("-inf")

    async def all(self) -> Sequence[Node]:
        """Return all nodes, at most a few seconds old.

        Raises
        ------
        Unavailable
            The cluster does not answer.
        Internal
            The cluster refuses.
        """
        async with self._asking:
            if self._clock() >= self._known_at + _REMEMBERED:
                running = {"fieldSelector": "status.phase!=Succeeded,status.phase!=Failed"}
                nodes, pods = await self._list("nodes"), await self._list("pods", running)
                self._known, self._known_at = read_nodes(nodes, pods, self._release), self._clock()
            return self._known

    async def _list(self, plural: str, params: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        try:
            pages = self._api.list_pages(path_of("v1", plural), params=params)
            return [item async for page in pages for item in page["items"]]
        except APIError as error:
            raise Internal(
                f"The cluster refuses to list {plural}: {error.message}. Does the service account have the chart's role?"
            ) from None


def read_nodes(nodes: Iterable[Mapping[str, Any]], pods: Iterable[Mapping[str, Any]], release: str) -> list[Node]:
    """Return the nodes from the objects of a cluster.

    Parameters
    ----------
    nodes, pods
        As the API server lists them; pods that have ended are ignored.
    release
        The release's namespace.
    """
    on: dict[str, list[NodeWork]] = {}
    for pod in pods:
        node = pod["spec"].get("nodeName")
        if node and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            on.setdefault(node, []).append(_work(pod, release))
    return sorted((_node(obj, on.get(obj["metadata"]["name"], [])) for obj in nodes), key=lambda node: node.name)


def _node(obj: Mapping[str, Any], running: list[NodeWork]) -> Node:
    labels: Mapping[str, str] = obj["metadata"].get("labels") or {}
    status = obj.get("status") or {}
    room: Mapping[str, str] = status.get("allocatable") or {}
    cpus, memory, gpus = _amount(room.get("cpu")), int(_amount(room.get("memory"))), _gpus(room)
    roles = [key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX)]
    message = _why_not_ready(obj)
    return Node(
        name=obj["metadata"]["name"],
        roles=sorted(roles) or ["worker"],
        ready=not message,
        message=message or _pressure(status),
        architecture=labels.get("kubernetes.io/arch", ""),
        cpus=cpus,
        cpus_free=round(max(0.0, cpus - sum(work.cpus for work in running)), 3),
        memory=memory,
        memory_free=max(0, memory - sum(work.memory for work in running)),
        gpus=gpus,
        gpus_free=max(0, gpus - sum(work.gpus for work in running)),
        gpu_type=next((labels[label] for label in _GPU_TYPE_LABELS if label in labels), "") if gpus else "",
        counts=dict(sorted(Counter(work.kind for work in running).items())),
        running=sorted(running, key=lambda work: (work.kind, work.namespace, work.name)),
    )


def _why_not_ready(obj: Mapping[str, Any]) -> str:
    conditions = {c["type"]: c for c in (obj.get("status") or {}).get("conditions") or ()}
    ready = conditions.get("Ready", {})
    if ready.get("status") != "True":
        why = ready.get("message") or ready.get("reason") or "it has not reported yet"
        return f"Not ready: {why}"
    if (obj.get("spec") or {}).get("unschedulable"):
        return "Cordoned: no new pods are scheduled there until it is uncordoned."
    return ""


def _pressure(status: Mapping[str, Any]) -> str:
    short = {"MemoryPressure": "memory", "DiskPressure": "disk space", "PIDPressure": "process ids"}
    found = [
        short[c["type"]] for c in status.get("conditions") or () if c["type"] in short and c.get("status") == "True"
    ]
    return f"Short of {' and '.join(found)}: pods may be evicted." if found else ""


def _work(pod: Mapping[str, Any], release: str) -> NodeWork:
    meta, labels = pod["metadata"], pod["metadata"].get("labels") or {}
    kind, name = _kind(meta["namespace"], labels, release), labels.get(KEY_NAME) or meta["name"]
    asked = _asked(pod["spec"])
    return NodeWork(
        kind=kind,
        namespace=meta["namespace"],
        name=name,
        cpus=round(_amount(asked.get("cpu")), 3),
        memory=int(_amount(asked.get("memory"))),
        gpus=_gpus(asked),
    )


def _kind(namespace: str, labels: Mapping[str, str], release: str) -> str:
    if KEY_KIND in labels:
        return "Download" if labels.get(KEY_PART) == "fetch" else labels[KEY_KIND]
    if labels.get("component") == "singleuser-server":  # KubeSpawner's, in every version
        return "Server"
    return "System" if namespace in (release, *_SYSTEM_NAMESPACES) else "Other"


def _asked(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return a pod's requests: the sum over its containers, or the largest init container's if that is more.

    See https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers;
    init containers that keep running (sidecars) count with the containers.
    """
    total: dict[str, float] = {}
    peak: dict[str, float] = {}
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for key, amount in _requests(container).items():
            total[key] = total.get(key, 0.0) + amount
    for container in spec.get("initContainers") or ():
        for key, amount in _requests(container).items():
            peak[key] = max(peak.get(key, 0.0), amount)
    overhead = {key: _amount(text) for key, text in (spec.get("overhead") or {}).items()}
    keys = {*total, *peak, *overhead}
    sums = {key: max(total.get(key, 0.0), peak.get(key, 0.0)) + overhead.get(key, 0.0) for key in keys}
    return {key: repr(amount) for key, amount in sums.items()}


def _requests(container: Mapping[str, Any]) -> dict[str, float]:
    resources = container.get("resources") or {}
    # without a request the limit is the request
    asked = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return {key: _amount(text) for key, text in asked.items()}


def _gpus(amounts: Mapping[str, str]) -> int:
    return round(sum(_amount(text) for key, text in amounts.items() if _GPU.fullmatch(key)))


def _amount(text: Any) -> float:
    """Return the value of a quantity in any notation of the API server; 0 for none."""
    if text in (None, ""):
        return 0.0
    try:
        return float(parse_quantity(str(text)))
    except ValueError:
        pass
    try:
        return float(text)  # 1e9
    except (TypeError, ValueError):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(n|u|E|Ei)", str(text))
        return float(found[1]) * {"n": 1e-9, "u": 1e-6, "E": 1e18, "Ei": 2.0**60}[found[2]] if found else 0.0


def largest_machine(nodes: Iterable[Node], resources: Resources) -> Machine | None:
    """Return the largest machine that one node could give to a process; None if no node fits.

    A pod without a GPU request sees none. Nodes that are not ready count: they may come back, and a workload that needs
    one should report that it waits, not that no node exists.

    Parameters
    ----------
    nodes
        All nodes.
    resources
        The number and type of GPUs that it needs.
    """
    wanted = resources
    fitting = [
        node
        for node in nodes
        if node.gpus >= wanted.gpus and (not wanted.gpus or wanted.gpu_type in (None, node.gpu_type))
    ]
    if not fitting:
        return None
    best = max(fitting, key=lambda node: (node.memory, node.cpus))
    gpus = (best.gpu_type or "GPU",) * best.gpus if wanted.gpus else ()
    return Machine(cpus=max(1, int(best.cpus)), memory=best.memory, gpus=gpus)
