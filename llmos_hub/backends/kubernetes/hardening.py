"""Security settings of workloads' pods that a resource can't change; pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llmos_hub.backends.kubernetes.settings import KubernetesSettings

__all__ = ["SCRATCH", "container_security", "harden", "pod_security"]

SCRATCH: Final = "scratch"
"""The volume for a pod's home directory and /tmp."""
_PRIVATE: Final = "fetch-scratch"
"""The separate volume for our own init containers, in pods with other containers or volumes."""


def pod_security(settings: KubernetesSettings) -> dict[str, Any]:
    """Return the security context of pods."""
    return {
        "runAsNonRoot": True,
        "runAsUser": settings.run_as,
        "runAsGroup": settings.run_as,
        "fsGroup": settings.run_as,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """Return the security context of containers."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def harden(merged: dict[str, Any], ours: Mapping[str, Any], settings: KubernetesSettings) -> dict[str, Any]:
    """Return the merged pod with the settings that overrides must not change.

    Overrides are validated when a resource is created; this also covers fields removed by ``$patch``.
    """
    metadata = merged.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **ours["metadata"]["labels"]}
    spec = merged.setdefault("spec", {})
    for name in ("automountServiceAccountToken", "enableServiceLinks", "restartPolicy"):
        spec[name] = ours["spec"][name]
    for name in (
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "hostUsers",
        "serviceAccountName",
        "nodeName",
        "shareProcessNamespace",
        # host names must not be redirected: `fetch` sends passwords to some
        "hostAliases",
        "dnsConfig",
        "dnsPolicy",
    ):
        spec.pop(name, None)
    for name in ("tolerations", "runtimeClassName"):  # the operator decides on nodes and isolation
        spec.pop(name, None)
        if name in ours["spec"]:
            spec[name] = ours["spec"][name]
    if operators := ours["spec"].get("nodeSelector"):  # to narrow it down is anybody's
        spec["nodeSelector"] = {**(spec.get("nodeSelector") or {}), **operators}
    for name in ("priorityClassName", "affinity") if "affinity" in ours["spec"] else ("priorityClassName",):
        if name in ours["spec"]:
            spec[name] = ours["spec"][name]
    theirs = spec.get("securityContext") or {}
    chosen = {
        name: theirs[name] for name in ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups") if theirs.get(name)
    }
    spec["securityContext"] = {**pod_security(settings), **chosen}
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        theirs = container.get("securityContext") or {}
        chosen = {
            name: theirs[name] for name in ("runAsUser", "runAsGroup", "readOnlyRootFilesystem") if name in theirs
        }
        container["securityContext"] = {**container_security(), **chosen}
    _part_fetch(spec, ours)
    return merged


def _part_fetch(spec: dict[str, Any], ours: Mapping[str, Any]) -> None:
    """Keep our own init containers unchanged: they have the passwords of mirrors and proxies.

    Files in the home directory can change the behavior of a program, so these containers get a separate one if the pod
    has containers or volumes that aren't ours. (Other pods are not changed: a change would replace them.)
    """
    own = {container["name"]: container for container in ours["spec"].get("initContainers", ())}
    inits = spec.get("initContainers") or []
    if inits:
        spec["initContainers"] = inits = [own.get(container["name"], container) for container in inits]
    if _only_ours(spec, ours["spec"]) or not any(container["name"] in own for container in inits):
        return
    spec["volumes"] = [volume for volume in spec.get("volumes") or () if volume.get("name") != _PRIVATE]
    spec["volumes"].append({"name": _PRIVATE, "emptyDir": {}})
    for container in spec.get("containers") or ():
        _without_private(container)
    spec["initContainers"] = [_private(c) if c["name"] in own else _without_private(c) for c in inits]


def _only_ours(spec: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    """Return whether the pod has exactly our containers and volumes."""
    names = [
        [c["name"] for part in ("containers", "initContainers") for c in pod.get(part) or ()] for pod in (spec, ours)
    ]
    return names[0] == names[1] and spec.get("volumes") == ours["volumes"]


def _without_private(container: dict[str, Any]) -> dict[str, Any]:
    mounts = container.get("volumeMounts") or ()
    if any(mount.get("name") == _PRIVATE for mount in mounts):
        container["volumeMounts"] = [mount for mount in mounts if mount.get("name") != _PRIVATE]
    return container


def _private(container: Mapping[str, Any]) -> dict[str, Any]:
    mounts = [{**mount, "name": _PRIVATE} if mount["name"] == SCRATCH else mount for mount in container["volumeMounts"]]
    return {**container, "volumeMounts": mounts}
