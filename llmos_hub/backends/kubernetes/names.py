"""Names and labels of a workload's objects, and the workload that an object belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from llmos.names import KEY_INSTANCE, KEY_KIND, KEY_MANAGED_BY, KEY_NAME, KEY_PART
from llmos.resources.base import API_VERSION
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.names import (
    KEY_AFTER,
    KEY_APP,
    KEY_COMPONENT,
    KEY_LABELS,
    KEY_PART_OF,
    KEY_ROLE,
    KEY_TEMPLATE,
    KEY_UID,
    KEY_WORKLOAD,
)
from llmos_hub.workload import Role, Workload, WorkloadRef

__all__ = [
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


_PLAIN_ROLES: Final = ("replica", "fetch")


def container_name(role: str) -> str:
    """Return the name of the container with a role's process: ``engine`` for serving processes."""
    return "engine" if role == "replica" else role


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
        KEY_APP: ref.kind.lower(),
        KEY_INSTANCE: ref.name,
        KEY_COMPONENT: container_name(role.name) if role is not None else ref.part,
        KEY_PART_OF: settings.release,
        KEY_MANAGED_BY: "llmos",
        KEY_KIND: ref.kind,
        KEY_NAME: ref.name,
        KEY_PART: ref.part,
        KEY_UID: ref.uid,
        KEY_WORKLOAD: ref.id,
    }
    metadata: dict[str, Any] = {"name": name, "namespace": ref.namespace, "labels": labels}
    if role is not None:
        labels[KEY_ROLE] = role.name
        labels[KEY_TEMPLATE] = role.template.hash
        metadata["annotations"] = {KEY_LABELS: json.dumps(dict(workload.labels), sort_keys=True)}
        metadata["annotations"] |= {KEY_AFTER: ",".join(role.after)} if role.after else {}
    if settings.owned:
        metadata["ownerReferences"] = [
            {"apiVersion": API_VERSION, "kind": ref.kind, "name": ref.name, "uid": ref.uid, "controller": True}
        ]
    return metadata


def make_selector(ref: WorkloadRef, role: Role | None = None) -> dict[str, str]:
    """Return the labels that select a workload's pods, or those of a role."""
    return {KEY_WORKLOAD: ref.id} | ({KEY_ROLE: role.name} if role is not None else {})


def release_selector(settings: KubernetesSettings) -> str:
    """Return the selector of all objects of the release's workloads."""
    return f"{KEY_MANAGED_BY}=llmos,{KEY_PART_OF}={settings.release},{KEY_WORKLOAD}"


def workload_selector(ref: WorkloadRef) -> str:
    """Return the selector of all objects of a workload."""
    return f"{KEY_WORKLOAD}={ref.id}"


def ref_of(metadata: Mapping[str, Any]) -> WorkloadRef | None:
    """Return the workload that an object belongs to, from its labels; None if it has none."""
    labels = metadata.get("labels") or {}
    if not all(name in labels for name in (KEY_KIND, KEY_NAME, KEY_PART, KEY_UID)):
        return None
    return WorkloadRef(
        labels[KEY_KIND], str(metadata.get("namespace") or ""), labels[KEY_NAME], labels[KEY_UID], labels[KEY_PART]
    )


def digest(value: Any) -> str:
    """Return twelve hex digits of a JSON value's hash."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
