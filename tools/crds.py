"""Writes helm/llmos/crds from the resource types: the definitions of those kinds that are custom resources.

The schemas are structural, as the API server requires
(https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/): references are
inlined, nullable fields become optional, and defaults are complete, so that the server stores what the platform itself
would write. Rules in CEL come with the types (`llmos.resources.cel`).
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import yaml

from llmos.resources import API_VERSION, KINDS, Resource, json_schema
from llmos.resources.base import metadata_name_rule

TARGET = Path(__file__).parent.parent / "helm" / "llmos" / "crds"
HEADER: Final = "# Made from llmos/resources by `make generate`; don't edit it.\n"

_KEPT: Final = (
    *("type", "description", "format", "enum", "default", "pattern", "minimum", "maximum", "exclusiveMinimum"),
    *("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "required", "x-kubernetes-int-or-string"),
    *("x-kubernetes-validations", "x-kubernetes-preserve-unknown-fields"),
)


def structural(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Convert a pydantic schema into a structural one.

    Parameters
    ----------
    schema
        A part of the result of `json_schema`.
    definitions
        The ``$defs`` of that result.
    """
    schema = dict(schema)
    if "$ref" in schema:
        target = copy.deepcopy(definitions[schema.pop("$ref").rpartition("/")[2]])
        schema = {**target, **schema}
    if "anyOf" in schema:
        options = [option for option in schema.pop("anyOf") if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"a structural schema has no union: {options}")
        schema = {**structural(options[0], definitions), **schema}
    if schema.get("default", ...) is None:
        del schema["default"]
    if "const" in schema:
        schema["enum"] = [schema["const"]]
    kept: dict[str, Any] = {key: copy.deepcopy(schema[key]) for key in _KEPT if key in schema}
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split()).replace("``", "`")
    if kept.get("type") == "integer":
        kept["format"] = "int64"
    if kept.get("x-kubernetes-int-or-string"):
        for key in ("type", "pattern"):  # both types are allowed, and the type's rules have the better messages
            kept.pop(key, None)
    if "properties" in schema:
        parts = schema["properties"].items()
        kept["properties"] = {name: _property(part, definitions) for name, part in parts}
        for name in schema.get("required", ()):
            kept["properties"][name].pop("default", None)
    if "items" in schema:
        kept["items"] = structural(schema["items"], definitions)
        if "lastTransitionTime" in kept["items"].get("properties", {}):  # conditions, with one per type
            kept |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    if schema.get("additionalProperties") is True:  # a pod template, which Kubernetes itself validates
        kept["x-kubernetes-preserve-unknown-fields"] = True
    elif isinstance(schema.get("additionalProperties"), dict):
        kept["additionalProperties"] = structural(schema["additionalProperties"], definitions)
    return kept


def _property(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return a field's schema; default factories become explicit defaults: an empty list, map or object."""
    part = structural(schema, definitions)
    if "default" not in schema:
        empties: dict[str, Any] = {"array": [], "object": {}}
        if part.get("type") in empties:
            part["default"] = empties[part["type"]]
    return part


def value_type(schema: dict[str, Any], path: str) -> str:
    """Return the type of a column, given its path such as ``status.phase``."""
    for name in path.split("."):
        schema = schema["properties"][name]
    found = str(schema.get("type", "string"))
    return found if found in {"string", "integer", "boolean", "number"} else "string"


def columns(cls: type[Resource], schema: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the columns of ``kubectl get`` besides the name."""
    found = [
        {"name": heading.capitalize(), "type": value_type(schema, path), "jsonPath": f".{path}"}
        for heading, path in cls.columns
    ]
    if "scale" in subresources(schema):
        found.append({"name": "Desired", "type": "integer", "jsonPath": ".spec.replicas"})
    status = schema["properties"]["status"]["properties"]
    if "conditions" in status:
        found.append({"name": "Reason", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].reason'})
    if "message" in status:  # only with -o wide, which has room for it
        found.append({"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1})
    return [*found, {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]


def subresources(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the subresources: ``status``, and ``scale`` for kinds with replicas."""
    found: dict[str, Any] = {"status": {}}
    spec, status = (schema["properties"][part]["properties"] for part in ("spec", "status"))
    if "replicas" in spec and "replicas" in status:
        found["scale"] = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
        if "selector" in status:
            found["scale"]["labelSelectorPath"] = ".status.selector"
    return found


def schema_of(cls: type[Resource]) -> dict[str, Any]:
    """Return the structural schema of a kind."""
    source = json_schema(cls)
    definitions = source.get("$defs", {})
    parts = {name: structural(source["properties"][name], definitions) for name in ("spec", "status")}
    for part in parts.values():
        part.pop("default", None)  # an absent status stays absent until it is written
    return {
        "type": "object",
        "description": source.get("description", ""),
        "required": [name for name in source.get("required", ()) if name in parts],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # the bound keeps the rules' estimated cost low; the rules themselves limit the length
            "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 253}}},
            **parts,
        },
        "x-kubernetes-validations": [metadata_name_rule()],
    }


def definition(cls: type[Resource]) -> dict[str, Any]:
    """Return the custom resource definition of a kind."""
    group, _, version = API_VERSION.partition("/")
    schema = schema_of(cls)
    names = {
        "kind": cls.kind_name(),
        "listKind": f"{cls.kind_name()}List",
        "plural": cls.plural,
        "singular": cls.singular,
        "shortNames": list(cls.short_names),
        "categories": ["llmos"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{cls.plural}.{group}",
            "labels": {"app.kubernetes.io/name": "llmos", "app.kubernetes.io/part-of": "llmos"},
        },
        "spec": {
            "group": group,
            "scope": cls.scope,
            "names": names,
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": columns(cls, schema),
                    "subresources": subresources(schema),
                    "schema": {"openAPIV3Schema": schema},
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """A dumper that writes repeated objects in full, since aliases are hard to read."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - the base class's signature
        return True


def files() -> dict[Path, str]:
    """Return the text of each file by its path."""
    custom = [cls for cls in KINDS.values() if cls.stored_as == "CustomResource"]
    return {
        TARGET / f"{cls.plural}.yaml": HEADER
        + yaml.dump(definition(cls), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
        for cls in custom
    }
