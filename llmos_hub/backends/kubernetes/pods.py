"""Pods of a workload's roles; pure functions."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from llmos.names import MODELS_CLAIM
from llmos_hub.backends.kubernetes.hardening import SCRATCH, container_security, harden, pod_security
from llmos_hub.backends.kubernetes.names import (
    container_name,
    make_metadata,
    make_selector,
    object_name,
    peers_name,
)
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.backends.kubernetes.strategic_merge import strategic_merge
from llmos_hub.names import KEY_MODELS
from llmos_hub.placeholders import fill
from llmos_hub.workload import Probe, ProcessTemplate, Role, Workload

__all__ = ["make_pod_template", "make_secret_data", "pod_specs", "uses_models"]

_TMP: Final = "/tmp"  # noqa: S108 - the pod's own
_MIB: Final = 2**20


def _init_name(index: int, template: ProcessTemplate) -> str:
    """Return the name of an init container: ``fetch``, or ``init-0`` and so on."""
    return template.pod.image if template.pod.image == "fetch" else f"init-{index}"


def _secret_key(role: Role, container: str, name: str) -> str:
    """Return the key of a variable's value in a workload's Secret."""
    return f"{role.name}.{container}.{name}"


def make_secret_data(workload: Workload) -> dict[str, str]:
    """Return the data of a workload's Secret, by `_secret_key`."""
    data = {}
    for role in workload.roles:
        for container, template in _processes(role):
            for name, value in template.secret_env.items():
                data[_secret_key(role, container, name)] = value
    return data


def pod_specs(obj: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the specs of the pods that an object creates: a Deployment, a Job or a LeaderWorkerSet."""
    spec = obj.get("spec") or {}
    leader = spec.get("leaderWorkerTemplate") or {}
    for template in (spec.get("template"), leader.get("leaderTemplate"), leader.get("workerTemplate")):
        if template:
            yield template["spec"]


def uses_models(role: Role, settings: KubernetesSettings) -> bool:
    """Return whether any of a role's processes refers to the model volume."""
    path = settings.models.mount_path
    return any(path in text for _, template in _processes(role) for text in (*template.argv, *template.env.values()))


def _processes(role: Role) -> Iterator[tuple[str, ProcessTemplate]]:
    yield container_name(role.name), role.template
    for index, template in enumerate(role.template.init):
        yield _init_name(index, template), template


def make_pod_template(workload: Workload, role: Role, settings: KubernetesSettings, index: str = "0") -> dict[str, Any]:
    """Return the pod template of a role, with the resource's overrides.

    Parameters
    ----------
    index
        The value of ``{index}``.
    """
    metadata = make_metadata(workload, settings, "", role)
    labels = metadata["labels"]
    template = role.template
    models = uses_models(role, settings)
    values = _make_values(workload, role, settings, index)
    make = partial(_make_container, workload=workload, role=role, settings=settings, values=values)
    main = make(container_name(role.name), template)
    main |= _make_probes(template, settings)
    ports = [*template.ports.items()] if template.completes else [("http", settings.port), *template.ports.items()]
    if ports:
        main["ports"] = [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in ports]
    if not template.completes:
        main["lifecycle"] = {"preStop": {"sleep": {"seconds": settings.drain}}}
    spec: dict[str, Any] = {
        "restartPolicy": "Never" if template.completes else "Always",
        "terminationGracePeriodSeconds": math.ceil(template.grace) + (0 if template.completes else settings.drain),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(settings),
        "containers": [main],
        "volumes": [*_make_volumes(role, settings, models=models)],
        "tolerations": _make_tolerations(role, settings),
    }
    inits = [make(_init_name(number, init), init) for number, init in enumerate(template.init)]
    spec |= {"initContainers": inits} if inits else {}
    spec |= _make_placement(workload, role, settings)
    if models and settings.models.storage_class is not None and settings.models.access_mode == "ReadWriteOnce":
        labels[KEY_MODELS] = settings.release
        spec["affinity"] = _make_same_machine(settings)
    pod = {"metadata": {"labels": labels}, "spec": spec}
    if template.pod.overrides:
        pod = harden(strategic_merge(pod, template.pod.overrides), pod, settings)
    return pod


# Containers


def _make_values(workload: Workload, role: Role, settings: KubernetesSettings, index: str) -> dict[str, str]:
    """Return the values of the placeholders in a role's processes."""
    values = {"socket": f"0.0.0.0:{settings.port}", "port": str(settings.port), "dir": _TMP, "index": index}
    values |= {f"port.{name}": str(number) for name, number in role.template.ports.items()}
    values |= {f"mount.{name}": mount.path for name, mount in role.template.mounts.items()}
    for other in workload.roles:
        values[f"{other.name}.address"] = f"{peers_name(workload.ref, other)}.{workload.ref.namespace}.svc"
        values |= {f"{other.name}.port.{name}": str(number) for name, number in other.template.ports.items()}
    return values


def _fill(text: str, values: Mapping[str, str]) -> str:
    """Return the text with placeholders filled in; ``$`` is doubled, since Kubernetes would expand ``$(NAME)``."""
    return fill(text.replace("$", "$$"), values)


def _make_container(
    name: str,
    template: ProcessTemplate,
    *,
    workload: Workload,
    role: Role,
    settings: KubernetesSettings,
    values: Mapping[str, str],
) -> dict[str, Any]:
    image = settings.image_for(template.pod.image)
    # this process's interpreter has another path in the image
    program = image.python if template.argv[0] == sys.executable else template.argv[0]
    env: list[dict[str, Any]] = [
        {"name": variable, "value": _fill(value, values)}
        for variable, value in ({"HOME": _TMP, "TMPDIR": _TMP} | dict(template.env)).items()
    ]
    secret = object_name(workload.ref)
    env += [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": _secret_key(role, name, variable)}}}
        for variable in template.secret_env
        if variable not in template.env
    ]
    mounts: list[dict[str, Any]] = [{"name": SCRATCH, "mountPath": _TMP}]
    if uses_models(role, settings):
        mount: dict[str, Any] = {"name": MODELS_CLAIM, "mountPath": settings.models.mount_path}
        serves = template is role.template and not template.completes
        mounts.append(mount | ({"readOnly": True} if serves else {}))
    for mount_name, mounted in role.template.mounts.items():
        mount = {"name": _mount_volume(mount_name), "mountPath": mounted.path}
        mounts.append(mount | ({"readOnly": True} if mounted.read_only else {}))
    if template.pod.gpus:
        mounts.append({"name": "shm", "mountPath": "/dev/shm"})  # noqa: S108 - the pod's own
    user = {"runAsUser": int(template.user)} if template.user.isdigit() and int(template.user) else {}
    container = {
        "name": name,
        "image": settings.image_name(image.image),
        "imagePullPolicy": settings.image_pull_policy,
        "command": [_fill(program, values)],
        "args": [_fill(argument, values) for argument in template.argv[1:]],
        "env": env,
        "volumeMounts": mounts,
        "securityContext": {
            **container_security(),
            "readOnlyRootFilesystem": image.read_only_root_filesystem,
            **user,
        },
        # after a crash, the pod's status contains the last lines of the log
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    resources = _make_resources(template, settings)
    return container | ({"resources": resources} if resources else {})


def _make_resources(template: ProcessTemplate, settings: KubernetesSettings) -> dict[str, Any]:
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    if template.cpus:
        requests["cpu"] = f"{math.ceil(template.cpus * 1000)}m"
    request, limit = template.memory_request, template.memory_limit
    if request is not None:
        requests["memory"] = _mebibytes(min(request, limit) if limit is not None else request)
    if limit is not None:
        limits["memory"] = _mebibytes(limit)
    if template.pod.gpus:
        requests[settings.gpu_resource] = limits[settings.gpu_resource] = str(template.pod.gpus)
    return {name: value for name, value in (("requests", requests), ("limits", limits)) if value}


def _mebibytes(count: int) -> str:
    return f"{math.ceil(count / _MIB)}Mi"


def _make_probe(probe: Probe, settings: KubernetesSettings, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": probe.path, "port": settings.port},
        "periodSeconds": max(1, round(probe.period)),
        "timeoutSeconds": max(1, round(probe.timeout)),
        "failureThreshold": failures,
    }


def _make_probes(template: ProcessTemplate, settings: KubernetesSettings) -> dict[str, Any]:
    probes = {}
    if template.readiness is not None:
        period = max(1, round(template.readiness.period))
        tries = max(1, math.ceil(template.startup_timeout / period))
        probes["startupProbe"] = _make_probe(template.readiness, settings, tries)
        probes["readinessProbe"] = _make_probe(template.readiness, settings, template.readiness.failures)
    if template.liveness is not None:
        probes["livenessProbe"] = _make_probe(template.liveness, settings, template.liveness.failures)
    return probes


# The pod


def _make_volumes(role: Role, settings: KubernetesSettings, *, models: bool) -> Iterator[dict[str, Any]]:
    yield {"name": SCRATCH, "emptyDir": {}}
    if models and settings.models.storage_class is not None:
        yield {"name": MODELS_CLAIM, "persistentVolumeClaim": {"claimName": MODELS_CLAIM}}
    elif models:
        yield {"name": MODELS_CLAIM, "emptyDir": {"sizeLimit": settings.models.size}}
    for name, mount in role.template.mounts.items():
        yield {"name": _mount_volume(name), "persistentVolumeClaim": {"claimName": mount.source}}
    if role.template.pod.gpus:
        yield {"name": "shm", "emptyDir": {"medium": "Memory"}}


def _mount_volume(name: str) -> str:
    return f"mount-{name}"


def _make_tolerations(role: Role, settings: KubernetesSettings) -> list[dict[str, Any]]:
    lost = [
        {
            "key": f"node.kubernetes.io/{state}",
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": settings.lost_node_after,
        }
        for state in ("not-ready", "unreachable")
    ]
    return [*settings.tolerations, *(settings.gpu_tolerations if role.template.pod.gpus else ()), *lost]


def _make_placement(workload: Workload, role: Role, settings: KubernetesSettings) -> dict[str, Any]:
    """Return the fields for scheduling: nodes, priority and spreading."""
    options = role.template.pod
    selector = dict(settings.node_selector)
    if options.gpus and options.gpu_type:
        selector[settings.gpu_type_label] = options.gpu_type
    placement: dict[str, Any] = {"nodeSelector": selector} if selector else {}
    if options.gpus and settings.gpu_runtime_class:
        placement["runtimeClassName"] = settings.gpu_runtime_class
    if settings.priority_class:
        placement["priorityClassName"] = settings.priority_class
    if settings.image_pull_secrets:
        placement["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if not role.template.completes:  # whatever the count: scaling must not change the pods
        placement["topologySpreadConstraints"] = [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": make_selector(workload.ref, role)},
                "matchLabelKeys": ["pod-template-hash"],
            }
        ]
    return placement


def _make_same_machine(settings: KubernetesSettings) -> dict[str, Any]:
    term = {
        "labelSelector": {"matchLabels": {KEY_MODELS: settings.release}},
        "topologyKey": "kubernetes.io/hostname",
    }
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
