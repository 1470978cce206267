"""Validation of manifests: errors have a path and a sentence for each field."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.errors import Invalid, LLMOSError, NotFound, from_status
from llmos.resources import KINDS, ModelService, json_schema, kind_named, parse
from llmos.resources.base import Condition, set_condition
from llmos.resources.quantities import format_bytes, parse_quantity


def service(name="chat", **spec):
    return {"kind": "ModelService", "metadata": {"name": name}, "spec": spec}


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (service(model="demo://tiny", resources={"memory": "2GiB"}), 'spec.resources.memory: "2GiB" is not a quantity. Did you mean "2Gi"?'),
        (service(model="demo://tiny", resources={"memory": "2 GB"}), 'Did you mean "2Gi" (binary) or "2G" (decimal)?'),
        (service(model="demo://tiny", resources={"memory": 2}), 'Did you forget the unit, as in "2Gi"?'),
        (service(model="demo://tiny", resources={"memry": "2Gi"}), 'spec.resources.memry: there is no such field. Did you mean "memory"?'),
        (service(model="demo://tiny", resources={"cpu": "0"}), 'spec.resources.cpu: "0" is not more than zero'),
        (service(model="demo://tiny", replicas="two"), "spec.replicas: must be a whole number"),
        (service(model="demo://tiny", replicas=1000), "spec.replicas: "),
        (service(model="demo://tinny"), 'spec.model: "demo://tinny" is no demo model. Did you mean "demo://tiny"?'),
        (service(model="Qwen/Qwen3"), 'Did you mean "hf://Qwen/Qwen3"?'),
        (service(model="/models/a.gguf"), 'Did you mean "file:///models/a.gguf"?'),
        (service(model="ftp://x/y"), '"ftp://" is no source that is known here'),
        (service(model="hf://../../etc"), "should read hf://org/repo"),
        (service(model="file:///a/../../etc/passwd"), 'absolute path without ".."'),
        (service(model="volume://data"), "should read volume://NAME/PATH"),
        (service(model="volume://data/../x"), "should read volume://NAME/PATH"),
        (service(model="volume:///x"), "should read volume://NAME/PATH"),
        (service(), "model is required"),
        (service(engine="custom"), "engine custom needs its command in args"),
        (service(engine="vlm", model="demo://tiny"), "spec.engine: "),
        (service(model="demo://tiny", env={"A-B": "1"}), '"A-B" is not the name of an environment variable'),
        (service(name="My Model", model="demo://tiny"), 'metadata.name: "My Model" is not a name'),
        (service(name="My Model", model="demo://tiny"), 'Did you mean "my-model"?'),
        (service(name="chat\n", model="demo://tiny"), "is not a name"),
        ({"kind": "Credential", "metadata": {"name": "a"}, "spec": {"data": {"my-key": "x"}}}, '"my-key" is not a key'),
        ({"kind": "ModelServce", "metadata": {"name": "a"}}, 'kind: "ModelServce" is not known here'),
        ({"apiVersion": "llmos.ai/v9", "kind": "Setting", "metadata": {"name": "a"}}, 'apiVersion: "llmos.ai/v9" is not known'),
        ([], "A manifest needs a kind"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_path(manifest, said):
    with pytest.raises(Invalid) as raised:
        parse(manifest)
    assert said in str(raised.value)
    assert "ValidationError" not in str(raised.value)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://org/repo:sub/my model (v1) + [x], a=b.gguf",
        "hf://org/repo@main:a&b'c!.gguf",
        "file:///models/my model (v1) + [x], a=b.gguf",
        "file:///modèles/Ünïcode.gguf",
    ],
)
def test_names_of_files_may_hold_what_file_systems_allow(uri: str):
    assert parse(service(model=uri)).spec.model == uri


@pytest.mark.parametrize(
    "uri", ["file:///a\nb.gguf", "file:///a\x85b", "file:///a ", "hf://o/r:a\tb", "hf://o r/x", "hf://o/r:../x", "hf://o/r: "]
)  # fmt: skip
def test_what_can_not_be_seen_is_no_part_of_a_name(uri: str):
    with pytest.raises(Invalid, match=r"spec\.model"):
        parse(service(model=uri))


def test_every_field_at_fault_is_named():
    with pytest.raises(Invalid) as raised:
        parse(service(name="A", model="demo://tiny", replicas=-1, resources={"gpus": "x"}, nonsense=1))
    assert {c.field for c in raised.value.causes} == {
        "metadata.name",
        "spec.replicas",
        "spec.resources.gpus",
        "spec.nonsense",
    }


def test_what_is_right_comes_back_as_it_was_written():
    manifest = service(
        model="hf://Qwen/Qwen3-4B-GGUF:q.gguf", servedModelName="Qwen/Qwen3", resources={"memory": "4Gi", "cpu": 2}
    )
    parsed = parse(manifest)
    assert isinstance(parsed, ModelService)
    assert parsed.spec.resources.cpu == "2"
    dumped = parsed.dump()
    assert dumped["spec"]["servedModelName"] == "Qwen/Qwen3"
    assert parse(json.loads(json.dumps(dumped))) == parsed
    assert parsed.model_names == ("chat", "Qwen/Qwen3")


@pytest.mark.parametrize("word", ["ms", "ModelService", "modelservices", "MODEL"])
def test_a_kind_is_found_by_any_of_its_names(word):
    assert kind_named(word) is ModelService


def test_an_unknown_kind_names_those_there_are():
    with pytest.raises(NotFound, match="credentials, modelservices, settings"):
        kind_named("pods")


@given(st.text(max_size=30))
def test_any_text_is_a_quantity_or_refused_in_words(text):
    try:
        assert parse_quantity(text) >= 0
    except ValueError as error:
        assert "is not a quantity" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "number"), [("500m", 0.5), ("2", 2), ("1.5Gi", 1.5 * 2**30), ("3G", 3e9), ("10Ki", 10240)]
)
def test_quantities_are_kubernetes_own(text, number):
    assert float(parse_quantity(text)) == number


def test_sizes_for_people():
    assert format_bytes(2.5 * 2**30) == "2.5 GiB"
    assert format_bytes(92_871_040, binary=False) == "93 MB"
    assert format_bytes(0) == "0 B"


def test_a_conditions_time_changes_with_its_status_only():
    first = set_condition([], Condition(type="Ready", status="False", message="a"))
    second = set_condition(first, Condition(type="Ready", status="False", message="b"))
    third = set_condition(second, Condition(type="Ready", status="True"))
    assert second[0].message == "b"
    assert second[0].last_transition_time == first[0].last_transition_time
    assert third[0].last_transition_time > first[0].last_transition_time
    assert len(third) == 1


@pytest.mark.parametrize("cls", KINDS.values(), ids=list(KINDS))
def test_every_field_is_documented_in_the_schema(cls):
    schema = json_schema(cls)
    undocumented = [
        f"{name}.{field}"
        for name, definition in [(cls.__name__, schema), *schema["$defs"].items()]
        for field, described in definition.get("properties", {}).items()
        if not described.get("description") and "$ref" not in described and name != cls.__name__
    ]
    assert undocumented == []


def _classes(cls):
    for sub in cls.__subclasses__():
        yield sub
        yield from _classes(sub)


@pytest.mark.parametrize("cls", list(_classes(LLMOSError)), ids=lambda cls: cls.__name__)
def test_every_error_is_the_same_on_both_sides_of_the_wire(cls):
    error = cls("What, where, what to do.", request_id="7f3a9c")
    again = from_status(json.loads(json.dumps(error.to_status())), status=error.status)
    assert type(again) is cls
    assert str(again) == str(error) == f"What, where, what to do. ({cls.code} · req 7f3a9c)"
    openai = error.to_openai()["error"]
    assert openai["code"] == cls.code
    assert type(from_status({"error": openai}, status=error.status)) is cls


@pytest.mark.parametrize("body", [{}, {"error": "x"}, {"details": []}, {"error": {"code": 7}}, {"message": None}])
def test_a_foreign_error_body_is_an_error_all_the_same(body):
    assert from_status(body, status=502).status in (502, 503)
