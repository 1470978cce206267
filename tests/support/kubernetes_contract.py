"""The behaviour of Kubernetes' API that LLMOS relies on, for the real API server and for the fake of the unit tests.

A test module derives a class from `KubernetesContract` and provides these fixtures:

api
    A connection.
namespace
    A namespace of the test's own, without objects beside those that every namespace has.
finished_pod
    An async function that makes a pod of a name, with a container ``main`` whose log has two lines, "one" and "two".
too_old
    A resourceVersion that the server has had, and from which it can no longer watch.
watch_period
    Seconds after which the server is asked to end a watch, with enough time for a bookmark.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from llmos_hub.kubernetes.connection import JSON_PATCH, MERGE_PATCH, APIError, KubernetesAPI, path_of
from tests.support.waiting import PATIENCE

__all__ = ["Client", "KubernetesContract", "config", "refused"]

STRATEGIC_PATCH = "application/strategic-merge-patch+json"
Object = dict[str, Any]


def config(name: str = "", labels: dict[str, str] | None = None, **data: str) -> Object:
    """Return a ConfigMap, whose namespace is that of the request."""
    meta: Object = {**({"labels": labels} if labels else {}), **({"name": name} if name else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}


def model(name: str, **meta: Any) -> Object:
    """Return a custom resource with a status subresource."""
    meta = {"name": name, **meta}
    return {
        "apiVersion": "llmos.ai/v1alpha1",
        "kind": "ModelService",
        "metadata": meta,
        "spec": {"model": "demo://tiny"},
    }


def deployment(name: str) -> Object:
    """Return a Deployment of two containers without replicas."""
    images = [{"name": each, "image": f"registry.local/{each}:1"} for each in ("main", "side")]
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": images}}
    spec = {"replicas": 0, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def names(listed: Object) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


def version(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


@contextlib.contextmanager
def refused(status: int, reason: str, cause: str = "", match: str | None = None) -> Iterator[None]:
    """Expect an error with this status and reason, and if named with a cause in this field or of this reason."""
    with pytest.raises(APIError, match=match) as caught:
        yield
    error = caught.value
    assert (error.status, error.reason) == (status, reason), error
    assert not cause or error.because(cause) or cause in {each.field for each in error.causes}, error.details


async def until(check: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait for a true result of `check` and return it."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await check()):
                await asyncio.sleep(0.05)
            return found
    except TimeoutError:
        raise AssertionError(what) from None


class Client:
    """The objects of one kind in one namespace."""

    def __init__(self, api: KubernetesAPI, namespace: str, plural: str, api_version: str = "v1") -> None:
        self.api, self._place = api, (api_version, plural, namespace)

    def path(self, *name: str) -> str:
        return path_of(*self._place, *name)

    async def create(self, body: Object) -> Object:
        return await self.api.request("POST", self.path(), body=body)

    async def get(self, name: str) -> Object:
        return await self.api.request("GET", self.path(name))

    async def replace(self, body: Object, *sub: str) -> Object:
        return await self.api.request("PUT", self.path(body["metadata"]["name"], *sub), body=body)

    async def merge(self, name: str, body: Object, **params: str) -> Object:
        return await self.api.request("PATCH", self.path(name), body=body, content_type=MERGE_PATCH, params=params)

    async def patch(self, name: str, *operations: Object) -> Object:
        return await self.api.request("PATCH", self.path(name), body=list(operations), content_type=JSON_PATCH)

    async def apply(self, body: Object, manager: str, *, force: bool = False) -> Object:
        return await self.api.apply(body, self.path(body["metadata"]["name"]), manager=manager, force=force)

    async def delete(self, name: str, **options: Any) -> Object:
        body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        return await self.api.request("DELETE", self.path(name), body=body)

    async def list(self, **params: str) -> Object:
        return await self.api.request("GET", self.path(), params=params)

    async def exists(self, name: str) -> bool:
        try:
            await self.get(name)
        except APIError as error:
            if error.reason != "NotFound":
                raise
            return False
        return True

    @contextlib.asynccontextmanager
    async def watch(self, since: str, **params: str) -> AsyncIterator[AsyncIterator[Object]]:
        """Yield the events; the server ends them after the given or a long time."""
        query = {"watch": "1", "resourceVersion": since, "timeoutSeconds": "60", **params}
        async with self.api.lines(self.path(), params=query, idle=PATIENCE) as lines:
            yield (json.loads(line) async for line in lines)


MINE = {"test": "mine"}
SELECTED = "test=mine"


class KubernetesContract:
    """The suite."""

    @pytest.fixture
    def configs(self, api: KubernetesAPI, namespace: str) -> Client:
        return Client(api, namespace, "configmaps")

    @pytest.fixture
    def secrets(self, api: KubernetesAPI, namespace: str) -> Client:
        return Client(api, namespace, "secrets")

    @pytest.fixture
    def models(self, api: KubernetesAPI, namespace: str) -> Client:
        return Client(api, namespace, "modelservices", "llmos.ai/v1alpha1")

    @pytest.fixture
    def deployments(self, api: KubernetesAPI, namespace: str) -> Client:
        return Client(api, namespace, "deployments", "apps/v1")

    # Create and get

    async def test_the_server_sets_what_clients_may_not(self, configs: Client, namespace: str) -> None:
        made = await configs.create(config("a", x="1"))
        meta = made["metadata"]
        assert (meta["name"], meta["namespace"], made["data"]) == ("a", namespace, {"x": "1"})
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", meta["creationTimestamp"])
        assert meta["uid"]
        assert version(made) > 0
        assert "generation" not in meta
        assert await configs.get("a") == made

    async def test_a_name_can_be_generated(self, configs: Client) -> None:
        body = config()
        body["metadata"]["generateName"] = "part-"
        first, second = [(await configs.create(body))["metadata"]["name"] for _ in range(2)]
        assert re.fullmatch(r"part-[a-z0-9]{5}", first)
        assert first != second

    async def test_what_cannot_be_created(self, configs: Client, api: KubernetesAPI) -> None:
        await configs.create(config("a"))
        with refused(409, "AlreadyExists", match='configmaps "a" already exists'):
            await configs.create(config("a"))
        with refused(422, "Invalid", "metadata.name"):
            await configs.create(config("A_b"))
        with refused(422, "Invalid", "metadata.name"):
            await configs.create(config())
        with refused(422, "Invalid", "metadata.labels"):
            await configs.create(config("b", {"x": "not a label"}))
        elsewhere = config("b")
        elsewhere["metadata"]["namespace"] = "default"
        with refused(400, "BadRequest", match="does not match the namespace"):
            await configs.create(elsewhere)
        with refused(404, "NotFound", match='namespaces "t-no-such" not found'):
            await Client(api, "t-no-such", "configmaps").create(config("a"))

    async def test_what_is_not_there(self, configs: Client) -> None:
        with refused(404, "NotFound", match='configmaps "a" not found'):
            await configs.get("a")
        with refused(404, "NotFound"):
            await configs.replace(config("a"))
        with refused(404, "NotFound"):
            await configs.merge("a", {"data": {"x": "1"}})
        with refused(404, "NotFound"):
            await configs.delete("a")

    async def test_more_than_the_quota_is_refused(self, secrets: Client, api: KubernetesAPI, namespace: str) -> None:
        quotas = Client(api, namespace, "resourcequotas")
        hard = {"count/secrets": "1"}
        meta = {"name": "site"}
        await quotas.create({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": hard}})

        async def counted() -> bool:
            return (await quotas.get("site")).get("status", {}).get("hard") == hard

        await until(counted, "the quota is never counted")
        await secrets.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})
        with refused(
            403, "Forbidden", match=r'secrets "b" is forbidden: exceeded quota: site, requested: count/secrets=1'
        ):
            await secrets.create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}})

    async def test_a_secret_has_a_type_and_keeps_texts_as_data(self, secrets: Client) -> None:
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringData": {"key": "text"}}
        made = await secrets.create(body)
        assert (made["type"], made["data"], made.get("stringData")) == ("Opaque", {"key": "dGV4dA=="}, None)

    # Replace

    async def test_a_stale_version_is_refused(self, configs: Client) -> None:
        old = await configs.create(config("a", x="1"))
        new = await configs.replace({**old, "data": {"x": "2"}})
        assert version(new) > version(old)
        assert new["metadata"]["uid"] == old["metadata"]["uid"]
        with refused(409, "Conflict", match="the object has been modified"):
            await configs.replace({**old, "data": {"x": "3"}})
        stale = {"metadata": {"resourceVersion": old["metadata"]["resourceVersion"]}, "data": {"x": "3"}}
        with refused(409, "Conflict"):
            await configs.merge("a", stale)
        assert (await configs.replace(config("a", x="4")))["data"] == {"x": "4"}

    async def test_replacing_removes_what_is_not_named(self, configs: Client) -> None:
        await configs.create(config("a", MINE, x="1", y="2"))
        found = await configs.replace(config("a", y="3"))
        assert (found["data"], found["metadata"].get("labels", {})) == ({"y": "3"}, {})

    async def test_what_changes_nothing_makes_no_version(self, configs: Client) -> None:
        made = await configs.create(config("a", x="1"))
        assert version(await configs.replace(made)) == version(made)
        assert version(await configs.merge("a", {"data": {"x": "1"}})) == version(made)

    async def test_an_object_s_name_and_uid_do_not_change(self, configs: Client) -> None:
        made = await configs.create(config("a"))
        with refused(400, "BadRequest", match="does not match the name"):
            await configs.api.request("PUT", configs.path("a"), body=config("b"))
        other = {**made, "metadata": {**made["metadata"], "uid": "11111111-2222-3333-4444-555555555555"}}
        with refused(409, "Conflict", match="UID"):
            await configs.replace(other)

    async def test_a_custom_resource_is_replaced_by_version_only(self, models: Client) -> None:
        await models.create(model("a"))
        with refused(422, "Invalid", "metadata.resourceVersion"):
            await models.replace(model("a"))

    # Generation and status

    async def test_generation_counts_changes_of_the_spec(self, models: Client) -> None:
        made = await models.create(model("a"))
        assert made["metadata"]["generation"] == 1
        labelled = await models.merge("a", {"metadata": {"labels": MINE}})
        assert labelled["metadata"]["generation"] == 1
        assert version(labelled) > version(made)
        changed = await models.merge("a", {"spec": {"model": "demo://smollm2"}})
        assert changed["metadata"]["generation"] == 2

    async def test_status_is_written_apart(self, models: Client) -> None:
        made = await models.create({**model("a"), "status": {"message": "mine"}})
        assert made.get("status", {}).get("message") is None
        told = await models.replace(
            {**made, "spec": {"model": "demo://other"}, "status": {"message": "it runs"}}, "status"
        )
        assert (told["spec"]["model"], told["status"]["message"]) == ("demo://tiny", "it runs")
        assert told["metadata"]["generation"] == 1
        changed = await models.replace({**told, "spec": {"model": "demo://smollm2"}, "status": {"message": "mine"}})
        assert (changed["spec"]["model"], changed["status"]["message"]) == ("demo://smollm2", "it runs")

    # Patches

    async def test_a_merge_patch_removes_nulls_and_replaces_lists(self, models: Client) -> None:
        made = model("a")
        made["spec"] |= {"args": ["--a", "--b"], "env": {"A": "1"}, "task": "generate"}
        await models.create(made)
        spec = (await models.merge("a", {"spec": {"args": ["--c"], "env": None}}))["spec"]
        assert (spec["args"], spec.get("env") or {}, spec["task"]) == (["--c"], {}, "generate")

    async def test_a_json_patch_is_done_as_a_whole_or_not_at_all(self, configs: Client) -> None:
        made = await configs.create(config("a", MINE, x="1", y="2"))
        uid = {"op": "test", "path": "/metadata/uid", "value": made["metadata"]["uid"]}
        slash = {"op": "add", "path": "/metadata/annotations", "value": {"example.org/a": "1"}}
        found = await configs.patch("a", uid, {"op": "remove", "path": "/data/x"}, slash)
        assert (found["data"], found["metadata"]["annotations"]) == ({"y": "2"}, {"example.org/a": "1"})
        found = await configs.patch(
            "a", {"op": "replace", "path": "/metadata/annotations/example.org~1a", "value": "2"}
        )
        assert found["metadata"]["annotations"] == {"example.org/a": "2"}
        change = {"op": "replace", "path": "/data/y", "value": "3"}
        for impossible in (
            {**uid, "value": "another"},
            {"op": "remove", "path": "/data/none"},
            {"op": "add", "path": "/none/x", "value": "1"},
        ):
            with refused(422, "Invalid"):
                await configs.patch("a", change, impossible)
        assert (await configs.get("a"))["data"] == {"y": "2"}
        found = await configs.patch("a", {"op": "replace", "path": "/data/none", "value": "1"})
        assert found["data"] == {"y": "2", "none": "1"}, "not as in RFC 6902"

    async def test_a_json_patch_reaches_into_lists(self, models: Client) -> None:
        made = model("a")
        made["spec"]["args"] = ["--a", "--b"]
        await models.create(made)
        args = "/spec/args"
        found = await models.patch(
            "a",
            {"op": "test", "path": f"{args}/0", "value": "--a"},
            {"op": "add", "path": f"{args}/-", "value": "--d"},
            {"op": "add", "path": f"{args}/1", "value": "--n"},
            {"op": "remove", "path": f"{args}/0"},
        )
        assert found["spec"]["args"] == ["--n", "--b", "--d"]

    async def test_a_strategic_patch_merges_containers_by_name(self, deployments: Client, models: Client) -> None:
        await deployments.create(deployment("a"))
        patch = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "registry.local/new:1"}]}}}}
        path = deployments.path("a")
        found = await deployments.api.request("PATCH", path, body=patch, content_type=STRATEGIC_PATCH)
        images = {each["name"]: each["image"] for each in found["spec"]["template"]["spec"]["containers"]}
        assert images == {"main": "registry.local/main:1", "side": "registry.local/new:1"}
        assert found["metadata"]["generation"] == 2
        await models.create(model("a"))
        for kind in (STRATEGIC_PATCH, "application/json"):
            with refused(415, "UnsupportedMediaType"):
                await models.api.request("PATCH", models.path("a"), body={"spec": {}}, content_type=kind)

    # Server-side apply

    async def test_applying_creates_and_then_changes_nothing(self, configs: Client) -> None:
        made = await configs.apply(config("a", x="1"), "one")
        assert version(await configs.apply(config("a", x="1"), "one")) == version(made)

    async def test_what_is_no_longer_applied_is_removed_unless_it_is_another_s(self, configs: Client) -> None:
        await configs.apply(config("a", x="1", y="1", z="1"), "one")
        await configs.apply(config("a", z="1"), "two")
        await configs.merge("a", {"data": {"own": "1"}}, fieldManager="person")
        found = await configs.apply(config("a", x="1"), "one")
        assert found["data"] == {"x": "1", "z": "1", "own": "1"}

    async def test_another_s_field_is_taken_by_force_only(self, configs: Client) -> None:
        await configs.apply(config("a", x="1"), "one")
        with refused(409, "Conflict", "FieldManagerConflict"):
            await configs.apply(config("a", x="2"), "two")
        assert (await configs.apply(config("a", x="2"), "two", force=True))["data"] == {"x": "2"}
        with refused(409, "Conflict", "FieldManagerConflict"):
            await configs.apply(config("a", x="1"), "one")
        await configs.merge("a", {"data": {"x": "3"}}, fieldManager="person")
        with refused(409, "Conflict", "FieldManagerConflict"):
            await configs.apply(config("a", x="2"), "two")

    # Delete

    async def test_preconditions_of_a_deletion(self, configs: Client) -> None:
        made = await configs.create(config("a"))
        meta = (await configs.merge("a", {"data": {"x": "1"}}))["metadata"]
        for stale in (
            {"uid": "11111111-2222-3333-4444-555555555555"},
            {"resourceVersion": made["metadata"]["resourceVersion"]},
        ):
            with refused(409, "Conflict"):
                await configs.delete("a", preconditions=stale)
        both = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
        gone = await configs.delete("a", preconditions=both)
        assert (gone["kind"], gone["status"], gone["details"]["uid"]) == ("Status", "Success", meta["uid"])
        assert not await configs.exists("a")
        assert (await configs.create(config("a")))["metadata"]["uid"] != meta["uid"]

    async def test_finalizers_hold_a_deletion_up(self, models: Client) -> None:
        made = await models.create(model("a", finalizers=["example.org/one", "example.org/two"]))
        going = await models.delete("a")
        assert (going["kind"], going["metadata"]["uid"]) == ("ModelService", made["metadata"]["uid"])
        when = going["metadata"]["deletionTimestamp"]
        assert (await models.delete("a"))["metadata"]["deletionTimestamp"] == when
        with refused(409, "AlreadyExists"):
            await models.create(model("a"))
        with refused(422, "Invalid", "metadata.finalizers"):
            await models.merge("a", {"metadata": {"finalizers": ["example.org/one", "example.org/new"]}})
        left = await models.merge("a", {"metadata": {"finalizers": ["example.org/two"], "deletionTimestamp": None}})
        assert left["metadata"]["deletionTimestamp"] == when
        await models.merge("a", {"metadata": {"finalizers": None}})
        assert not await models.exists("a")

    async def test_dependents_go_with_their_owner_or_are_left_by_request(self, configs: Client) -> None:
        for policy in ("Background", "Orphan"):
            owner = (await configs.create(config(f"owner-{policy.lower()}")))["metadata"]
            part = config(f"part-{policy.lower()}")
            reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": owner["name"], "uid": owner["uid"]}
            part["metadata"]["ownerReferences"] = [reference]
            await configs.create(part)
            await configs.delete(owner["name"], propagationPolicy=policy)

        async def background() -> bool:
            return not await configs.exists("part-background")

        async def orphaned() -> bool:
            return not (await configs.get("part-orphan"))["metadata"].get("ownerReferences")

        await until(background, "the dependent stays")
        await until(orphaned, "the dependent isn't released")

    # List

    async def test_a_list_of_a_built_in_kind_leaves_the_kind_to_the_list(self, configs: Client) -> None:
        empty = await configs.list(labelSelector=SELECTED)
        assert (empty["kind"], empty["apiVersion"], empty["items"]) == ("ConfigMapList", "v1", [])
        made = await configs.create(config("a", MINE))
        listed = await configs.list(labelSelector=SELECTED)
        assert names(listed) == ["a"]
        assert not {"kind", "apiVersion"} & set(listed["items"][0])
        assert version(listed) >= version(made)

    async def test_a_list_of_custom_resources_tells_the_kind_of_each(self, models: Client) -> None:
        await models.create(model("a"))
        listed = await models.list()
        assert listed["kind"] == "ModelServiceList"
        assert [(item["kind"], item["apiVersion"]) for item in listed["items"]] == [
            ("ModelService", "llmos.ai/v1alpha1")
        ]

    async def test_a_list_of_all_namespaces(self, configs: Client, api: KubernetesAPI, namespace: str) -> None:
        await configs.create(config("a", {"test": namespace}))
        found = await api.request("GET", path_of("v1", "configmaps"), params={"labelSelector": f"test={namespace}"})
        assert [item["metadata"]["namespace"] for item in found["items"]] == [namespace]

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [
            ("test=mine,part=one", ["a"]),
            ("test==mine,part!=one", ["b", "c"]),
            ("test,part in (one, two)", ["a", "b"]),
            ("test,part notin (one)", ["b", "c"]),
            ("test,!part", ["c"]),
            ("test,part", ["a", "b"]),
        ],
    )
    async def test_label_selectors(self, configs: Client, selector: str, expected: list[str]) -> None:
        for name, part in (("a", {"part": "one"}), ("b", {"part": "two"}), ("c", {})):
            await configs.create(config(name, {**MINE, **part}))
        assert names(await configs.list(labelSelector=selector)) == expected

    async def test_field_selectors(self, configs: Client, secrets: Client) -> None:
        for name in ("a", "b"):
            await configs.create(config(name, MINE))
        assert names(await configs.list(fieldSelector="metadata.name=b")) == ["b"]
        assert names(await configs.list(fieldSelector="metadata.name!=b", labelSelector=SELECTED)) == ["a"]
        for name, kind in (("a", "Opaque"), ("b", "llmos.ai/test")):
            meta = {"name": name, "labels": MINE}
            await secrets.create({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": kind})
        assert names(await secrets.list(fieldSelector="type=llmos.ai/test", labelSelector=SELECTED)) == ["b"]
        with refused(400, "BadRequest"):
            await configs.list(fieldSelector="data.x=1")

    async def test_events_are_found_by_their_object(self, api: KubernetesAPI, namespace: str) -> None:
        events = Client(api, namespace, "events")
        for name, uid in (("a", "uid-1"), ("b", "uid-2")):
            about = {"kind": "ConfigMap", "name": name, "namespace": namespace, "uid": uid}
            await events.create(
                {"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "involvedObject": about}
            )
        assert names(await events.list(fieldSelector="involvedObject.uid=uid-2")) == ["b"]

    async def test_pages_are_those_of_one_moment(self, configs: Client) -> None:
        for name in ("a", "b", "c", "d", "e"):
            await configs.create(config(name, MINE, x="1"))
        first = await configs.list(limit="2", labelSelector=SELECTED)
        await configs.delete("c")
        await configs.merge("d", {"data": {"x": "2"}})
        await configs.create(config("f", MINE))
        rest = {"labelSelector": SELECTED, "limit": "2"}
        second = await configs.list(**rest, **{"continue": first["metadata"]["continue"]})
        third = await configs.list(**rest, **{"continue": second["metadata"]["continue"]})
        assert [names(page) for page in (first, second, third)] == [["a", "b"], ["c", "d"], ["e"]]
        assert second["items"][1]["data"] == {"x": "1"}
        assert {version(page) for page in (first, second, third)} == {version(first)}
        assert "continue" not in third["metadata"]

    async def test_a_version_of_the_future_is_refused(self, configs: Client) -> None:
        with refused(504, "Timeout", "ResourceVersionTooLarge"):
            await configs.list(limit="1", resourceVersion="9000000000000", resourceVersionMatch="NotOlderThan")

    # Watch

    async def test_a_watch_tells_every_change_after_a_version(self, configs: Client) -> None:
        await configs.create(config("before", MINE))
        since = (await configs.list(labelSelector=SELECTED))["metadata"]["resourceVersion"]
        made = await configs.create(config("a", MINE, x="1"))
        await configs.create(config("other"))
        changed = await configs.merge("a", {"data": {"x": "2"}})
        await configs.delete("a")
        async with configs.watch(since, labelSelector=SELECTED) as events:
            told = [await anext(events) for _ in range(3)]
            assert [event["type"] for event in told] == ["ADDED", "MODIFIED", "DELETED"]
            assert [event["object"] for event in told[:2]] == [made, changed]
            last = told[2]["object"]
            assert (last["kind"], last["data"]) == ("ConfigMap", {"x": "2"})
            assert version(last) > version(changed)
            await configs.create(config("b", MINE))
            assert (await anext(events))["object"]["metadata"]["name"] == "b"

    async def test_what_comes_and_goes_by_its_labels_is_added_and_deleted(self, configs: Client) -> None:
        made = await configs.create(config("a", x="1"))
        async with configs.watch(made["metadata"]["resourceVersion"], labelSelector=SELECTED) as events:
            await configs.merge("a", {"metadata": {"labels": MINE}})
            assert (await anext(events))["type"] == "ADDED"
            left = await configs.merge("a", {"metadata": {"labels": {"test": "other"}}})
            event = await anext(events)
        assert (event["type"], event["object"]["metadata"]["labels"]) == ("DELETED", MINE), "as it was last seen"
        assert version(event["object"]) == version(left)

    async def test_a_watch_without_history_begins_with_what_is_there(self, configs: Client) -> None:
        await configs.create(config("a", MINE))
        async with configs.watch("0", labelSelector=SELECTED) as events:
            event = await anext(events)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")

    async def test_a_watch_from_too_old_a_version_ends_with_410(self, configs: Client, too_old: str) -> None:
        async with configs.watch(too_old) as events:
            event = await anext(events)
        assert (event["type"], event["object"]["kind"]) == ("ERROR", "Status")
        assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")

    async def test_a_watch_ends_in_time_and_tells_where_it_was(self, configs: Client, watch_period: int) -> None:
        since = (await configs.list())["metadata"]["resourceVersion"]
        more = {"timeoutSeconds": str(watch_period), "allowWatchBookmarks": "true", "labelSelector": SELECTED}
        async with configs.watch(since, **more) as events:
            made = await configs.create(config("a", MINE))
            told = [event async for event in events]
        kinds = [event["type"] for event in told]
        assert kinds[0] == "ADDED"
        assert set(kinds[1:]) == {"BOOKMARK"}
        bookmark = told[-1]["object"]
        assert version(bookmark) >= version(made)
        assert bookmark["kind"] == "ConfigMap"
        assert "data" not in bookmark

    # Logs

    async def test_logs_of_pods(
        self, api: KubernetesAPI, namespace: str, finished_pod: Callable[[str], Awaitable[None]]
    ) -> None:
        await finished_pod("a")
        pods = Client(api, namespace, "pods")

        async def log(name: str, **params: str) -> bytes:
            async with api.lines(pods.path(name, "log"), params=params, idle=PATIENCE) as lines:
                return b"".join([line async for line in lines])

        assert await log("a") == b"one\ntwo\n"
        assert await log("a", container="main", tailLines="1") == b"two\n"
        assert await log("a", follow="true") == b"one\ntwo\n"
        with refused(404, "NotFound"):
            await log("b")
        with refused(400, "BadRequest", match="container other is not valid for pod a"):
            await log("a", container="other")
