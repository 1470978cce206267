"""Strategic merge of pod templates, as in the API server.

A patch has the structure of the original. Objects are merged, ``null`` removes a field, and a list is replaced as a
whole unless its entries have a merge key: then the entries of the patch are merged into existing ones
or added. ``$patch: delete`` and ``$patch: replace`` change that for an object or an entry.

Source: https://git.k8s.io/community/contributors/devel/sig-api-machinery/strategic-merge-patch.md; for details it
leaves open (the place of new entries, a ``null`` for a missing field) the behavior of the API server.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from llmos.errors import Invalid

__all__ = ["POD_TEMPLATE", "Schema", "strategic_merge"]

_PATCH: Final = "$patch"
_RETAIN: Final = "$retainKeys"
_DELETE_FROM: Final = "$deleteFromPrimitiveList/"
_ORDER: Final = "$setElementOrder/"
_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Schema:
    """The merge rules for an object's fields; fields without a schema are merged as objects or replaced as lists.

    Attributes
    ----------
    fields
        The schemas of fields that are objects or lists.
    key
        For a list, its merge key: the field that identifies its entries. If empty, the list is replaced as a whole, or,
        if `merged` is set, is a list of strings to which others are added.
    merged
        True if a list without a key is merged.
    """

    fields: Mapping[str, Schema] = field(default_factory=dict)
    key: str = ""
    merged: bool = False

    def of(self, name: str) -> Schema:
        """Return the schema of a field."""
        return self.fields.get(name, _PLAIN)


_PLAIN: Final = Schema()
_CONTAINERS: Final = Schema(
    {
        "env": Schema(key="name"),
        "ports": Schema(key="containerPort"),
        "volumeDevices": Schema(key="devicePath"),
        "volumeMounts": Schema(key="mountPath"),
    },
    key="name",
)
_METADATA: Final = Schema({"finalizers": Schema(merged=True), "ownerReferences": Schema(key="uid")})
POD_TEMPLATE: Final = Schema(
    {
        "metadata": _METADATA,
        "spec": Schema(
            {
                "containers": _CONTAINERS,
                "ephemeralContainers": _CONTAINERS,
                "hostAliases": Schema(key="ip"),
                "imagePullSecrets": Schema(key="name"),
                "initContainers": _CONTAINERS,
                "resourceClaims": Schema(key="name"),
                "schedulingGates": Schema(key="name"),
                "topologySpreadConstraints": Schema(key="topologyKey"),
                "volumes": Schema(
                    {"ephemeral": Schema({"volumeClaimTemplate": Schema({"metadata": _METADATA})})}, key="name"
                ),
            }
        ),
    }
)
"""The merged lists of ``PodTemplateSpec``, from Kubernetes' OpenAPI document."""


def strategic_merge(original: Mapping[str, Any], patch: Mapping[str, Any], schema: Schema = POD_TEMPLATE) -> Any:
    """Return `original` with the patch applied; both arguments are left unchanged.

    Raises
    ------
    Invalid
        The patch can't be merged: an entry without its key, an unknown directive.
    """
    return _objects(copy.deepcopy(dict(original)), copy.deepcopy(dict(patch)), schema)


def _objects(original: dict[str, Any], patch: dict[str, Any], schema: Schema) -> dict[str, Any]:
    if _PATCH in patch:
        return _directed(patch)
    _retain(original, patch)
    for name in [name for name in patch if name.startswith(_ORDER)]:
        _ordered(original, patch, name, schema)
    for name, value in patch.items():
        if name.startswith(_DELETE_FROM):
            listed = name.removeprefix(_DELETE_FROM)
            if isinstance(original.get(listed), list):
                original[listed] = [item for item in original[listed] if item not in value]
        elif value is None:
            original.pop(name, None)
        else:
            _field(original, name, value, schema.of(name))
    return original


def _field(original: dict[str, Any], name: str, value: Any, schema: Schema) -> None:
    there = original.get(name)
    if isinstance(there, dict) and isinstance(value, dict):
        original[name] = _objects(there, value, schema)
    elif isinstance(there, list) and isinstance(value, list):
        original[name] = _lists(there, value, schema, name)
    else:
        kept = _plain(value)
        if kept is _NOTHING:
            original.pop(name, None)
        else:
            original[name] = kept


def _directed(patch: dict[str, Any]) -> dict[str, Any]:
    directive = patch.pop(_PATCH)
    if directive == "replace":
        literal: dict[str, Any] = _literal(patch)
        return literal
    if directive == "delete":
        return {}
    raise _unknown(directive)


def _unknown(directive: object) -> Invalid:
    return Invalid(f'spec.template: "$patch: {str(directive)[:40]}" is no directive. Use delete or replace.')


def _retain(original: dict[str, Any], patch: dict[str, Any]) -> None:
    """Remove fields that ``$retainKeys`` doesn't name."""
    if _RETAIN not in patch:
        return
    kept = patch.pop(_RETAIN)
    stray = [name for name, value in patch.items() if value is not None and not name.startswith("$")]
    if not isinstance(kept, list) or any(name not in kept for name in stray):
        raise Invalid("spec.template: $retainKeys must be a list that names every field beside it.")
    for name in [name for name in original if name not in kept]:
        del original[name]


# Lists


def _lists(there: list[Any], patch: list[Any], schema: Schema, name: str) -> list[Any]:
    if schema.merged:
        merged = list(dict.fromkeys([*there, *patch]))
        return _interleaved(merged, patch, there, lambda item: item)
    if not schema.key:
        literal: list[Any] = _literal(patch)
        return literal
    if not there and not patch:
        return there
    entries = [_entry(item, name) for item in patch]
    if any(entry.get(_PATCH) == "replace" for entry in entries):
        return [_literal(entry) for entry in entries if _PATCH not in entry]
    return _entries(there, entries, schema, name)


def _entries(there: list[Any], patch: list[dict[str, Any]], schema: Schema, name: str) -> list[Any]:
    """Return the entries merged by their key."""

    def key(item: Mapping[str, Any]) -> Any:
        if schema.key not in item:
            raise Invalid(f"spec.template: an entry of {name} needs its {schema.key}.")
        return item[schema.key]

    kept: list[Any] = [_entry(item, name) for item in there]
    changes = []
    for item in patch:
        if _PATCH not in item:
            changes.append(item)
        elif item[_PATCH] == "delete":
            kept = [each for each in kept if key(each) != key(item)]
        else:
            raise _unknown(item[_PATCH])
    before = list(kept)
    for change in changes:
        for index, item in enumerate(kept):
            if key(item) == key(change):
                kept[index] = _objects(item, change, Schema(schema.fields))
                break
        else:
            kept.append(_literal(change))
    return _interleaved(kept, changes, before, key)


def _entry(item: Any, name: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Invalid(f"spec.template: an entry of {name} must be an object, not {item!r}.")
    return item


def _interleaved(merged: list[Any], patch: Sequence[Any], before: Sequence[Any], key: Any) -> list[Any]:
    """Return the merged entries in order: the patch's entries in the patch's order, others in the list's.

    An entry that is only in the list precedes the first of the patch's entries that followed it there, so that new
    entries come first.
    """
    order = [key(item) for item in patch]
    places = {_hashable(key(item)): place for place, item in reversed(list(enumerate(before)))}
    ours = sorted((item for item in merged if key(item) in order), key=lambda item: order.index(key(item)))
    others = [item for item in merged if key(item) not in order]
    result: list[Any] = []
    while ours and others:
        left, right = places.get(_hashable(key(others[0]))), places.get(_hashable(key(ours[0])))
        first = left is not None and right is not None and left < right
        result.append(others.pop(0) if first else ours.pop(0))
    return [*result, *ours, *others]


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) or value is None else repr(value)


def _ordered(original: dict[str, Any], patch: dict[str, Any], directive: str, schema: Schema) -> None:
    """Merge a list and sort it in the order of ``$setElementOrder``."""
    name = directive.removeprefix(_ORDER)
    wanted = patch.pop(directive)
    of = schema.of(name)
    there, changes = original.get(name), patch.pop(name, None)
    if not isinstance(wanted, list) or not all(isinstance(x, list | None) for x in (there, changes)):
        raise Invalid(f"spec.template: {directive} is for lists.")
    if there is None and changes is None:
        return
    if there is None:
        there, merged = [], _plain(changes)
    else:
        merged = there if changes is None else _lists(there, changes, of, name)
    original[name] = _interleaved(merged, wanted, there, lambda item: item[of.key] if of.key else item)


# Directives, which are not part of the result


def _literal(value: Any) -> Any:
    """Return a value that is taken as it is, without directives in it."""
    if isinstance(value, dict):
        return {name: _literal(item) for name, item in value.items() if item is not None and not name.startswith("$")}
    return [_literal(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Return the value for a new field, without nulls and objects that have a directive."""
    if isinstance(value, dict):
        if _PATCH in value:
            return _NOTHING
        plain = {name: _plain(item) for name, item in value.items() if item is not None}
        return {name: item for name, item in plain.items() if item is not _NOTHING}
    if isinstance(value, list):
        return [item for item in map(_plain, value) if item is not _NOTHING]
    return value
