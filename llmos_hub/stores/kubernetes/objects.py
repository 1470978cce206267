"""The form of resources in a cluster: a custom resource as it is, a Credential as a Secret.

A Secret has no fields for a resource's generation and status, so they are stored in
annotations, which are hidden from readers of the resource. So are its labels and annotations: on the Secret itself
they could trigger controllers that copy, inject or sync Secrets. For label selectors, each label is also
stored under a hash of its name.

A Secret is a Credential if its type says so, which is immutable: people's namespaces hold other Secrets
of the platform, such as those with a server's tokens.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from llmos.names import KEY_KIND
from llmos.resources.base import API_VERSION, Resource, invalid
from llmos_hub.kubernetes.connection import path_of
from llmos_hub.names import KEY_ANNOTATIONS, KEY_GENERATION, KEY_LABELS, KEY_STATUS
from llmos_hub.stores import writes
from llmos_hub.stores.base import Selector
from llmos_hub.stores.salvage import Unreadable, salvaged

__all__ = ["CUSTOM", "SECRET", "Foreign", "Form", "form_of"]

R = TypeVar("R", bound=Resource)

_METADATA: Final = (
    *("name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation"),
    *("creationTimestamp", "deletionTimestamp", "finalizers"),
)
_SELECTED: Final = "label.llmos.ai/"
"""Prefix of the labels that hold the value of a resource's label, named by a hash."""
_DIGITS: Final = 16
_FOREIGN: Final = ("kubectl.kubernetes.io/last-applied-configuration",)
"""Annotations that hold the secret values and must not be shown."""


class Foreign(Exception):
    """An object that is stored where the resources of a kind are, but is not one."""


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


class Form:
    """The form in which a cluster stores resources: as custom resources."""

    def path(self, kind: type[Resource], namespace: str | None = None, name: str = "", *more: str) -> str:
        """Return the path of the object, or without a name of the collection."""
        return path_of(API_VERSION, kind.plural, namespace, name, *more)

    def reference(self, resource: Resource) -> dict[str, str]:
        """Return the apiVersion and kind that its Events refer to."""
        return {"apiVersion": API_VERSION, "kind": resource.kind}

    def params(self, kind: type[Resource], labels: Selector | None) -> dict[str, str]:
        """Return the query parameters that select the resources of a kind with these labels."""
        del kind
        return {"labelSelector": _selector(labels)} if labels else {}

    def write(self, resource: Resource) -> dict[str, Any]:
        """Return the object, without the fields that the server sets."""
        spec = writes.dumped(resource.spec)
        return {"apiVersion": API_VERSION, "kind": resource.kind, "metadata": _metadata(resource), "spec": spec}

    def read(self, kind: type[R], obj: Mapping[str, Any]) -> R:
        """Return the resource that an object holds.

        Raises
        ------
        Unreadable
            This version can't read it.
        Foreign
            The object is not a resource of that kind.
        """
        metadata = {key: obj["metadata"][key] for key in _METADATA if key in obj["metadata"]}
        data = {"kind": kind.kind_name(), "metadata": metadata, "spec": obj.get("spec") or {}}
        if obj.get("status"):
            data["status"] = obj["status"]
        return _validated(kind, data)


class _SecretForm(Form):
    def path(self, kind: type[Resource], namespace: str | None = None, name: str = "", *more: str) -> str:
        del kind
        return path_of("v1", "secrets", namespace, name, *more)

    def reference(self, resource: Resource) -> dict[str, str]:
        del resource
        return {"apiVersion": "v1", "kind": "Secret"}

    def params(self, kind: type[Resource], labels: Selector | None) -> dict[str, str]:
        selected = {**_hashed(labels or {}), KEY_KIND: kind.kind_name()}
        return {"labelSelector": _selector(selected), "fieldSelector": f"type={_type(kind)}"}

    def write(self, resource: Resource) -> dict[str, Any]:
        metadata = _metadata(resource)
        labels, annotations = metadata["labels"], metadata["annotations"]
        metadata["labels"] = {**_hashed(labels), KEY_KIND: resource.kind}
        kept = metadata["annotations"] = {KEY_GENERATION: str(resource.metadata.generation)}
        status = writes.dumped(resource.status)
        empty = writes.dumped(writes.empty_status(type(resource)))
        for name, value, there in (
            (KEY_LABELS, labels, labels),
            (KEY_ANNOTATIONS, annotations, annotations),
            (KEY_STATUS, status, status != empty),
        ):
            if there:
                kept[name] = json.dumps(value, separators=(",", ":"))
        data = {key: base64.b64encode(value.encode()).decode() for key, value in resource.spec.data.items()}
        kind = _type(type(resource))
        return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data}

    def read(self, kind: type[R], obj: Mapping[str, Any]) -> R:
        metadata = {key: obj["metadata"][key] for key in _METADATA if key in obj["metadata"]}
        there = metadata.get("labels") or {}
        if obj.get("type") != _type(kind) or there.get(KEY_KIND) != kind.kind_name():
            raise Foreign(f"it is a Secret of the type {obj.get('type')}")
        kept = dict(metadata.get("annotations") or {})
        generation = kept.pop(KEY_GENERATION, "1")
        status, labels, annotations = (_map(kept.pop(name, "{}")) for name in (KEY_STATUS, KEY_LABELS, KEY_ANNOTATIONS))
        why = ""
        try:
            values = {key: base64.b64decode(value).decode() for key, value in (obj.get("data") or {}).items()}
        except ValueError as error:  # no base64, no UTF-8
            values, why = {}, f"spec.data: {error}"
        # labels and annotations on the Secret itself were set by somebody else, or by an earlier version
        metadata["labels"] = {**{key: value for key, value in there.items() if not _is_ours(key)}, **labels}
        metadata["annotations"] = {**{key: kept[key] for key in kept if key not in _FOREIGN}, **annotations}
        metadata["generation"] = int(generation) if generation.isdecimal() and len(generation) < _DIGITS else 1
        # someone may have changed the data with kubectl, so the keys are read from the data
        status = {**status, "keys": sorted(obj.get("data") or {})}
        data = {"kind": kind.kind_name(), "metadata": metadata, "spec": {"data": values}, "status": status}
        found = _validated(kind, data)
        return found.marked_unread(why) if why else found


def _map(text: str) -> dict[str, Any]:
    """Return the object in one of our annotations; an empty one if somebody has replaced it with something else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _type(kind: type[Resource]) -> str:
    """Return the type of the Secrets that are resources of a kind."""
    return f"llmos.ai/{kind.singular}"


def _is_ours(label: str) -> bool:
    return label == KEY_KIND or label.startswith(_SELECTED)


def _hashed(labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels under hashed names, which no other controller acts on."""
    return {f"{_SELECTED}{hashlib.sha256(key.encode()).hexdigest()[:32]}": value for key, value in labels.items()}


CUSTOM: Final = Form()
SECRET: Final = _SecretForm()


def form_of(kind: type[Resource]) -> Form:
    """Return the form in which a cluster stores a kind."""
    return SECRET if kind.stored_as == "Secret" else CUSTOM
