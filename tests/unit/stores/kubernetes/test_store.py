"""The store in a cluster: objects, events and errors; tests with a real server are in tests/kubernetes."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from llmos import errors
from llmos.resources import Credential, ModelService, Setting
from llmos_hub.kubernetes.connection import APIError
from llmos_hub.names import DataDir
from llmos_hub.settings import ProcessSettings
from llmos_hub.stores import open_store_for
from llmos_hub.stores.kubernetes.errors import translate
from llmos_hub.stores.kubernetes.events import make_event, read_event
from llmos_hub.stores.kubernetes.objects import CUSTOM, SECRET, form_of
from llmos_hub.stores.kubernetes.store import KubernetesStore
from llmos_hub.stores.redis.store import RedisStore
from llmos_hub.stores.routed import RoutedStore
from tests.support.fake_kubernetes import fake_kubernetes
from tests.support.store_contract import model

SERVER_SET = {
    "uid": "u-1",
    "resourceVersion": "12",
    "generation": 3,
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "managedFields": [{"manager": "x"}],
    "selfLink": "/x",
}


def chat() -> ModelService:
    return ModelService.parse(
        {
            "metadata": {
                "name": "chat",
                "namespace": "user-ada",
                "labels": {"team": "blue"},
                "finalizers": ["llmos.ai/x"],
            },
            "spec": {"model": "demo://tiny"},
        }
    )


def token(**metadata: Any) -> Credential:
    return Credential.parse(
        {"metadata": {"name": "hub", "namespace": "user-ada", **metadata}, "spec": {"data": {"HF_TOKEN": "hf_ä"}}}
    )


def stored(obj: dict[str, Any]) -> dict[str, Any]:
    """Return the object as the server returns it."""
    return {**obj, "metadata": {**obj["metadata"], **SERVER_SET}}


# -- objects


def test_a_custom_resource_is_the_resource_without_its_status() -> None:
    resource = chat()
    resource.status.phase = "Ready"
    obj = CUSTOM.write(resource)
    assert obj == {
        "apiVersion": "llmos.ai/v1alpha1",
        "kind": "ModelService",
        "metadata": {
            "name": "chat",
            "namespace": "user-ada",
            "labels": {"team": "blue"},
            "annotations": {},
            "finalizers": ["llmos.ai/x"],
        },
        "spec": resource.dump()["spec"],
    }
    assert CUSTOM.path(ModelService, "user-ada", "chat", "status") == (
        "/apis/llmos.ai/v1alpha1/namespaces/user-ada/modelservices/chat/status"
    )


def test_a_custom_resource_is_read_with_what_the_server_set() -> None:
    read = CUSTOM.read(ModelService, {**stored(CUSTOM.write(chat())), "status": {"phase": "Ready"}})
    assert (read.metadata.uid, read.metadata.resource_version, read.metadata.generation) == ("u-1", "12", 3)
    assert read.metadata.labels == {"team": "blue"}
    assert read.status.phase == "Ready"
    assert CUSTOM.read(ModelService, stored(CUSTOM.write(chat()))).status.phase == "Pending"


def test_what_a_newer_version_wrote_is_read_as_far_as_it_goes() -> None:
    obj = stored(CUSTOM.write(chat()))
    obj["spec"] |= {"quantum": True, "aliases": ["cat"]}
    obj["status"] = {"phase": "Ready", "quanta": 3}
    read = CUSTOM.read(ModelService, obj)
    assert "quantum" in read.unread
    assert (read.spec.model, read.spec.aliases, read.status.phase) == ("demo://tiny", ["cat"], "Ready")
    assert not CUSTOM.read(ModelService, {**obj, "spec": {"model": "demo://tiny"}}).unread, (
        "a status is worked out anew"
    )


@pytest.mark.parametrize(
    "spec", [{}, {"model": 3}, {"engine": "custom"}, {"template": {"spec": {"hostPID": True}}}, {"x": {}}]
)
def test_whatever_the_spec_is_there_is_a_resource(spec: dict[str, Any]) -> None:
    read = CUSTOM.read(ModelService, {**stored(CUSTOM.write(chat())), "spec": spec})
    assert read.unread
    assert (read.metadata.name, read.metadata.uid) == ("chat", "u-1")


async def test_what_cannot_be_read_whole_is_written_in_part_and_deleted(tmp_path: Path) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": "user-ada"}})
        odd = {"model": "demo://tiny", "template": {"spec": {"hostPID": True}}}
        cluster.put("modelservices", {**CUSTOM.write(chat()), "spec": odd})
        store = KubernetesStore(api)
        (read,) = (await store.list(ModelService, "user-ada")).items
        assert "hostPID" in read.unread
        read.status.phase = "Failed"
        read = await store.patch_status(read)
        assert (read.status.phase, "hostPID" in read.unread) == ("Failed", True)
        read.metadata.finalizers = []
        await store.update(read)
        there = cluster.get("modelservices", "chat", "user-ada")
        assert there is not None
        assert there["spec"] == odd, "what it could not read it doesn't write"
        assert there["metadata"]["finalizers"] == []
        fixed = await store.apply(chat())
        assert not fixed.unread
        await store.delete(ModelService, "user-ada", "chat", uid=fixed.metadata.uid)
        await store.close()


def test_a_credential_is_a_secret_and_back() -> None:
    resource = token(labels={"team": "blue"}, annotations={"note": "x"})
    resource.metadata.generation = 2
    resource.status.last_changed = datetime(2026, 1, 1, tzinfo=UTC)
    obj = SECRET.write(resource)
    assert obj["type"] == "llmos.ai/credential"
    assert obj["data"] == {"HF_TOKEN": base64.b64encode("hf_ä".encode()).decode()}
    assert "HF" not in json.dumps(obj["metadata"]["annotations"])
    read = SECRET.read(Credential, stored(obj))
    assert read.spec == resource.spec
    assert (read.metadata.labels, read.metadata.annotations) == ({"team": "blue"}, {"note": "x"})
    assert read.metadata.generation == 2, "a Secret has none of its own"
    assert read.status.last_changed == resource.status.last_changed
    assert read.status.keys == ["HF_TOKEN"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"data": {"A": base64.b64encode(b"\xff").decode()}}, "utf-8"),
        ({"data": {"A": base64.b64encode(b"\xff").decode(), "B": "QQ=="}}, "utf-8"),
        ({"data": {"not-a-key": ""}}, "is not a key"),
    ],
)
def test_a_credential_of_another_shape_has_no_values(change: dict[str, Any], why: str) -> None:
    read = SECRET.read(Credential, {**stored(SECRET.write(token())), **change})
    assert why in read.unread
    assert read.spec.data == {}
    assert read.status.keys == sorted(change["data"])


@pytest.mark.parametrize(
    "annotations", [{"llmos.ai/status": "{"}, {"llmos.ai/labels": "3"}, {"llmos.ai/generation": "x"}]
)
def test_what_somebody_made_of_our_annotations_is_passed_over(annotations: dict[str, str]) -> None:
    obj = stored(SECRET.write(token()))
    read = SECRET.read(Credential, {**obj, "metadata": {**obj["metadata"], "annotations": annotations}})
    assert read.spec == token().spec
    assert not read.unread


@pytest.mark.parametrize(
    "change",
    [
        {"type": "Opaque"},
        {"type": "Opaque", "metadata": {"labels": {"llmos.ai/kind": "Server"}}},
        {"type": "llmos.ai/environment"},
        {"metadata": {"labels": {"llmos.ai/kind": "ModelService"}}},
        {"metadata": {"labels": {}}},
    ],
)
async def test_other_secrets_of_a_namespace_are_no_credentials(change: dict[str, Any], tmp_path: Path) -> None:
    """Above all those with a server's tokens: a ModelService that refers to one would get them in its pod."""
    obj = SECRET.write(token())
    obj = {**obj, **change, "metadata": {**obj["metadata"], **change.get("metadata", {})}}
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("secrets", obj)
        store = KubernetesStore(api)
        with pytest.raises(errors.NotFound):
            await store.get(Credential, "user-ada", "hub")
        with pytest.raises(errors.NotFound):
            await store.update(token())
        with pytest.raises(errors.NotFound):
            await store.delete(Credential, "user-ada", "hub")
        with pytest.raises(errors.LLMOSError):
            await store.apply(token())
        assert (await store.list(Credential, "user-ada")).items == []
        await store.close()
        secret = cluster.get("secrets", "hub", "user-ada")
        assert secret is not None
        assert secret["data"] == obj["data"]


def test_a_credential_s_labels_and_annotations_are_no_orders_to_others() -> None:
    """Some controllers copy another namespace's Secret into one with their annotation."""
    orders = {"replicator.v1.mittwald.de/replicate-from": "kube-system/admin"}
    obj = SECRET.write(token(labels={"sync": "yes"}, annotations=orders))
    names = {*obj["metadata"]["labels"], *obj["metadata"]["annotations"]}
    assert {name.partition("/")[0] for name in names} == {"llmos.ai", "label.llmos.ai"}
    read = SECRET.read(Credential, stored(obj))
    assert (read.metadata.labels, read.metadata.annotations) == ({"sync": "yes"}, orders)


def test_what_kubectl_keeps_of_the_values_is_not_shown() -> None:
    obj = stored(SECRET.write(token()))
    obj["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = '{"data":{"HF_TOKEN":"aGY="}}'
    assert "aGY=" not in SECRET.read(Credential, obj).model_dump_json(exclude={"spec"})


def test_selectors() -> None:
    assert form_of(ModelService).params(ModelService, None) == {}
    assert form_of(ModelService).params(ModelService, {"a": "1", "b": "2"}) == {"labelSelector": "a=1,b=2"}
    params = form_of(Credential).params(Credential, {"a": "1"})
    assert params["fieldSelector"] == "type=llmos.ai/credential"
    wanted = dict(part.split("=") for part in params["labelSelector"].split(","))
    assert wanted.items() <= SECRET.write(token(labels={"a": "1", "b": "2"}))["metadata"]["labels"].items()


# -- events


def test_an_event_keeps_its_moment_to_the_microsecond() -> None:
    resource = chat()
    resource.metadata.uid = "u-1"
    stamp = 1_780_000_000_123_456_000
    obj = make_event(resource, "Warning", "Crashed", "it did", stamp=stamp)
    assert obj["metadata"] == {"name": f"chat.{stamp:x}", "namespace": "user-ada"}
    assert obj["involvedObject"] == {
        "apiVersion": "llmos.ai/v1alpha1",
        "kind": "ModelService",
        "namespace": "user-ada",
        "name": "chat",
        "uid": "u-1",
    }
    event = read_event(obj)
    assert (event.type, event.reason, event.message, event.count) == ("Warning", "Crashed", "it did", 1)
    assert event.first.microsecond == 123456
    assert event.first == event.last


def test_events_of_the_newer_style_are_read() -> None:
    event = read_event(
        {
            "metadata": {"name": "chat.17f"},
            "type": "Normal",
            "reason": "Scaled",
            "note": "to 3",
            "eventTime": "2026-01-01T00:00:00.500000Z",
            "series": {"count": 7, "lastObservedTime": "2026-01-01T00:01:00.000000Z"},
        }
    )
    assert (event.message, event.count) == ("to 3", 7)
    assert (event.first.microsecond, event.last.minute) == (500000, 1)


# -- refusals


def refused(status: int, message: str = "no", **body: Any) -> errors.LLMOSError:
    return translate(APIError(status, {"message": message, **body}), ModelService, "user-ada", "chat")


def test_refusals_are_the_platform_s_errors() -> None:
    about = {"details": {"name": "chat", "kind": "modelservices"}}
    cases: list[tuple[errors.LLMOSError, type[errors.LLMOSError], str]] = [
        (refused(404, **about), errors.NotFound, 'no ModelService "user-ada/chat"'),
        (refused(404, details={"kind": "namespaces"}), errors.NotFound, 'no namespace "user-ada"'),
        (refused(404, "404 page not found"), errors.Unavailable, "custom resource definitions"),
        (refused(409, reason="AlreadyExists"), errors.AlreadyExists, "user-ada/chat"),
        (refused(409, reason="Conflict"), errors.Conflict, "was changed since"),
        (refused(409, "the UID in the precondition (a) does not match"), errors.Conflict, "created again"),
        (refused(422, "the server rejected our request"), errors.Conflict, "created again"),
        (refused(410), errors.Expired, "List again"),
        (refused(413), errors.PayloadTooLarge, "larger than"),
        (refused(500, "etcdserver: request is too large"), errors.PayloadTooLarge, "larger than"),
        (refused(500, "etcdserver: leader changed"), errors.Unavailable, "leader changed"),
        (refused(504, "timeout"), errors.Unavailable, "timeout"),
        (refused(401), errors.Unavailable, "credentials"),
        (refused(403, "forbidden: exceeded quota: q"), errors.Insufficient, "used up"),
        (refused(403, details={"causes": [{"reason": "NamespaceTerminating"}]}), errors.Conflict, "is being deleted"),
        (refused(403, "User x cannot get"), errors.Forbidden, "User x cannot get"),
        (refused(418), errors.Internal, "418"),
    ]
    for error, kind, words in cases:
        assert type(error) is kind, error
        assert words in error.message


def test_a_refused_field_is_said_once_and_in_our_words() -> None:
    causes = [
        {"field": "spec.model", "message": 'Invalid value: "string": "x" is not a model URI'},
        {"field": "spec", "message": "Invalid value: model is required, such as demo://smollm2"},
        {"field": "spec.replicas", "message": "Invalid value: -1: must not be negative"},
        {"field": ".spec.replicas", "message": "Invalid value: -1: should be a non-negative integer"},
    ]
    error = refused(422, details={"causes": causes})
    assert isinstance(error, errors.Invalid)
    assert [(cause.field, cause.message) for cause in error.causes] == [
        ("spec.model", '"x" is not a model URI'),
        ("spec", "model is required, such as demo://smollm2"),
        ("spec.replicas", "must not be negative"),
    ]


# -- which store


async def test_settings_decide_which_store_it_is(tmp_path: Path, redis_url: str, encryption_key: str) -> None:
    settings = ProcessSettings(DataDir(tmp_path), redis_url, encryption_key=encryption_key)
    store = open_store_for(settings)
    assert isinstance(store, RedisStore)
    await store.create(token())
    assert (await store.get(Credential, "user-ada", "hub")).spec.data
    await store.close()
    gateway = open_store_for(settings, secrets=False)
    assert (await gateway.get(Credential, "user-ada", "hub")).spec.data == {}
    await gateway.close()


async def test_in_a_cluster_settings_stay_in_the_database(tmp_path: Path, redis_url: str) -> None:
    store = open_store_for(ProcessSettings(DataDir(tmp_path), redis_url, store="kubernetes", namespace="llmos"))
    assert isinstance(store, RoutedStore)
    try:
        created = await store.create(Setting.parse({"metadata": {"name": "banner"}, "spec": {"value": "hello"}}))
        assert (await store.get(Setting, None, "banner")) == created
        async with store.watch(Setting, resource_version=str(created.metadata.resource_version)) as events:
            await store.delete(Setting, None, "banner")
            assert (await anext(events)).type == "DELETED"
    finally:
        await store.close()


@pytest.mark.parametrize("secrets", [True, False], ids=["API", "gateway"])
async def test_in_a_cluster_a_process_sees_only_its_releases_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secrets: bool
) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        for namespace, release in (("user-ada", "team-llmos"), ("user-grace", "llmos")):
            labels = {"app.kubernetes.io/managed-by": "llmos", "app.kubernetes.io/instance": release}
            cluster.put("namespaces", {"metadata": {"name": namespace, "labels": labels}})
            await KubernetesStore(api).create(model("chat", namespace))
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        settings = ProcessSettings(DataDir(tmp_path), "", store="kubernetes", namespace="team", release="team-llmos")
        for everywhere, seen in ((False, ["user-ada"]), (True, ["user-ada", "user-grace"])):
            store = open_store_for(settings, secrets=secrets, everywhere=everywhere)
            try:
                assert [item.metadata.namespace for item in (await store.list(ModelService)).items] == seen
            finally:
                await store.close()


async def test_without_a_database_the_rest_works_and_settings_are_explained(tmp_path: Path) -> None:
    settings = replace(ProcessSettings(DataDir(tmp_path), "", store="kubernetes", namespace="llmos"))
    store = open_store_for(settings)
    with pytest.raises(errors.UsageError, match="LLMOS_REDIS_URL"):
        await store.list(Setting)
    await store.close()
