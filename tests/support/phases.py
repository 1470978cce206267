"""Argo CD's phases: the order in which a chart's objects are applied, and the objects that pods need.

Argo CD documents its mapping of Helm's hooks (https://argo-cd.readthedocs.io/en/stable/user-guide/helm/#helm-hooks):
``pre-install`` and ``pre-upgrade`` become PreSync, ``post-install`` and ``post-upgrade`` PostSync, ``post-delete``
PostDelete; weights become waves. Other hooks are ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tests.support.helm import containers, pod_specs

__all__ = ["PHASES", "phases", "references"]

PHASES = ("PreSync", "Sync", "PostSync", "PostDelete")
_HOOKS = {
    "pre-install": "PreSync",
    "pre-upgrade": "PreSync",
    "post-install": "PostSync",
    "post-upgrade": "PostSync",
    "post-delete": "PostDelete",
}


def phases(objects: Iterable[dict[str, Any]]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Return the objects by phase and wave, in their order."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {phase: {} for phase in PHASES}
    for obj in objects:
        annotations = obj["metadata"].get("annotations", {})
        hook = annotations.get("helm.sh/hook")
        wave = int(annotations.get("helm.sh/hook-weight", "0")) if hook else 0
        named = {_HOOKS[word] for word in hook.split(",") if word in _HOOKS} if hook else {"Sync"}
        for phase in named:
            found[phase].setdefault(wave, []).append(obj)
    return {phase: dict(sorted(waves.items())) for phase, waves in found.items() if waves}


def references(objects: Iterable[dict[str, Any]]) -> set[tuple[str, str]]:
    """Return kind and name of all objects that the pods of these objects require."""
    found: set[tuple[str, str]] = set()
    for _, template in pod_specs(list(objects)):
        spec = template["spec"]
        for kind, field in (("ServiceAccount", "serviceAccountName"), ("PriorityClass", "priorityClassName")):
            found |= {(kind, spec[field])} if field in spec else set()
        for container in containers(template):
            found |= _of_variables(container)
        for volume in spec.get("volumes", []):
            found |= _of_volume(volume)
    return found


def _of_variables(container: dict[str, Any]) -> set[tuple[str, str]]:
    found = set()
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
            if field in source and not source[field].get("optional"):
                found.add((kind, source[field]["name"]))
    return found


def _of_volume(volume: dict[str, Any]) -> set[tuple[str, str]]:
    found = set()
    if "persistentVolumeClaim" in volume:
        found.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
    for source in (volume, *volume.get("projected", {}).get("sources", [])):
        if "configMap" in source:
            found.add(("ConfigMap", source["configMap"]["name"]))
        if "secret" in source:
            found.add(("Secret", source["secret"].get("secretName") or source["secret"]["name"]))
    return found
