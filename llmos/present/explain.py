"""Explanation of a kind or a field, from the descriptions in the resource types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmos.errors import UsageError
from llmos.present.text import Line, Span, did_you_mean, line, pad
from llmos.resources import Resource, json_schema

__all__ = ["explain"]

_WRAP = 100


def explain(kind: type[Resource], path: str = "") -> list[Line]:
    """Return the lines that explain a kind, or the field at `path` such as ``spec.resources.memory``.

    Raises
    ------
    UsageError
        The field is unknown; the message lists the known fields.
    """
    schema = json_schema(kind)
    definitions: Mapping[str, Any] = schema.get("$defs", {})
    node: Mapping[str, Any] = schema
    walked = kind.kind_name()
    for part in [p for p in path.split(".") if p]:
        fields = _object(node, definitions).get("properties", {})
        if part not in fields:
            known = f" Known there: {', '.join(fields)}." if fields else " It has no fields."
            raise UsageError(f'{walked} has no field "{part[:80]}".{did_you_mean(part, fields) or known}')
        node, walked = fields[part], f"{walked}.{part}"
    lines = [line(Span(walked, "bold"), Span(f"   {_type(node, definitions)}", "dim"))]
    names = ", ".join((kind.plural, kind.singular, *kind.short_names))
    if not path:
        lines.append(line(Span(f"also called: {names}", "dim")))
    lines += [(), *_prose(_description(node, definitions), "")]
    extra = _facts(node)
    lines += [line(Span(extra, "dim"))] if extra else []
    inner = _object(node, definitions)
    fields = inner.get("properties", {})
    if fields:
        lines += [(), line(Span("Fields", "bold"))]
        lines += _fields(fields, inner.get("required", ()), definitions)
    return lines


def _fields(fields: Mapping[str, Any], required: Any, definitions: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = []
    width = max(len(name) for name in fields)
    for name, node in fields.items():
        must = "   required" if name in required else ""
        lines.append(line(Span(f"  {pad(name, width)}"), Span(f"   {_type(node, definitions)}{must}", "dim")))
        lines += _prose(_description(node, definitions), "      ")
        facts = _facts(node)
        lines += [line(Span(f"      {facts}", "dim"))] if facts else []
    return lines


def _resolve(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Resolve a reference or an optional type to the schema behind it."""
    if "$ref" in node:
        target: Mapping[str, Any] = definitions[node["$ref"].rpartition("/")[2]]
        return target
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    return _resolve(options[0], definitions) if len(options) == 1 else node


def _object(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that has the fields: the node's own or, for a list, that of its items."""
    found = _resolve(node, definitions)
    return _object(found["items"], definitions) if "items" in found else found


def _type(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    found = _resolve(node, definitions)
    if "items" in found:
        return f"list of {_type(found['items'], definitions)}"
    if "enum" in found:
        return "one of " + ", ".join(str(value) for value in found["enum"])
    if "const" in found:
        return f"always {found['const']}"
    if isinstance(found.get("additionalProperties"), Mapping):
        return f"map of {_type(found['additionalProperties'], definitions)}"
    names = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    kind = str(found.get("type", "anything"))
    return "moment" if found.get("format") == "date-time" else names.get(kind, kind)


def _description(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    text = node.get("description") or _resolve(node, definitions).get("description") or ""
    return str(text).replace("``", "")


def _facts(node: Mapping[str, Any]) -> str:
    facts = []
    if node.get("default") not in (None, "", [], {}):
        default = node["default"]
        facts.append(f"default: {str(default).lower() if isinstance(default, bool) else default}")
    facts += [f"at least {node['minimum']}"] if "minimum" in node else []
    facts += [f"at most {node['maximum']}"] if "maximum" in node else []
    if examples := node.get("examples"):
        facts.append("such as " + ", ".join(str(example) for example in examples))
    return " · ".join(facts)


def _prose(text: str, indent: str) -> list[Line]:
    import textwrap

    return [line(indent + piece) for piece in textwrap.wrap(" ".join(text.split()), _WRAP - len(indent))]
