"""JSON Merge Patch (RFC 7386) on the parts of a resource that people may change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from llmos.errors import Cause, Invalid
from llmos.resources import Resource

__all__ = ["merge_patch", "patched"]

R = TypeVar("R", bound=Resource)

_CHANGEABLE: Final = ("labels", "annotations")
_FIXED: Final = ("name", "namespace", "uid")
"""Fields allowed in a patch, since clients may send back what they read, but only with the same value."""


def merge_patch(target: Any, patch: Any) -> Any:
    """Return `target` with `patch` merged in: objects are merged by key, null removes, any other value replaces.

    Source: https://www.rfc-editor.org/rfc/rfc7386#section-2
    """
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def patched(resource: R, patch: Any) -> R:
    """Return the resource with the patch applied.

    Raises
    ------
    Invalid
        The patch contains fields that can't be patched, or the result is not valid.
    """
    if not isinstance(patch, Mapping):
        raise Invalid('A merge patch is an object, such as {"spec": {"replicas": 2}}.')
    metadata = patch.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise Invalid("metadata: must be an object", causes=[Cause("metadata", "must be an object")])
    causes = [*_top_level(resource, patch), *_metadata(resource, metadata or {})]
    if causes:
        raise Invalid("; ".join(str(c) for c in causes[:3]), causes=causes)
    body = resource.dump()
    body["spec"] = merge_patch(body.get("spec"), patch.get("spec", {}))
    for part in _CHANGEABLE:
        body["metadata"][part] = merge_patch(body["metadata"].get(part), (metadata or {}).get(part, {}))
    body.pop("status", None)
    result = type(resource).parse(body, by_name=False)
    return result.model_copy(update={"status": resource.status})


def _top_level(resource: Resource, patch: Mapping[str, Any]) -> list[Cause]:
    causes = []
    for key, value in patch.items():
        if key == "status":
            causes.append(Cause(key, "is written by the platform alone; change spec"))
        elif key in ("apiVersion", "kind"):
            if value != {"apiVersion": resource.api_version, "kind": resource.kind}[key]:
                causes.append(Cause(key, "can't be changed"))
        elif key not in ("spec", "metadata"):
            causes.append(Cause(key, "there is no such field. A patch has spec and metadata"))
    return causes


def _metadata(resource: Resource, metadata: Mapping[str, Any]) -> list[Cause]:
    causes = []
    for key, value in metadata.items():
        if key in (*_CHANGEABLE, "resourceVersion"):
            continue
        if key not in _FIXED:
            causes.append(Cause(f"metadata.{key}", "can't be changed. Labels and annotations can"))
        elif value != getattr(resource.metadata, key):
            causes.append(Cause(f"metadata.{key}", "can't be changed; delete the resource and create it again"))
    return causes
