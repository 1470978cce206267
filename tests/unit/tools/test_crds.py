"""The custom resource definitions, checked without an API server (tests/kubernetes uses one)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from llmos.resources import KINDS, ModelService
from tools import admission, crds

FORBIDDEN = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "examples", "uniqueItems"}


def schemas(part: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema in a structural schema, with its path."""
    yield path, part
    for name, inner in part.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in part:
            yield from schemas(part[key], f"{path}[]")


@pytest.fixture
def schema() -> dict[str, Any]:
    return crds.schema_of(ModelService)


def test_what_is_in_the_chart_is_what_the_types_say() -> None:
    assert crds.files() == {path: path.read_text() for path in crds.TARGET.glob("*.yaml")}


def test_a_kind_is_a_custom_resource_where_it_says_so() -> None:
    expected = {f"{cls.plural}.yaml" for cls in KINDS.values() if cls.stored_as == "CustomResource"}
    assert {path.name for path in crds.files()} == expected
    assert "modelservices.yaml" in expected
    assert not {"credentials.yaml", "settings.yaml"} & expected


def test_the_schema_is_structural(schema: dict[str, Any]) -> None:
    for path, part in schemas(schema):
        assert not FORBIDDEN & part.keys(), path
        assert "type" in part or "x-kubernetes-int-or-string" in part, path
        assert part.get("default", ...) is not None, path


def test_every_field_is_described(schema: dict[str, Any]) -> None:
    for part in ("spec", "status"):
        for name, field in schema["properties"][part]["properties"].items():
            assert field.get("description"), f"{part}.{name}"


def test_the_defaults_are_the_types_own(schema: dict[str, Any]) -> None:
    """Defaults are complete, so that the platform's first update changes nothing and restarts nothing."""

    def filled(part: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
        for name, inner in part.get("properties", {}).items():
            if name not in value and "default" in inner:
                value[name] = json.loads(json.dumps(inner["default"]))
            if isinstance(value.get(name), dict):
                filled(inner, value[name])
        return value

    spec = filled(schema["properties"]["spec"], {"model": "demo://tiny"})
    assert spec == ModelService.parse({"metadata": {"name": "a"}, "spec": {"model": "demo://tiny"}}).dump()["spec"]
    assert "default" not in schema["properties"]["status"]


def test_kubectl_gets_columns_names_and_scale() -> None:
    definition = yaml.safe_load(crds.files()[crds.TARGET / "modelservices.yaml"])
    [version] = definition["spec"]["versions"]
    names = [column["name"] for column in version["additionalPrinterColumns"]]
    own = [heading.capitalize() for heading, _ in ModelService.columns]
    assert names == [*own, "Desired", "Reason", "Message", "Age"]
    wide = [column["name"] for column in version["additionalPrinterColumns"] if column.get("priority")]
    assert wide == ["Message"]
    assert definition["spec"]["names"]["shortNames"] == list(ModelService.short_names)
    scale = version["subresources"]["scale"]
    assert (scale["specReplicasPath"], scale["statusReplicasPath"]) == (".spec.replicas", ".status.replicas")


def test_a_union_is_refused_before_the_server_does() -> None:
    with pytest.raises(ValueError, match="no union"):
        crds.structural({"anyOf": [{"type": "string"}, {"type": "integer"}]}, {})


def test_the_policy_in_the_chart_is_what_the_types_say() -> None:
    assert admission.files() == {admission.TARGET: admission.TARGET.read_text()}
