"""The rules by which the fake API server treats objects: names, selectors, patches, and who owns which field."""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from llmos.resources import KINDS
from llmos_hub.backends.kubernetes.strategic_merge import POD_TEMPLATE, Schema, strategic_merge

__all__ = [
    "Owners",
    "Refused",
    "field_matcher",
    "has_generation",
    "json_patched",
    "kind_of",
    "label_matcher",
    "merged",
    "strategically_merged",
    "validate",
    "with_data",
]

Object = dict[str, Any]
Path = tuple[str, ...]

_KINDS = {"networkpolicies": "NetworkPolicy", **{kind.plural: kind.kind_name() for kind in KINDS.values()}} | {
    name.lower() + "s": name
    for name in (
        *("ConfigMap", "Event", "LimitRange", "Namespace", "Node", "PersistentVolumeClaim", "Pod", "ResourceQuota"),
        *("HorizontalPodAutoscaler", "LeaderWorkerSet", "PodDisruptionBudget", "RayCluster"),
        *("Secret", "Service", "Deployment", "Job", "StatefulSet", "Lease", "Role", "RoleBinding", "ServiceAccount"),
    )
}
_UNCOUNTED = ("v1", "coordination.k8s.io/v1", "rbac.authorization.k8s.io/v1")
"""API versions without a kind whose spec's changes are counted, except Pod."""
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SEGMENT = re.compile(r"(?!\.\.?$)[^/%]+")
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_FIELDS = {
    "secrets": {"type": ("type",)},
    "events": {
        **{f"involvedObject.{name}": ("involvedObject", name) for name in ("kind", "name", "namespace", "uid")},
        "reason": ("reason",),
        "type": ("type",),
    },
    "pods": {"spec.nodeName": ("spec", "nodeName"), "status.phase": ("status", "phase")},
}
_IN_EVERY_KIND = {"metadata.name": ("metadata", "name"), "metadata.namespace": ("metadata", "namespace")}


class Refused(Exception):
    """An error answer: status, reason, message, causes as reason and field, and what it is about."""

    def __init__(self, status: int, reason: str, message: str, *causes: tuple[str, str], **about: str) -> None:
        super().__init__(message)
        self.about = about
        self.status, self.reason, self.message = status, reason, message
        self.causes = [{"reason": why, "field": field, "message": message} for why, field in causes]


def kind_of(plural: str) -> str:
    """Return the kind of a plural."""
    if plural not in _KINDS:
        raise Refused(404, "NotFound", "the server could not find the requested resource")
    return _KINDS[plural]


def has_generation(obj: Object) -> bool:
    """Return whether the server counts the changes of the object's spec."""
    return obj.get("apiVersion", "v1") not in _UNCOUNTED or obj.get("kind") == "Pod"


def validate(obj: Object) -> None:
    """Raise an error if the object's name or labels are invalid; nothing else is checked."""
    meta = obj["metadata"]
    name = meta.get("name", "")
    what = f'{obj.get("kind")} "{name}" is invalid: metadata'
    if not name:
        message = f"{what}.name: Required value: name or generateName is required"
        raise Refused(422, "Invalid", message, ("FieldValueRequired", "metadata.name"))
    rule = _SEGMENT if obj.get("apiVersion", "").startswith("rbac.") else _NAME
    if len(name) > 253 or not rule.fullmatch(name):
        message = f'{what}.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of …'
        raise Refused(422, "Invalid", message, ("FieldValueInvalid", "metadata.name"))
    for value in (meta.get("labels") or {}).values():
        if not _LABEL.fullmatch(value):
            message = f'{what}.labels: Invalid value: "{value}": a valid label must be …'
            raise Refused(422, "Invalid", message, ("FieldValueInvalid", "metadata.labels"))


def with_data(secret: Object) -> Object:
    """Return the Secret as the server stores it: with a type, and with texts as data."""
    texts = {key: base64.b64encode(text.encode()).decode() for key, text in secret.get("stringData", {}).items()}
    data = {**(secret.get("data") or {}), **texts}
    stored = {key: value for key, value in secret.items() if key not in ("stringData", "data")}
    return {"type": "Opaque", **stored, **({"data": data} if data else {})}


# Selectors


def label_matcher(selector: str) -> Callable[[Object], bool]:
    """Return a check of an object by its labels."""
    requirements = [_requirement(each.strip()) for each in re.split(r",(?![^(]*\))", selector) if each.strip()]
    return lambda obj: all(holds(obj["metadata"].get("labels") or {}) for holds in requirements)


def _requirement(text: str) -> Callable[[Mapping[str, str]], bool]:
    if found := re.fullmatch(r"(\S+)\s+(in|notin)\s+\((.*)\)", text):
        name, word, values = found[1], found[2], {value.strip() for value in found[3].split(",")}
        return lambda labels: (labels.get(name) in values) == (word == "in")
    if found := re.fullmatch(r"([^=!\s]+)\s*(==?|!=)\s*(.*)", text):
        name, word, value = found.groups()
        return lambda labels: (labels.get(name) == value) == (word != "!=")
    return lambda labels: (text.removeprefix("!") in labels) != text.startswith("!")


def field_matcher(selector: str, plural: str) -> Callable[[Object], bool]:
    """Return a check of an object by the fields that its kind can be selected by."""
    known = {**_IN_EVERY_KIND, **_FIELDS.get(plural, {})}
    checks = []
    for each in filter(None, selector.split(",")):
        name, word, value = re.fullmatch(r"([^=!]+)(==?|!=)(.*)", each).groups()  # type: ignore[union-attr]
        if name not in known:
            raise Refused(400, "BadRequest", f"field label not supported: {name}")
        checks.append((known[name], word != "!=", value))
    return lambda obj: all((_value(obj, path) == value) == same for path, same, value in checks)


def _value(obj: Object, path: Path) -> str:
    found: Any = obj
    for part in path:
        found = found.get(part) or {}
    return found if isinstance(found, str) else ""


# Patches


def merged(old: Any, patch: Any) -> Any:
    """Return the object after a merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def strategically_merged(old: Object, patch: Object) -> Object:
    """Return the object after a strategic merge patch, with the lists of pods merged by their keys."""
    spec = Schema({"template": POD_TEMPLATE}) if "template" in old.get("spec", {}) else POD_TEMPLATE.fields["spec"]
    result: Object = strategic_merge(old, patch, Schema({"metadata": POD_TEMPLATE.fields["metadata"], "spec": spec}))
    return result


def json_patched(old: Object, operations: list[Object]) -> Object:
    """Return the object after a JSON patch (RFC 6902) without moves and copies."""
    new = copy.deepcopy(old)
    for operation in operations:
        try:
            _operate(new, operation)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            message = f"the server rejected our request due to an error in our request: {operation['path']}: {error}"
            raise Refused(422, "Invalid", message) from None
    return new


def _operate(node: Any, operation: Object) -> None:
    *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    name, value = operation["op"], copy.deepcopy(operation.get("value"))
    if isinstance(node, list):
        at: Any = len(node) if last == "-" else int(last)
        if name == "add":
            node.insert(at, value)
            return
    else:
        at = last
    if name == "test":
        if (node[at] if isinstance(node, list) else node.get(at)) != value:
            message = "testing a value failed"
            raise ValueError(message)
    elif name == "remove":
        del node[at]
    else:
        node[at] = value  # the server's "replace" adds a member that is missing, against RFC 6902


# Server-side apply


class Owners:
    """The managers of an object's fields, as in ``managedFields``; a list is one field."""

    def __init__(self) -> None:
        self._fields: dict[tuple[str, bool], set[Path]] = {}
        """By manager, and whether by applying."""

    def wrote(self, manager: str, old: Object | None, new: Object) -> None:
        """Record what another request than an apply has changed."""
        before, after = _leaves(old or {}), _leaves(new)
        changed = {path for path, value in after.items() if before.get(path) != value}
        for paths in self._fields.values():
            paths.difference_update(changed, set(before) - set(after))
        self._fields.setdefault((manager, False), set()).update(changed)

    def applied(self, manager: str, old: Object, body: Object, *, force: bool) -> Object:
        """Return the object with the applied fields, without those that only this manager had applied before."""
        wanted, there = _leaves(body), _leaves(old)
        differing = {path for path, value in wanted.items() if path in there and there[path] != value}
        others = [paths for who, paths in self._fields.items() if who != (manager, True)]
        conflicts = sorted({path for paths in others for path in paths & differing})
        if conflicts and not force:
            causes = [("FieldManagerConflict", "." + ".".join(path)) for path in conflicts]
            raise Refused(409, "Conflict", f"Apply failed with {len(conflicts)} conflicts", *causes)
        for paths in others:
            paths.difference_update(differing)
        dropped = self._fields.get((manager, True), set()) - set(wanted)
        self._fields[manager, True] = set(wanted)
        new = merged(old, body)
        for path in dropped - set().union(*others):
            _remove(new, path)
        return new


def _leaves(obj: Object) -> dict[Path, Any]:
    """Return the fields that can be owned, by path."""
    meta = obj.get("metadata", {})
    owned = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    owned["metadata"] = {
        key: meta[key] for key in ("labels", "annotations", "ownerReferences", "finalizers") if key in meta
    }
    return {path: json.dumps(value, sort_keys=True) for path, value in _walk(owned, ())}


def _walk(node: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(node, dict) and (node or not path):
        for key, value in node.items():
            yield from _walk(value, (*path, key))
    elif path != ("metadata",):
        yield path, node


def _remove(obj: Object, path: Path) -> None:
    """Remove a field, and the objects around it that are empty then."""
    *parents, last = path
    nodes = [obj]
    for part in parents:
        if not isinstance(nodes[-1].get(part), dict):
            return
        nodes.append(nodes[-1][part])
    nodes[-1].pop(last, None)
    for node, part in zip(reversed(nodes[:-1]), reversed(parents), strict=True):
        if not node[part] and part != "metadata":
            del node[part]
