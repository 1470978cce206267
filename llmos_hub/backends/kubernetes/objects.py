"""The objects of a workload, as they are applied; pure functions."""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Final

from llmos.names import KEY_MANAGED_BY, MODELS_CLAIM
from llmos_hub.backends.kubernetes.names import (
    digest,
    make_metadata,
    make_selector,
    object_name,
    peers_name,
)
from llmos_hub.backends.kubernetes.pods import make_pod_template, make_secret_data, uses_models
from llmos_hub.backends.kubernetes.quotas import state_limits
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.kubernetes.connection import path_of
from llmos_hub.names import KEY_APP, KEY_APPLIED, KEY_COMPONENT, KEY_LABELS, KEY_PART_OF, METADATA_SERVICES
from llmos_hub.workload import Role, Workload

__all__ = [
    "KINDS",
    "keep_images",
    "labels_of",
    "make_objects",
    "make_pvc",
    "needs_claim",
    "path_of_kind",
    "path_of_object",
]


KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "Secret": ("v1", "secrets"),
    "Service": ("v1", "services"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    "PodDisruptionBudget": ("policy/v1", "poddisruptionbudgets"),
    "Deployment": ("apps/v1", "deployments"),
    "Job": ("batch/v1", "jobs"),
    "LeaderWorkerSet": ("leaderworkerset.x-k8s.io/v1", "leaderworkersets"),
    "PersistentVolumeClaim": ("v1", "persistentvolumeclaims"),
}
"""API version and plural of each kind of object."""


def path_of_kind(kind: str, namespace: str | None = None, name: str = "") -> str:
    """Return the path of an object in the API, or of all objects of its kind."""
    version, plural = KINDS[kind]
    return path_of(version, plural, namespace, name)


def path_of_object(obj: Mapping[str, Any]) -> str:
    """Return the path of an object in the API."""
    meta = obj["metadata"]
    return path_of_kind(obj["kind"], meta["namespace"], meta["name"])


def _object(kind: str, metadata: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    return {"apiVersion": KINDS[kind][0], "kind": kind, "metadata": dict(metadata), **fields}


def make_objects(
    workload: Workload, settings: KubernetesSettings, demands: frozenset[str] = frozenset()
) -> list[dict[str, Any]]:
    """Return all objects of a workload in the order of applying, except the namespace's volume claim.

    Parameters
    ----------
    demands
        The resources that containers must state because of a quota; see `llmos_hub.backends.kubernetes.quotas.Demands`.
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
    addressed = workload.addressed
    for role in workload.roles:
        if role.name in addressed:
            yield make_peers_service(workload, role, settings)
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
        elif not (led and role.name == "worker"):  # workers belong to the LeaderWorkerSet
            yield make_deployment(workload, role, settings)


def _stamped(obj: dict[str, Any]) -> dict[str, Any]:
    """Return the object with its own hash as an annotation, to detect that nothing needs to be applied."""
    metadata = obj["metadata"]
    stamp = {KEY_APPLIED: digest(obj)}
    return {**obj, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **stamp}}}


def keep_images(deployment: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, Any]:
    """Return a Deployment with these images, by container name, instead of the settings'."""
    template = deployment["spec"]["template"]
    pod = dict(template["spec"])
    for part in ("initContainers", "containers"):
        if part in pod:
            pod[part] = [{**c, "image": images.get(c["name"], c["image"])} for c in pod[part]]
    spec = {**deployment["spec"], "template": {**template, "spec": pod}}
    metadata = dict(deployment["metadata"])
    metadata["annotations"] = {name: v for name, v in metadata.get("annotations", {}).items() if name != KEY_APPLIED}
    return _stamped({**deployment, "metadata": metadata, "spec": spec})


# Objects that run pods


def make_deployment(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the Deployment of equal serving pods; on an update, a new one is ready before an old one ends."""
    return _object(
        "Deployment",
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
    """Return the Job of pods that run once; another template makes another Job.

    A pod ended by a disruption, such as a drained or lost node, is replaced; one that failed isn't.
    """
    name = object_name(workload.ref, role, role.template.hash[:8])
    template = make_pod_template(workload, role, settings, index="$(JOB_COMPLETION_INDEX)")
    return _object(
        "Job",
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
    """Return the LeaderWorkerSet of replicas that span several nodes; a group is recreated when one of its pods fails.

    The leader runs the role's process; workers run that of the role ``worker``, if there is one. They find
    each other by ``LWS_LEADER_ADDRESS`` and ``{index}``.
    Source: https://lws.sigs.k8s.io/docs/reference/leaderworkerset.v1/
    """
    worker = next((other for other in workload.roles if other.name == "worker"), role)
    index = "$(LWS_WORKER_INDEX)"
    return _object(
        "LeaderWorkerSet",
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


# Related objects


def make_service(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the headless Service of the ready pods: gateways choose among them themselves."""
    answering = next(role for role in workload.roles if not role.template.completes)
    return _object(
        "Service",
        make_metadata(workload, settings, object_name(workload.ref)),
        spec={
            "clusterIP": "None",
            "selector": make_selector(workload.ref, answering),
            "ports": [{"name": "http", "port": settings.port, "targetPort": settings.port, "protocol": "TCP"}],
        },
    )


def make_peers_service(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the headless Service that gives a role's pods a name in the DNS for the workload's other pods.

    Pods have it before they are ready: they may need their own name to become so, and a name that disappeared during
    a restart would be remembered as unknown by resolvers.
    """
    ports = [
        {"name": name, "port": number, "targetPort": number, "protocol": "TCP"}
        for name, number in role.template.ports.items()
    ]
    return _object(
        "Service",
        make_metadata(workload, settings, peers_name(workload.ref, role)),
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": make_selector(workload.ref, role),
            **({"ports": ports} if ports else {}),
        },
    )


def make_pdb(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the PodDisruptionBudget that lets a drain evict only one of several pods at a time."""
    return _object(
        "PodDisruptionBudget",
        make_metadata(workload, settings, object_name(workload.ref, role)),
        spec={
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": make_selector(workload.ref, role)},
        },
    )


def make_network_policy(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the NetworkPolicy: only gateways reach the engine's port, and the pods of one workload each other."""
    gateway = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": settings.namespace}},
        "podSelector": {"matchLabels": {KEY_COMPONENT: "gateway"}},
    }
    own = {"podSelector": {"matchLabels": make_selector(workload.ref)}}
    pods = sum(role.count * role.template.pod.hosts for role in workload.roles)
    together = (
        len(workload.roles) > 1
        or bool(workload.addressed)
        or any(role.template.pod.hosts > 1 for role in workload.roles)
    )
    ingress: list[dict[str, Any]] = []
    if any(not role.template.completes for role in workload.roles):
        ingress.append({"from": [gateway], "ports": [{"port": settings.port, "protocol": "TCP"}]})
    egress = [*_make_egress(settings)]
    if together and pods:
        ingress.append({"from": [own]})
        egress.append({"to": [own]})
    return _object(
        "NetworkPolicy",
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
    excluded = (*settings.egress.except_cidrs, *METADATA_SERVICES)  # the latter give out a node's credentials
    blocks = [{"ipBlock": _make_block(cidr, excluded)} for cidr in settings.egress.cidrs]
    if blocks and settings.egress.enabled:
        yield {"to": blocks}
    yield from settings.egress.also


def _make_block(cidr: str, excluded: tuple[str, ...]) -> dict[str, Any]:
    """Return a range without the excluded addresses in it."""
    inside = _find_inside(cidr, excluded)
    return {"cidr": cidr} | ({"except": list(inside)} if inside else {})


@functools.lru_cache
def _find_inside(cidr: str, excluded: tuple[str, ...]) -> tuple[str, ...]:
    """Return the excluded ranges that are parts of a range; cached, since all workloads have the same ranges."""
    whole = ip_network(cidr)
    return tuple(each for each in dict.fromkeys(excluded) if _is_inside(ip_network(each), whole))


def _is_inside(part: IPv4Network | IPv6Network, whole: IPv4Network | IPv6Network) -> bool:
    """Return whether `part` is a proper part of `whole`, as NetworkPolicy requires of exceptions."""
    return part.version == whole.version and part != whole and part.subnet_of(whole)  # type: ignore[arg-type]


def make_secret(workload: Workload, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the Secret with the values of secret variables, which no other object contains."""
    data = make_secret_data(workload)
    return _object(
        "Secret",
        make_metadata(workload, settings, object_name(workload.ref)),
        type="llmos.ai/environment",
        data={name: base64.b64encode(value.encode()).decode() for name, value in data.items()},
    )


def make_pvc(namespace: str, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the claim for a namespace's model files; it has no owner, so that downloads can be used again."""
    return _object(
        "PersistentVolumeClaim",
        {
            "name": MODELS_CLAIM,
            "namespace": namespace,
            "labels": {KEY_APP: MODELS_CLAIM, KEY_PART_OF: settings.release, KEY_MANAGED_BY: "llmos"},
        },
        spec={
            "accessModes": [settings.models.access_mode],
            "storageClassName": settings.models.storage_class,
            "resources": {"requests": {"storage": settings.models.size}},
        },
    )


def needs_claim(workload: Workload, settings: KubernetesSettings) -> bool:
    """Return whether the workload's pods mount the namespace's claim."""
    return settings.models.storage_class is not None and any(uses_models(role, settings) for role in workload.roles)


def labels_of(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Return the workload's labels, from an annotation of an object of one of its roles."""
    try:
        labels = json.loads((metadata.get("annotations") or {}).get(KEY_LABELS, "{}"))
    except ValueError:
        return {}
    return labels if isinstance(labels, dict) else {}
