"""Writes the files made from `tools.chart_values`: the chart's values, their schema and docs/reference/chart.md."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel

from tools.chart_values import Values

ROOT: Final = Path(__file__).parent.parent
VALUES: Final = ROOT / "helm" / "llmos" / "values.yaml"
SCHEMA: Final = ROOT / "helm" / "llmos" / "values.schema.json"
PAGE: Final = ROOT / "docs" / "reference" / "chart.md"

_WIDTH: Final = 110
_HEAD: Final = "Made from tools/chart_values by `make generate`; don't edit it."


def schema() -> dict[str, Any]:
    """Return the JSON Schema, without references, so that all versions of Helm and all editors read it alike."""
    found = Values.model_json_schema(by_alias=True)
    definitions = found.pop("$defs")
    inlined: dict[str, Any] = _inline(found, definitions)
    _require(inlined, Values())
    return {"$schema": "http://json-schema.org/draft-07/schema#", **inlined, "title": "Values of the LLMOS chart"}


def _inline(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        # keys next to a reference (a description, a default) are the field's own and take precedence
        target = definitions[node["$ref"].rpartition("/")[2]]
        node = {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    inlined: dict[str, Any] = {}
    for key, value in node.items():
        if key == "title" and isinstance(value, str):
            continue
        if key == "description":
            inlined[key] = " ".join(str(value).split())
        elif key == "properties":
            inlined[key] = {name: _inline(inner, definitions) for name, inner in value.items()}
        elif key in ("default", "enum", "const", "examples"):
            inlined[key] = value
        else:
            inlined[key] = _inline(value, definitions)
    if inlined.get("type") == "object" and "properties" in inlined:
        inlined.pop("default", None)  # each field has its own
    return inlined


def _require(node: dict[str, Any], section: BaseModel) -> None:
    """Require what the chart's own values contain: an empty ``tolerations:`` in somebody's file takes it away."""
    there = {name: value for name, _, value in _fields(section) if value is not None}
    node["required"] = list(there)
    for name, value in there.items():
        if _is_section(value):
            _require(node["properties"][name], value)


def _is_section(value: Any) -> bool:
    """Return whether a value is a map with a fixed set of names, not one of Kubernetes' own objects."""
    return isinstance(value, BaseModel) and type(value).__name__ != "ResourceRequirements"


def _fields(model: BaseModel) -> Iterator[tuple[str, str, Any]]:
    """Yield name, description and value of each field."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        text = " ".join((field.description or type(model).__doc__ or "").split())
        yield field.alias or name, text, value


def values() -> str:
    """Return ``values.yaml``: every value below its description."""
    lines = [f"# {_HEAD}", "# docs/reference/chart.md is the same as a table.", ""]
    for name, text, value in _fields(Values()):
        lines += [*_entry(name, text, value, 0), ""]
    return "\n".join(lines).rstrip() + "\n"


def _entry(name: str, text: str, value: Any, depth: int) -> list[str]:
    indent = "  " * depth
    lines = [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - 2 * depth)]
    if _is_section(value):
        lines.append(f"{indent}{name}:")
        for inner in _fields(value):
            lines += _entry(*inner, depth + 1)
        return lines
    rendered = yaml.safe_dump({name: _plain(value)}, sort_keys=False, allow_unicode=True, width=1000)
    return lines + [f"{indent}{line}" for line in rendered.rstrip().split("\n")]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(by_alias=True, exclude_none=True)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def page() -> str:
    """Return ``docs/reference/chart.md``: a table for each section."""
    lines = [
        "# The chart's values",
        "",
        _HEAD,
        "",
        "Set with `--set NAME=VALUE` or in a file given with `-f`. A name that there isn't and a value of the wrong kind are",
        "refused before anything is changed. How to install: [the how-to guides](../README.md#on-kubernetes).",
        "",
    ]
    defaults = Values()
    properties = schema()["properties"]
    simple = [f for f in _fields(defaults) if not isinstance(f[2], BaseModel)]
    lines += ["## General", "", *_table(simple, properties, ""), ""]
    for name, text, value in _fields(defaults):
        if isinstance(value, BaseModel):
            title = " ".join((type(value).__doc__ or text).split())
            rows = _table(list(_fields(value)), properties[name]["properties"], f"{name}.")
            lines += [f"## {name}", "", title, "", *rows, ""]
    return "\n".join(lines).rstrip() + "\n"


def _table(fields: list[tuple[str, str, Any]], properties: dict[str, Any], prefix: str) -> list[str]:
    return [
        "| value | type | default | |",
        "| --- | --- | --- | --- |",
        *(row for name, text, value in fields for row in _rows(name, text, value, properties[name], prefix)),
    ]


def _rows(name: str, text: str, value: Any, property_: dict[str, Any], prefix: str) -> Iterator[str]:
    full = f"{prefix}{name}"
    if isinstance(value, BaseModel):
        for inner, inner_text, inner_value in _fields(value):
            yield from _rows(inner, inner_text, inner_value, property_["properties"][inner], f"{full}.")
        return
    shown = json.dumps(_plain(value), ensure_ascii=False)
    shown = "" if shown in ('""', "[]", "{}") else f"`{shown.strip(chr(34))}`"
    yield f"| `{full}` | {_type(property_)} | {shown} | {text} |"


def _type(property_: dict[str, Any]) -> str:
    options = property_.get("anyOf")
    if options:
        kinds = [option.get("type") for option in options]
        return "quantity" if "number" in kinds else " or ".join(str(kind) for kind in kinds if kind != "null")
    if "enum" in property_:
        return " \\| ".join(f"`{value}`" for value in property_["enum"])
    if property_.get("type") == "array":
        return f"list of {_type(property_['items'])}"
    if property_.get("type") == "object":
        inner = property_.get("additionalProperties")
        return f"map of {_type(inner)}" if isinstance(inner, dict) and inner else "object"
    return str(property_.get("type", "any"))


def files() -> dict[Path, str]:
    """Return the text of each file by its path."""
    return {
        VALUES: values(),
        SCHEMA: json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        PAGE: page(),
    }
