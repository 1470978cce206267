"""The chart's values: everything is generated from one source, and invalid values are refused with a message."""

import copy

import jsonschema
import pytest
import yaml

from tools import chart_schema

PASSED_ON = {
    "affinity",  # Kubernetes' own objects, checked by the API server
    "valueFrom",
    "config",  # JupyterHub's own settings
    "global",
    "egress",
    "also",
    "parentRefs",
    "ingressFrom",
    "metricsFrom",
    "extraVolumes",
    "extraVolumeMounts",
}


@pytest.fixture(scope="module")
def schema():
    return chart_schema.schema()


@pytest.fixture(scope="module")
def defaults():
    return yaml.safe_load(chart_schema.VALUES.read_text())


def test_what_is_generated_is_up_to_date():
    for path, text in chart_schema.files().items():
        assert path.read_text() == text, path


def test_defaults_are_valid_and_every_value_is_explained(schema, defaults):
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(defaults, schema)

    def check(properties, path):
        for name, found in properties.items():
            assert found.get("description"), f"{path}{name} is not explained"
            check(found.get("properties", {}), f"{path}{name}.")

    check(schema["properties"], "")


def test_no_object_takes_unknown_names(schema):
    def check(node, path):
        if isinstance(node, list):
            for item in node:
                check(item, path)
        if not isinstance(node, dict):
            return
        if node.get("type") == "object" and path.rpartition(".")[2] not in PASSED_ON:
            extra = node.get("additionalProperties")
            assert extra is False or (isinstance(extra, dict) and extra), f"{path} takes anything"
        for name, found in node.get("properties", {}).items():
            check(found, f"{path}.{name}")
        for word in ("items", "anyOf", "additionalProperties"):
            check(node.get(word), path)

    check(schema, "")


BAD = {
    "gateway.replica": (3, "'replica' was unexpected"),
    "gateway.replicas": ("many", "'many' is not of type 'integer'"),
    "gateway.service.type": ("Loadbalancer", "is not one of"),
    "hub.db.typ": ("url", "'typ' was unexpected"),
    "hub.resources.limits": ({"memory": "1 GB"}, "'1 GB' does not match"),
    "images.registry": ("https://registry.example.org", "does not match"),
    "ingress.host": ("https://hub.example.org", "does not match"),
    "ingress.tls": (True, "is not of type 'object'"),
    "backup.schedule": ("daily", "does not match"),
    "culler.timeout": (5, "is less than the minimum"),
    "valkey.external.url": ("valkey:6379", "does not match"),
    "externalHub.apiUrl": ("hub:8081", "does not match"),
    "users.network.clusterCidrs": (["10.0.0.1"], "does not match"),
    "users.podSecurity": ("strict", "is not one of"),
    "networkPolicy.apiServerPorts": ([0], "is less than the minimum"),
    "scheduling.tolerations": ([{"key": "gpu", "effect": "NoRun"}], "'NoRun' is not one of"),
    "hub.extraEnv": ([{"name": "A", "val": "1"}], "'val' was unexpected"),
    "hub.config": ({"JupyterHub": "x"}, "is not of type 'object'"),
    "nonsense": ({}, "'nonsense' was unexpected"),
}


@pytest.mark.parametrize("path", BAD)
def test_a_wrong_value_is_refused(schema, defaults, path):
    value, words = BAD[path]
    values = copy.deepcopy(defaults)
    *parents, name = path.split(".")
    place = values
    for parent in parents:
        place = place[parent]
    place[name] = value
    with pytest.raises(jsonschema.ValidationError, match=words):
        jsonschema.validate(values, schema)


def test_quantities_may_be_numbers_or_text(schema, defaults):
    for amount in (1, 0.5, "500m", "1.5", "2Gi"):
        values = copy.deepcopy(defaults)
        values["api"]["resources"] = {"requests": {"cpu": amount}}
        found = jsonschema.validators.validator_for(schema)(schema).iter_errors(values)
        assert [error.message for error in found] == []
