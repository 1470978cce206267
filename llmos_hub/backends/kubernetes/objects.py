"""The objects that make a workload, as they are applied; pure functions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

from llmos_hub.backends.kubernetes.names import (
    APPLIED,
    LABELS,
    MANAGED_BY,
    PART_OF,
    digest,
    make_metadata,
    make_selector,
    object_name,
)
from llmos_hub.backends.kubernetes.pods import MODEL_CLAIM, make_pod_template, make_secret_data, uses_models
from llmos_hub.backends.kubernetes.quotas import state_limits
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.kubernetes_api import path_of
from llmos_hub.names import METADATA_SERVICES
from llmos_hub.workload import Role, Workload

__all__ = [
    "KINDS",
    "Kind",
    "keep_images",
    "labels_of",
    "make_deployment",
    "make_job",
    "make_leader_worker_set",
    "make_network_policy",
    "make_objects",
    "make_pdb",
    "make_pvc",
    "make_secret",
    "make_service",
    "needs_claim",
    "path_of_object",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and where its objects are in the API."""

    api_version: str
    kind: str
    plural: str


_SECRET: Final = Kind("v1", "Secret", "secrets")
_SERVICE: Final = Kind("v1", "Service", "services")
_NETWORK_POLICY: Final = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
_PDB: Final = Kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets")
_DEPLOYMENT: Final = Kind("apps/v1", "Deployment", "deployments")
_JOB: Final = Kind("batch/v1", "Job", "jobs")
_LEADER_WORKER_SET: Final = Kind("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "leaderworkersets")
_CLAIM: Final = Kind("v1", "PersistentVolumeClaim", "persistentvolumeclaims")

KINDS: Final[Mapping[str, Kind]] = {
    kind.kind: kind
    for kind in (_SECRET, _SERVICE, _NETWORK_POLICY, _PDB, _DEPLOYMENT, _JOB, _LEADER_WORKER_SET, _CLAIM)
}


def path_of_object(obj: Mapping[str, Any]) -> str:
    """Where an object is in the API."""
    kind, meta = KINDS[obj["kind"]], obj["metadata"]
    return path_of(kind.api_version, kind.plural, meta["namespace"], meta["name"])


def _object(kind: Kind, metadata: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": dict(metadata), **fields}


def make_objects(
    workload: Workload, settings: KubernetesSettings, demands: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """Everything that a workload consists of, in the order in which it is applied, but for the namespace's claim.

    Parameters
    ----------
    demands
        What the namespace's quota wants containers to state; `llmos_hub.backends.kubernetes.quotas.Demands`.
    """
    return [_stamped(state_limits(obj, demands)) for obj in _make_objects(workload, settings)]


def _make_objects(workload: Workload, settings: KubernetesSettings) -> Iterator[dict[str, Any]]:
    if make_secret_data(workload):
        yield make_secret(workload, settings)
    if settings.network_policies and workload.roles:
        yield make_network_policy(workload, settings)
    serving = [role for role in workload.roles if not role.template.completes]
    if serving:
        yield make_service(workload, settings)
    for role in serving:
        if role.count > 1:
            yield make_pdb(workload, role, settings)
    led = [role for role in serving if role.template.pod.hosts > 1]
    for role in workload.roles:
        if role in led:
            yield make_leader_worker_set(workload, role, settings)
        elif role.template.completes:
            if role.count:
                yield make_job(workload, role, settings)
        elif not (led and role.name == "worker"):  # those are their leader's
            yield make_deployment(workload, role, settings)


def _stamped(obj: dict[str, Any]) -> dict[str, Any]:
    """The object with a hash of itself, by which it is known that there is nothing to apply."""
    metadata = obj["metadata"]
    stamp = {APPLIED: digest(obj)}
    return {**obj, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **stamp}}}


def keep_images(deployment: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, Any]:
    """A Deployment whose containers run from these images, by their names, in place of the settings'."""
    template = deployment["spec"]["template"]
    pod = dict(template["spec"])
    for part in ("initContainers", "containers"):
        if part in pod:
            pod[part] = [{**c, "image": images.get(c["name"], c["image"])} for c in pod[part]]
    spec = {**deployment["spec"], "template": {**template, "spec": pod}}
    metadata = dict(deployment["metadata"])
    metadata["annotations"] = {name: v for name, v in metadata.get("annotations", {}).items() if name != APPLIED}
    return _stamped({**deployment, "metadata": metadata, "spec": spec})


# What runs


def make_deployment(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Equal pods that serve: one new one is ready before an old one goes."""
    return _object(
        _DEPLOYMENT,
        make_metadata(workload, settings, object_name(workload.ref, role), role),
        spec={
            "replicas": role.count,
            "revisionHistoryLimit": 2,
            "selector": {"matchLabels": make_selector(workload.ref, role)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": make_pod_template(workload, role, settings),
        },
    )


def make_job(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Pods that run to their end once; another template is another Job.

    A pod that fell victim to a drained or lost machine is made again, one that failed isn't.
    """
    name = object_name(workload.ref, role, role.template.hash[:8])
    template = make_pod_template(workload, role, settings, index="$(JOB_COMPLETION_INDEX)")
    return _object(
        _JOB,
        make_metadata(workload, settings, name, role),
        spec={
            "completionMode": "Indexed",
            "completions": role.count,
            "parallelism": role.count,
            "backoffLimit": 0,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": template,
        },
    )


def make_leader_worker_set(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Replicas that span several machines: a leader that answers, and workers of which all start anew when one fails.

    The leader's process is the role's; the workers' that of the role ``worker``, where there is one. They find
    each other by ``LWS_LEADER_ADDRESS`` and ``{index}``.
    Source: https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/
    """
    worker = next((other for other in workload.roles if other.name == "worker"), role)
    index = "$(LWS_WORKER_INDEX)"
    return _object(
        _LEADER_WORKER_SET,
        make_metadata(workload, settings, object_name(workload.ref, role), role),
        spec={
            "replicas": role.count,
            "rolloutStrategy": {
                "type": "RollingUpdate",
                "rollingUpdateConfiguration": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "leaderWorkerTemplate": {
                "size": role.template.pod.hosts,
                "restartPolicy": "RecreateGroupOnPodRestart",
                "leaderTemplate": make_pod_template(workload, role, settings, index),
                "workerTemplate": make_pod_template(workload, worker, settings, index),
            },
        },
    )


# What belongs to it


def make_service(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    """A name for the pods that are ready, without an address of its own: gateways choose among them themselves."""
    answering = next(role for role in workload.roles if not role.template.completes)
    return _object(
        _SERVICE,
        make_metadata(workload, settings, object_name(workload.ref)),
        spec={
            "clusterIP": "None",
            "selector": make_selector(workload.ref, answering),
            "ports": [{"name": "http", "port": settings.port, "targetPort": settings.port, "protocol": "TCP"}],
        },
    )


def make_pdb(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Of several pods only one is taken away at a time when machines are drained."""
    return _object(
        _PDB,
        make_metadata(workload, settings, object_name(workload.ref, role)),
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": make_selector(workload.ref, role)},
        },
    )


def make_network_policy(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    """Only the release's gateways reach the engine's port, and a workload's pods each other."""
    gateway = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}},
    }
    own = {"podSelector": {"matchLabels": make_selector(workload.ref)}}
    pods = sum(role.count * role.template.pod.hosts for role in workload.roles)
    together = len(workload.roles) > 1 or any(role.template.pod.hosts > 1 for role in workload.roles)
    ingress: list[dict[str, Any]] = []
    if any(not role.template.completes for role in workload.roles):
        ingress.append({"from": [gateway], "ports": [{"port": settings.port, "protocol": "TCP"}]})
    egress = [*_make_egress(settings)]
    if together and pods:
        ingress.append({"from": [own]})
        egress.append({"to": [own]})
    return _object(
        _NETWORK_POLICY,
        make_metadata(workload, settings, object_name(workload.ref)),
        spec={
            "podSelector": {"matchLabels": make_selector(workload.ref)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    )


def _make_egress(settings: KubernetesSettings) -> Iterator[dict[str, Any]]:
    yield {
        "to": [
            {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}],
    }
    blocks = [{"ipBlock": _make_block(cidr, settings)} for cidr in settings.egress.cidrs]
    if blocks and settings.egress.enabled:
        yield {"to": blocks}
    yield from settings.egress.also


def _make_block(cidr: str, settings: KubernetesSettings) -> dict[str, Any]:
    """A range without what must not be reached in it; the cloud's metadata service never is."""
    whole = ip_network(cidr)
    but = dict.fromkeys((*settings.egress.except_cidrs, *METADATA_SERVICES))
    inside = [each for each in but if _is_inside(ip_network(each), whole)]
    return {"cidr": cidr} | ({"except": inside} if inside else {})


def _is_inside(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    """Whether it is a part of it and less than all of it, as NetworkPolicy wants exceptions to be."""
    return part.version == whole.version and part != whole and part.subnet_of(whole)  # type: ignore[arg-type]


def make_secret(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    """The values of variables that are written nowhere else."""
    data = make_secret_data(workload)
    return _object(
        _SECRET,
        make_metadata(workload, settings, object_name(workload.ref)),
        type="llmos.ai/environment",
        data={name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    )


def make_pvc(namespace: str, settings: KubernetesSettings) -> dict[str, Any]:
    """The claim for a namespace's model files; nobody owns it, since what was downloaded is used again."""
    return _object(
        _CLAIM,
        {
            "name": MODEL_CLAIM,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/name": MODEL_CLAIM, PART_OF: settings.release, MANAGED_BY: "llmos"},
        },
        spec={
            "accessModes": [settings.models.access_mode],
            "storageClassName": settings.models.storage_class,
            "resources": {"requests": {"storage": settings.models.size}},
        },
    )


def needs_claim(workload: Workload, settings: KubernetesSettings) -> bool:
    """Whether the workload's pods mount the namespace's claim."""
    return settings.models.storage_class is not None and any(uses_models(role, settings) for role in workload.roles)


def labels_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The workload's labels, as an object of one of its roles tells them."""
    try:
        labels = json.loads((metadata.get("annotations") or {}).get(LABELS, "{}"))
    except ValueError:
        return {}
    return labels if isinstance(labels, dict) else {}
