"""Patches are merged as in the API server, whose results are compared in tests/kubernetes."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given

from llmos.errors import Invalid
from llmos_hub.backends.kubernetes.strategic_merge import strategic_merge
from tests.support.pod_templates import ORIGINAL, patches


def merged(spec: dict, original: dict | None = None) -> dict:
    return strategic_merge({"spec": original} if original is not None else ORIGINAL, {"spec": spec})["spec"]


def names(entries: list[dict], key: str = "name") -> list[str]:
    return [entry[key] for entry in entries]


def test_objects_are_merged_and_null_removes() -> None:
    assert merged({"nodeSelector": {"zone": None, "gpu": "a"}})["nodeSelector"] == {"disk": "fast", "gpu": "a"}
    assert "affinity" not in merged({"affinity": None})
    assert "tolerations" not in merged({"tolerations": None})


def test_containers_are_told_apart_by_name() -> None:
    spec = merged({"containers": [{"name": "engine", "image": "x:2", "env": [{"name": "B", "value": "9"}]}]})
    engine = next(c for c in spec["containers"] if c["name"] == "engine")
    assert engine["image"] == "x:2"
    assert engine["command"] == ["serve"]
    assert {e["name"]: e["value"] for e in engine["env"]} == {"A": "1", "B": "9", "C": "3"}


def test_new_entries_come_first_and_the_patch_says_the_order_of_its_own() -> None:
    assert names(merged({"containers": [{"name": "new"}]})["containers"]) == ["new", "engine", "side"]
    assert names(merged({"containers": [{"name": "side"}, {"name": "engine"}]})["containers"]) == ["side", "engine"]
    assert names(merged({"containers": [{"name": "side"}, {"name": "new"}]})["containers"]) == ["engine", "side", "new"]


def test_lists_without_a_key_are_replaced() -> None:
    assert merged({"tolerations": [{"key": "x"}]})["tolerations"] == [{"key": "x"}]
    engine = merged({"containers": [{"name": "engine", "args": ["-v"]}]})["containers"][0]
    assert engine["args"] == ["-v"]


def test_entries_are_removed_by_order() -> None:
    assert names(merged({"containers": [{"name": "side", "$patch": "delete"}]})["containers"]) == ["engine"]
    mounts = [{"mountPath": "/tmp", "$patch": "delete"}]
    engine = merged({"containers": [{"name": "engine", "volumeMounts": mounts}]})["containers"][0]
    assert names(engine["volumeMounts"], "mountPath") == ["/models"]


def test_replacing() -> None:
    assert merged({"nodeSelector": {"$patch": "replace", "a": "b"}})["nodeSelector"] == {"a": "b"}
    assert merged({"nodeSelector": {"$patch": "delete"}})["nodeSelector"] == {}
    assert names(merged({"containers": [{"$patch": "replace"}, {"name": "x"}]})["containers"]) == ["x"]


def test_retained_and_ordered_and_removed_texts() -> None:
    volumes = [{"name": "scratch", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]
    assert merged({"volumes": volumes})["volumes"][0] == {"name": "scratch", "hostPath": {"path": "/x"}}
    order = [{"name": "side"}, {"name": "engine"}]
    assert names(merged({"$setElementOrder/containers": order})["containers"]) == ["side", "engine"]
    original = {"metadata": {"finalizers": ["a", "b"]}}
    assert strategic_merge(original, {"metadata": {"finalizers": ["c"]}})["metadata"]["finalizers"] == ["c", "a", "b"]
    patch = {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}
    assert strategic_merge(original, patch)["metadata"]["finalizers"] == ["b"]


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"containers": [{"image": "x"}]}, "an entry of containers needs its name"),
        ({"containers": ["engine"]}, "an entry of containers must be an object"),
        ({"nodeSelector": {"$patch": "merge"}}, "is no directive"),
        ({"containers": [{"name": "a", "$patch": "keep"}]}, "is no directive"),
        ({"volumes": [{"name": "scratch", "$retainKeys": ["name"], "emptyDir": {}}]}, "must be a list that names"),
        ({"$setElementOrder/containers": "engine"}, "is for lists"),
    ],
)
def test_what_cannot_be_merged_is_said(patch: dict, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        merged(patch)


@given(patches)
def test_whatever_is_merged(patch: dict) -> None:
    before, given_patch = copy.deepcopy(ORIGINAL), copy.deepcopy(patch)
    result = strategic_merge(ORIGINAL, patch)
    assert before == ORIGINAL
    assert patch == given_patch
    assert "$patch" not in json.dumps(result)
    assert "null" not in json.dumps(result)
    if "$patch" not in json.dumps(patch):
        assert strategic_merge(result, patch) == result, "the same again changes nothing"


def test_an_empty_patch_changes_nothing() -> None:
    assert strategic_merge(ORIGINAL, {}) == ORIGINAL
