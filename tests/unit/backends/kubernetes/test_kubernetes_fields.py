"""The values of our fields in an object, compared with those that would be applied."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from llmos_hub.backends.kubernetes.fields import fields_of, values_of, values_wanted

WANTED: dict[str, Any] = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "chat", "namespace": "user-ada", "labels": {"llmos.ai/name": "chat"}},
    "spec": {
        "replicas": 2,
        "paused": False,
        "template": {
            "spec": {
                "nodeSelector": {},
                "containers": [
                    {
                        "name": "engine",
                        "command": ["serve", "--port", "8080"],
                        "env": [{"name": "EMPTY", "value": ""}, {"name": "THREADS", "value": "1"}],
                        "resources": {"limits": {"memory": "1073741824", "cpu": "2.000"}},
                        "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                    }
                ],
            }
        },
    },
}
"""The object as it is applied."""

FIELDS: dict[str, Any] = {
    "f:metadata": {"f:labels": {"f:llmos.ai/name": {}}},
    "f:spec": {
        "f:replicas": {},
        "f:paused": {},
        "f:template": {
            "f:spec": {
                "f:containers": {
                    'k:{"name":"engine"}': {
                        ".": {},
                        "f:name": {},
                        "f:command": {},
                        "f:env": {
                            'k:{"name":"EMPTY"}': {".": {}, "f:name": {}},
                            'k:{"name":"THREADS"}': {".": {}, "f:name": {}, "f:value": {}},
                        },
                        "f:resources": {"f:limits": {"f:memory": {}, "f:cpu": {}}},
                        "f:ports": {
                            'k:{"containerPort":8080,"protocol":"TCP"}': {
                                ".": {},
                                "f:containerPort": {},
                                "f:protocol": {},
                            }
                        },
                    }
                }
            }
        },
    },
}


def live() -> dict[str, Any]:
    """Return the object as the server does: with defaults, its own format of quantities, and fields of others."""
    obj = copy.deepcopy(WANTED)
    obj["metadata"]["uid"] = "u1"
    obj["metadata"]["labels"]["others/label"] = "yes"
    obj["metadata"]["managedFields"] = [
        {"manager": "llmos", "operation": "Apply", "fieldsV1": copy.deepcopy(FIELDS)},
        {"manager": "kubectl", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:others/label": {}}}}},
        {"manager": "kube-controller-manager", "operation": "Update", "fieldsV1": {"f:status": {"f:replicas": {}}}},
    ]
    obj["spec"]["progressDeadlineSeconds"] = 600
    pod = obj["spec"]["template"]["spec"]
    del pod["nodeSelector"]
    container = pod["containers"][0]
    container |= {"imagePullPolicy": "IfNotPresent", "resources": {"limits": {"memory": "1Gi", "cpu": "2"}}}
    container["env"][0] = {"name": "EMPTY"}
    pod["containers"].append({"name": "injected", "image": "mesh:1"})
    obj["status"] = {"replicas": 2}
    return obj


def test_what_was_applied_and_left_alone_holds_what_is_wanted() -> None:
    assert values_of(live()) == values_wanted(WANTED)


@pytest.mark.parametrize(
    "change",
    [
        lambda obj: obj["spec"].update(replicas=3),
        lambda obj: obj["spec"]["template"]["spec"]["containers"][0]["command"].append("--debug"),
        lambda obj: obj["spec"]["template"]["spec"]["containers"][0]["env"].pop(),
        lambda obj: obj["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].update(memory="2Gi"),
        lambda obj: obj["metadata"]["labels"].pop("llmos.ai/name"),
    ],
)
def test_what_holds_something_else_is_seen(change: Any) -> None:
    obj = live()
    change(obj)
    assert values_of(obj) != values_wanted(WANTED)


def test_a_field_that_another_has_taken_over_is_no_longer_ours() -> None:
    """A program that changes a field becomes its owner."""
    obj = live()
    obj["spec"]["replicas"] = 3
    del obj["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"]["f:replicas"]
    assert fields_of(obj) != fields_of(live())
    assert values_of(obj) != values_wanted(WANTED)


def test_an_object_of_somebody_else_holds_nothing_of_ours() -> None:
    obj = live()
    obj["metadata"]["managedFields"] = obj["metadata"]["managedFields"][1:]
    assert values_of(obj) != values_wanted(WANTED)


def test_what_others_add_or_the_server_fills_in_does_not_count() -> None:
    obj = live()
    obj["spec"]["progressDeadlineSeconds"] = 1
    obj["metadata"]["labels"]["others/label"] = "no"
    obj["status"] = {}
    assert (fields_of(obj), values_of(obj)) == (fields_of(live()), values_of(live()))
