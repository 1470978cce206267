"""What holds for the pods of workloads whatever a resource changes of them; pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llmos_hub.backends.kubernetes.settings import KubernetesSettings

__all__ = ["SCRATCH", "container_security", "harden", "pod_security"]

SCRATCH: Final = "scratch"
"""The volume that is a pod's home and its /tmp."""
_PRIVATE: Final = "fetch-scratch"
"""The same of our own init containers, in pods that a resource changes."""


def pod_security(settings: KubernetesSettings) -> dict[str, Any]:
    """What a pod of ours runs as."""
    return {
        "runAsNonRoot": True,
        "runAsUser": settings.run_as,
        "runAsGroup": settings.run_as,
        "fsGroup": settings.run_as,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """What none of its containers may."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def harden(merged: dict[str, Any], ours: Mapping[str, Any], settings: KubernetesSettings) -> dict[str, Any]:
    """The merged pod with all that must hold whatever was merged into it.

    What a resource may say is checked when it is made; this holds also for what ``$patch`` removes.
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
        # names mean what they mean in the cluster: `fetch` sends passwords to some
        "hostAliases",
        "dnsConfig",
        "dnsPolicy",
    ):
        spec.pop(name, None)
    for name in ("tolerations", "runtimeClassName"):  # on which nodes, and how confined, is the operator's to say
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
    """Keep our own init containers as we make them: they know the mirror's and the proxy's passwords.

    What lies in their home decides what a program does, so that they get one that no other container sees, where
    there are containers or volumes that aren't ours. (Elsewhere the pod stays as it was: it would be replaced.)
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
    """Whether the pod has our containers and our volumes and no others."""
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
