"""Names and labels of a workload's objects, and the workload that an object belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from llmos.resources.base import API_VERSION
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.workload import Role, Workload, WorkloadRef

__all__ = [
    "AFTER",
    "APPLIED",
    "LABELS",
    "MANAGED_BY",
    "PART_OF",
    "ROLE",
    "TEMPLATE",
    "WORKLOAD",
    "container_name",
    "digest",
    "make_metadata",
    "make_selector",
    "object_name",
    "peers_name",
    "ref_of",
    "release_selector",
    "workload_selector",
]

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
PART_OF: Final = "app.kubernetes.io/part-of"
WORKLOAD: Final = "llmos.ai/workload"
"""Label with the workload's id, which selects its pods."""
ROLE: Final = "llmos.ai/role"
TEMPLATE: Final = "llmos.ai/template"
"""Label with the hash of the template that a pod was created from."""
LABELS: Final = "llmos.ai/labels"
"""Annotation with the workload's labels, as JSON."""
AFTER: Final = "llmos.ai/after"
"""Annotation with the roles that a role is started after, which are stopped after it."""
APPLIED: Final = "llmos.ai/applied"
"""Annotation with a hash of the object as it was applied."""

_KIND: Final = "llmos.ai/kind"
_NAME: Final = "llmos.ai/name"
_PART: Final = "llmos.ai/part"
_UID: Final = "llmos.ai/uid"
_PLAIN_ROLES: Final = ("replica", "fetch")


def container_name(role: Role) -> str:
    """Return the name of the container with a role's process: ``engine`` for serving processes."""
    return "engine" if role.name == "replica" else role.name


def object_name(ref: WorkloadRef, role: Role | None = None, suffix: str = "") -> str:
    """Return the name of a workload's or role's object; short enough that pod names derived from it are valid."""
    parts = [ref.id]
    if role is not None and role.name not in _PLAIN_ROLES:
        parts.append(role.name[:12])
    if suffix:
        parts.append(suffix)
    return "-".join(parts)


def peers_name(ref: WorkloadRef, role: Role) -> str:
    """Return the name of the Service by which pods of the same workload reach those of a role."""
    return object_name(ref, role, "peers")


def make_metadata(
    workload: Workload, settings: KubernetesSettings, name: str, role: Role | None = None
) -> dict[str, Any]:
    """Return the metadata of an object: name, labels, annotations and owner."""
    ref = workload.ref
    labels = {
        "app.kubernetes.io/name": ref.kind.lower(),
        "app.kubernetes.io/instance": ref.name,
        "app.kubernetes.io/component": container_name(role) if role is not None else ref.part,
        PART_OF: settings.release,
        MANAGED_BY: "llmos",
        _KIND: ref.kind,
        _NAME: ref.name,
        _PART: ref.part,
        _UID: ref.uid,
        WORKLOAD: ref.id,
    }
    metadata: dict[str, Any] = {"name": name, "namespace": ref.namespace, "labels": labels}
    if role is not None:
        labels[ROLE] = role.name
        labels[TEMPLATE] = role.template.hash
        metadata["annotations"] = {LABELS: json.dumps(dict(workload.labels), sort_keys=True)}
        metadata["annotations"] |= {AFTER: ",".join(role.after)} if role.after else {}
    if settings.owned:
        metadata["ownerReferences"] = [
            {"apiVersion": API_VERSION, "kind": ref.kind, "name": ref.name, "uid": ref.uid, "controller": True}
        ]
    return metadata


def make_selector(ref: WorkloadRef, role: Role | None = None) -> dict[str, str]:
    """Return the labels that select a workload's pods, or those of a role."""
    return {WORKLOAD: ref.id} | ({ROLE: role.name} if role is not None else {})


def release_selector(settings: KubernetesSettings) -> str:
    """Return the selector of all objects of the release's workloads."""
    return f"{MANAGED_BY}=llmos,{PART_OF}={settings.release},{WORKLOAD}"


def workload_selector(ref: WorkloadRef) -> str:
    """Return the selector of all objects of a workload."""
    return f"{WORKLOAD}={ref.id}"


def ref_of(metadata: Mapping[str, Any]) -> WorkloadRef | None:
    """Return the workload that an object belongs to, from its labels; None if it has none."""
    labels = metadata.get("labels") or {}
    if not all(name in labels for name in (_KIND, _NAME, _PART, _UID)):
        return None
    return WorkloadRef(labels[_KIND], str(metadata.get("namespace") or ""), labels[_NAME], labels[_UID], labels[_PART])


def digest(value: Any) -> str:
    """Return twelve hex digits of a JSON value's hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
