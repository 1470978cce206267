"""How a resource lies in a cluster: a custom resource as it is, a Credential as a Secret.

A Secret has no room for what a resource has beside its data, so that its generation and status are in
annotations, which nobody sees who reads the resource.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError

from llmos.resources.base import API_VERSION, Resource, invalid
from llmos_hub.kubernetes_api import path_of
from llmos_hub.stores import rules
from llmos_hub.stores.base import Selector
from llmos_hub.stores.records import Unreadable

__all__ = ["CUSTOM", "SECRET", "Form", "form_of"]

R = TypeVar("R", bound=Resource)

_METADATA: Final = (
    *("name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation"),
    *("creationTimestamp", "deletionTimestamp", "finalizers"),
)
_KIND_LABEL: Final = "llmos.ai/kind"
_GENERATION: Final = "llmos.ai/generation"
_STATUS: Final = "llmos.ai/status"


class Form(Protocol):
    """One way for a resource to lie in a cluster."""

    def path(self, kind: type[Resource], namespace: str | None = None, name: str = "", *more: str) -> str:
        """Where it is."""
        ...

    def reference(self, resource: Resource) -> dict[str, str]:
        """What its events point at."""
        ...

    def selector(self, kind: type[Resource], labels: Selector | None) -> str:
        """The label selector for those of a kind that have these labels."""
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
        """
        ...


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
        raise Unreadable(invalid(error, kind).message) from None


class _Custom:
    def path(self, kind: type[Resource], namespace: str | None = None, name: str = "", *more: str) -> str:
        return path_of(API_VERSION, kind.plural, namespace, name, *more)

    def reference(self, resource: Resource) -> dict[str, str]:
        return {"apiVersion": API_VERSION, "kind": resource.kind}

    def selector(self, kind: type[Resource], labels: Selector | None) -> str:
        del kind
        return _selector(labels or {})

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

    def selector(self, kind: type[Resource], labels: Selector | None) -> str:
        return _selector({**(labels or {}), _KIND_LABEL: kind.kind_name()})

    def write(self, resource: Resource) -> dict[str, Any]:
        metadata = _metadata(resource)
        metadata["labels"][_KIND_LABEL] = resource.kind
        metadata["annotations"][_GENERATION] = str(resource.metadata.generation)
        status = rules.dumped(resource.status)
        if status != rules.dumped(rules.empty_status(type(resource))):
            metadata["annotations"][_STATUS] = json.dumps(status, separators=(",", ":"))
        data = {key: base64.b64encode(value.encode()).decode() for key, value in resource.spec.data.items()}
        kind = f"llmos.ai/{resource.singular}"
        return {"apiVersion": "v1", "kind": "Secret", "type": kind, "metadata": metadata, "data": data}

    def read(self, kind: type[R], obj: Mapping[str, Any]) -> R:
        metadata = {key: obj["metadata"][key] for key in _METADATA if key in obj["metadata"]}
        labels = {key: value for key, value in (metadata.get("labels") or {}).items() if key != _KIND_LABEL}
        if labels.keys() == (metadata.get("labels") or {}).keys():
            message = f"it is a Secret without the label {_KIND_LABEL}"
            raise Unreadable(message)
        annotations = dict(metadata.get("annotations") or {})
        try:
            generation, status = int(annotations.pop(_GENERATION, 1)), json.loads(annotations.pop(_STATUS, "{}"))
            values = {key: base64.b64decode(value).decode() for key, value in (obj.get("data") or {}).items()}
        except ValueError as error:  # no number, no JSON, no base64, no UTF-8
            raise Unreadable(str(error)) from None
        metadata |= {"labels": labels, "annotations": annotations, "generation": generation}
        # someone may have changed the data with kubectl: it says itself which keys it has
        status = {**status, "keys": sorted(values)}
        return _validated(
            kind, {"kind": kind.kind_name(), "metadata": metadata, "spec": {"data": values}, "status": status}
        )


CUSTOM: Final[Form] = _Custom()
SECRET: Final[Form] = _Secret()


def form_of(kind: type[Resource]) -> Form:
    """How a kind lies in a cluster."""
    return SECRET if kind.stored_as == "Secret" else CUSTOM
