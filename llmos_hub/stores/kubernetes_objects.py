"""How a resource lies in a cluster: a custom resource as it is, a Credential as a Secret.

A Secret has no room for what a resource has beside its data, so that its generation and status are in
annotations, which nobody sees who reads the resource. So are its labels and annotations: on a Secret itself
they would be orders to whatever in the cluster copies, injects or syncs Secrets. To be selected by, each label is
there as a hash.

What is a Credential is told by the Secret's type, which nobody can change: people's namespaces hold other Secrets
of the platform, such as those with a server's tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError

from llmos.resources.base import API_VERSION, Resource, invalid
from llmos_hub.kubernetes_api import path_of
from llmos_hub.stores import rules
from llmos_hub.stores.base import Selector
from llmos_hub.stores.records import Unreadable
from llmos_hub.stores.salvage import salvaged

__all__ = ["CUSTOM", "SECRET", "Foreign", "Form", "form_of"]

R = TypeVar("R", bound=Resource)

_METADATA: Final = (
    *("name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation"),
    *("creationTimestamp", "deletionTimestamp", "finalizers"),
)
_KIND_LABEL: Final = "llmos.ai/kind"
_GENERATION: Final = "llmos.ai/generation"
_STATUS: Final = "llmos.ai/status"
_LABELS: Final = "llmos.ai/labels"
_ANNOTATIONS: Final = "llmos.ai/annotations"
_SELECTED: Final = "label.llmos.ai/"
"""Before the hash of a label's name, with the label's value."""
_DIGITS: Final = 16
_FOREIGN: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
"""Annotations that hold the values."""


class Form(Protocol):
    """One way for a resource to lie in a cluster."""

    def path(self, kind: type[Resource], namespace: str | None = None, name: str = "", *more: str) -> str:
        """Where it is."""
        ...

    def reference(self, resource: Resource) -> dict[str, str]:
        """What its events point at."""
        ...

    def params(self, kind: type[Resource], labels: Selector | None) -> dict[str, str]:
        """The query for those of a kind that have these labels."""
        ...

    def write(self, resource: Resource) -> dict[str, Any]:
        """The object, without what the server sets."""
        ...

    def read(self, kind: type[R], obj: Mapping[str, Any]) -> R:
        """The resource.

        Raises
        ------
        Unreadable
            This version can't read it.
        Foreign
            It is no resource of that kind at all.
        """
        ...


class Foreign(Exception):
    """An object where a resource of a kind would be, and which is none."""


def _selector(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _metadata(resource: Resource) -> dict[str, Any]:
    meta = resource.metadata
    found: dict[str, Any] = {
        "name": meta.name,
        "labels": dict(meta.labels),
        "annotations": dict(meta.annotations),
        "finalizers": list(meta.finalizers),
    }
    if meta.namespace:
        found["namespace"] = meta.namespace
    return found


def _validated(kind: type[R], data: dict[str, Any]) -> R:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        found = salvaged(kind, data)
        if found is None:
            raise Unreadable(invalid(error, kind).message) from None
        return found


class _Custom:
    def path(self, kind: type[Resource], namespace: str | None = None, name: str = "", *more: str) -> str:
        return path_of(API_VERSION, kind.plural, namespace, name, *more)

    def reference(self, resource: Resource) -> dict[str, str]:
        return {"apiVersion": API_VERSION, "kind": resource.kind}

    def params(self, kind: type[Resource], labels: Selector | None) -> dict[str, str]:
        del kind
        return {"labelSelector": _selector(labels)} if labels else {}

    def write(self, resource: Resource) -> dict[str, Any]:
        spec = rules.dumped(resource.spec)
        return {"apiVersion": API_VERSION, "kind": resource.kind, "metadata": _metadata(resource), "spec": spec}

    def read(self, kind: type[R], obj: Mapping[str, Any]) -> R:
        metadata = {key: obj["metadata"][key] for key in _METADATA if key in obj["metadata"]}
        data = {"kind": kind.kind_name(), "metadata": metadata, "spec": obj.get("spec") or {}}
        if obj.get("status"):
            data["status"] = obj["status"]
        return _validated(kind, data)


class _Secret:
    def path(self, kind: type[Resource], namespace: str | None = None, name: str = "", *more: str) -> str:
        del kind
        return path_of("v1", "secrets", namespace, name, *more)

    def reference(self, resource: Resource) -> dict[str, str]:
        del resource
        return {"apiVersion": "v1", "kind": "Secret"}

    def params(self, kind: type[Resource], labels: Selector | None) -> dict[str, str]:
        selected = {**_hashed(labels or {}), _KIND_LABEL: kind.kind_name()}
        return {"labelSelector": _selector(selected), "fieldSelector": f"type={_type(kind)}"}

    def write(self, resource: Resource) -> dict[str, Any]:
        metadata = _metadata(resource)
        labels, annotations = metadata["labels"], metadata["annotations"]
        metadata["labels"] = {**_hashed(labels), _KIND_LABEL: resource.kind}
        kept = metadata["annotations"] = {_GENERATION: str(resource.metadata.generation)}
        status = rules.dumped(resource.status)
        empty = rules.dumped(rules.empty_status(type(resource)))
        for name, value, there in (
            (_LABELS, labels, labels),
            (_ANNOTATIONS, annotations, annotations),
            (_STATUS, status, status != empty),
        ):
            if there:
                kept[name] = json.dumps(value, separators=(",", ":"))
        data = {key: base64.b64encode(value.encode()).decode() for key, value in resource.spec.data.items()}
        kind = _type(type(resource))
        return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data}

    def read(self, kind: type[R], obj: Mapping[str, Any]) -> R:
        metadata = {key: obj["metadata"][key] for key in _METADATA if key in obj["metadata"]}
        there = metadata.get("labels") or {}
        if obj.get("type") != _type(kind) or there.get(_KIND_LABEL) != kind.kind_name():
            message = f"it is a Secret of the type {obj.get('type')}"
            raise Foreign(message)
        kept = dict(metadata.get("annotations") or {})
        generation = kept.pop(_GENERATION, "1")
        status, labels, annotations = (_map(kept.pop(name, "{}")) for name in (_STATUS, _LABELS, _ANNOTATIONS))
        why = ""
        try:
            values = {key: base64.b64decode(value).decode() for key, value in (obj.get("data") or {}).items()}
        except ValueError as error:  # no base64, no UTF-8
            values, why = {}, f"spec.data: {error}"
        # those on the Secret itself are somebody else's, or an earlier version's
        metadata["labels"] = {**{key: value for key, value in there.items() if not _is_ours(key)}, **labels}
        metadata["annotations"] = {**{key: kept[key] for key in kept if key not in _FOREIGN}, **annotations}
        metadata["generation"] = int(generation) if generation.isdecimal() and len(generation) < _DIGITS else 1
        # someone may have changed the data with kubectl: it says itself which keys it has
        status = {**status, "keys": sorted(obj.get("data") or {})}
        data = {"kind": kind.kind_name(), "metadata": metadata, "spec": {"data": values}, "status": status}
        found = _validated(kind, data)
        return found.marked_unread(why) if why else found


def _map(text: str) -> dict[str, Any]:
    """What an annotation of ours holds; nothing where somebody has changed it to something else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _type(kind: type[Resource]) -> str:
    """The type of Secrets that are resources of a kind."""
    return f"llmos.ai/{kind.singular}"


def _is_ours(label: str) -> bool:
    return label == _KIND_LABEL or label.startswith(_SELECTED)


def _hashed(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels whose names mean nothing to anybody else."""
    return {f"{_SELECTED}{hashlib.sha256(key.encode()).hexdigest()[:32]}": value for key, value in labels.items()}


CUSTOM: Final[Form] = _Custom()
SECRET: Final[Form] = _Secret()


def form_of(kind: type[Resource]) -> Form:
    """How a kind lies in a cluster."""
    return SECRET if kind.stored_as == "Secret" else CUSTOM
