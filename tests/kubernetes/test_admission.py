"""Refusals of the API server, in the same words as the API's; and resources as kubectl shows them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llmos.errors import Invalid
from llmos.resources import ModelService
from tests.support.cluster import Cluster, wait_for
from tests.support.pod_templates import ALLOWED, REFUSED
from tools import admission


def service(name: str = "chat", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "llmos.ai/v1alpha1", "kind": "ModelService", "metadata": {"name": name}, "spec": spec}


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """A namespace of this test's own, to whose resources nobody writes."""
    return cluster.namespace(release="nobody")


def refusal(cluster: Cluster, namespace: str, manifest: dict[str, Any]) -> str:
    """Return the message of ``kubectl apply``."""
    words = ("kubectl", "-n", namespace, "apply", "--dry-run=server", "-f", "-")
    done = cluster.attempt(*words, stdin=json.dumps(manifest))
    assert done.returncode != 0, f"not refused: {manifest['spec']}"
    return done.stderr


SAME_WORDS = [
    service(),
    service(engine="custom"),
    service(engine="custom", args=[]),
    service(model="Qwen/Qwen3"),
    service(model="/models/a.gguf"),
    service(model="nonsense " + "x" * 200),
    service(model="ftp://x/y"),
    service(model="hf://../../etc"),
    service(model="hf://only-org"),
    service(model="file://relative"),
    service(model="file:///a/../../etc/passwd"),
    service(model="file:///a\tb.gguf"),
    service(model="file:///a.gguf "),
    service(model="demo://something-else"),
    service(model="demo://tiny", env={"GOOD": "1", "A-B": "1"}),
    service(model="demo://tiny", servedModelName="no spaces"),
    service(model="demo://tiny", servedModelName="x" * 129),
    service(model="demo://tiny", aliases=["fine", "not fine"]),
    service(model="demo://tiny", credentialRef="My_Token"),
    service(model="demo://tiny", credentialRef="a.b"),
    service(model="demo://tiny", credentialRef="-"),
    service(model="demo://tiny", credentialRef="x" * 64),
    service("a.b", model="demo://tiny"),
    service("x" * 70, model="demo://tiny"),
    *(
        service(model="demo://tiny", resources={"memory": amount})
        for amount in (
            "2GiB",
            "2 GB",
            "2gb",
            "2 Gi",
            "512 MB",
            "1.5k b",
            "3 bytes",
            "2GI",
            "lots",
            "-1",
            "1" * 60,
            "0",
            "2",
            "1Ki",
            2,
            0,
            -1,
        )
    ),
    *(service(model="demo://tiny", resources={"cpu": amount}) for amount in ("0", "0.0", "two", "1 m", "2x", 0, -3)),
]


@pytest.mark.parametrize("manifest", SAME_WORDS, ids=lambda m: json.dumps(m["spec"])[:60] or m["metadata"]["name"])
def test_a_bad_spec_is_refused_in_the_api_s_words(cluster: Cluster, lasting: str, manifest: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as ours:
        ModelService.parse(manifest)
    said = refusal(cluster, lasting, manifest)
    for cause in ours.value.causes:
        assert f"{cause.field}: " in said
        assert cause.message in said


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (service(model="demo://tiny", replicas=-1), "spec.replicas"),
        (service(model="demo://tiny", replicas=65), "spec.replicas"),
        (service(model="demo://tiny", replicas="two"), "spec.replicas"),
        (service(model="demo://tiny", engine="vlm"), "spec.engine"),
        (service(model="demo://tiny", task="sing"), "spec.task"),
        (service(model="demo://tiny", args=["x"] * 201), "spec.args"),
        (service(model="demo://tiny", args=["x" * 5000]), "spec.args[0]"),
        (service(model="demo://tiny", resources={"gpus": 65}), "spec.resources.gpus"),
        (service(model="demo://tiny", resources={"memry": "2Gi"}), "spec.resources.memry"),
        (service(model="demo://tiny", modle="x"), "spec.modle"),
        (service(model="demo://" + "x" * 2000), "spec.model"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_the_schema_refuses_is_refused_by_the_api_too(
    cluster: Cluster, lasting: str, manifest: dict[str, Any], field: str
) -> None:
    with pytest.raises(Invalid) as ours:
        ModelService.parse(manifest)
    assert [cause.field for cause in ours.value.causes] == [field]
    assert field in refusal(cluster, lasting, manifest)


GOOD = [
    service(model="demo://tiny"),
    service(model="hf://org/repo@main:sub/file.gguf", resources={"cpu": 2, "memory": "1.5Gi"}, replicas=0),
    service(model="hf://org/repo:sub/my model (v1) + [x], a=b.gguf"),
    service(model="file:///models/my model (v1) + [x], a=b.gguf"),
    service(model="file:///models/a..b.gguf", resources={"cpu": "500m", "memory": 2**31}, env={"_A1": ""}),
    service(engine="custom", args=["my-server", "--port", "{port}"], credentialRef="hub", aliases=["a/b:c"]),
    service(model="demo://tiny", servedModelName=None, template={"spec": {"nodeSelector": {"disk": "fast"}}}),
]


@pytest.mark.parametrize("manifest", GOOD, ids=range(len(GOOD)))
def test_a_good_spec_means_the_same_to_both(cluster: Cluster, lasting: str, manifest: dict[str, Any]) -> None:
    words = ("-n", lasting, "apply", "--dry-run=server", "-o", "json", "-f", "-")
    stored = json.loads(cluster.kubectl(*words, stdin=json.dumps(manifest)))
    ours = ModelService.parse(manifest)
    theirs = ModelService.parse({"metadata": {"name": "chat"}, "spec": stored["spec"]})
    assert theirs.spec == ours.spec
    as_written = {key: value for key, value in stored["spec"].items() if key != "resources"}
    expected = {key: value for key, value in ours.dump()["spec"].items() if key != "resources"}
    assert as_written == expected, "the server's defaults are the types' own"


def test_kubectl_reads_well(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(service(model="demo://tiny", replicas=2)))
    status = {"status": {"phase": "Ready", "engine": "llamacpp", "replicas": 2, "readyReplicas": 2}}
    words = ("-n", namespace, "patch", "ms", "chat", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    cluster.kubectl(*words)
    for word in ("modelservices", "modelservice", "ms", "models", "llmos"):
        heading, line = cluster.kubectl("-n", namespace, "get", word).splitlines()
        assert heading.split() == ["NAME", "MODEL", "ENGINE", "STATE", "READY", "DESIRED", "REASON", "AGE"]
        assert line.split()[1:5] == ["demo://tiny", "llamacpp", "Ready", "2"]
    explained = cluster.kubectl("explain", "modelservice.spec.resources.memory")
    assert "The most memory a replica may use" in explained


def test_kubectl_scales(cluster: Cluster, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(service(model="demo://tiny")))
    cluster.kubectl("-n", namespace, "scale", "modelservice/chat", "--replicas=3")
    scaled = cluster.get("-n", namespace, "modelservice", "chat")
    assert (scaled["spec"]["replicas"], scaled["metadata"]["generation"]) == (3, 2)
    assert "status" not in scaled, "nobody wrote one"


def test_status_is_a_subresource(cluster: Cluster, namespace: str) -> None:
    manifest = {**service(model="demo://tiny"), "status": {"phase": "Ready"}}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(manifest))
    assert "status" not in cluster.get("-n", namespace, "modelservice", "chat")


@pytest.fixture(scope="module")
def policy(cluster: Cluster, lasting: str) -> Iterator[None]:
    """The chart's, for one namespace: other tests of the same cluster go without."""
    selector = {"matchLabels": {"kubernetes.io/metadata.name": lasting}}
    objects = [{**each, "metadata": {"name": "test-modelservices"}} for each in admission.policy()]
    objects[1]["spec"] = {**objects[1]["spec"], "policyName": "test-modelservices"}
    objects[1]["spec"]["matchResources"] = {"namespaceSelector": selector}
    for each in objects:
        cluster.apply(each)
    words = ("kubectl", "-n", lasting, "apply", "--dry-run=server", "-f", "-")
    bad = json.dumps(service("bad", model="demo://tiny", template={"x": {}}))
    wait_for(lambda: cluster.attempt(*words, stdin=bad).returncode != 0, "the policy to hold")
    yield
    for each in objects:
        cluster.kubectl("delete", each["kind"], "test-modelservices")


def test_the_policy_is_one_that_the_server_understands(cluster: Cluster, policy: None) -> None:
    def status() -> dict[str, Any]:
        return cluster.get("validatingadmissionpolicy", "test-modelservices").get("status", {})

    wait_for(lambda: status().get("observedGeneration"), "its types to be checked")
    assert not status().get("typeChecking", {}).get("expressionWarnings")


# an expression can't measure a template: the controllers do
BY_THE_POLICY = [template for template, words in REFUSED if "KiB" not in words]


@pytest.mark.parametrize("template", BY_THE_POLICY)
def test_a_template_that_the_api_refuses_is_refused(
    cluster: Cluster, lasting: str, policy: None, template: dict[str, Any]
) -> None:
    said = refusal(cluster, lasting, service(model="demo://tiny", template=template))
    assert "spec.template" in said
    assert "resulted in error" not in said, "a value of another type is named by its field, too"


@pytest.mark.parametrize("template", ALLOWED)
def test_a_template_that_the_api_takes_is_taken(
    cluster: Cluster, lasting: str, policy: None, template: dict[str, Any]
) -> None:
    words = ("-n", lasting, "apply", "--dry-run=server", "-f", "-")
    said = cluster.kubectl(*words, stdin=json.dumps(service(model="demo://tiny", template=template)))
    assert "chat created (server dry run)" in said


def test_what_is_there_already_can_be_changed_and_deleted(cluster: Cluster, namespace: str) -> None:
    """Made before there was a policy; its controller must be able to take its finalizer away."""
    body = service("old", model="demo://tiny", template={"spec": {"hostPID": True}})
    body["metadata"] |= {"namespace": namespace, "finalizers": ["example.org/hold"]}
    cluster.kubectl("-n", namespace, "create", "-f", "-", stdin=json.dumps(body))
    objects = [{**each, "metadata": {"name": "test-later"}} for each in admission.policy()]
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    objects[1]["spec"] = {
        **objects[1]["spec"],
        "policyName": "test-later",
        "matchResources": {"namespaceSelector": selector},
    }
    for each in objects:
        cluster.apply(each)
    try:
        words = ("kubectl", "-n", namespace, "create", "--dry-run=server", "-f", "-")
        again = json.dumps({**body, "metadata": {**body["metadata"], "name": "new"}})
        wait_for(lambda: cluster.attempt(*words, stdin=again).returncode != 0, "the policy to hold")
        cluster.kubectl(
            "-n", namespace, "patch", "modelservice", "old", "--type=merge", "-p", '{"spec":{"replicas":2}}'
        )
        cluster.kubectl("-n", namespace, "delete", "modelservice", "old", "--wait=false")
        cluster.kubectl(
            "-n", namespace, "patch", "modelservice", "old", "--type=merge", "-p", '{"metadata":{"finalizers":[]}}'
        )
        assert cluster.get("-n", namespace, "modelservices")["items"] == []
    finally:
        for each in objects:
            cluster.kubectl("delete", each["kind"], "test-later")
