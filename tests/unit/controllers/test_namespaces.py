"""Namespaces are filled, repaired and cleaned; on a small API server, with a real store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, ClassVar, Literal
from unittest import mock

import pytest

from llmos.errors import Conflict, NotFound, Unavailable
from llmos.names import KEY_PREPARED
from llmos.resources import KINDS, ModelService, Resource
from llmos.resources.credential import CredentialSpec, CredentialStatus
from llmos_hub.controllers.cluster_informer import Object, covers
from llmos_hub.controllers.namespace_sweep import Sweep
from llmos_hub.controllers.namespaces import reconciler as namespaces_reconciler
from llmos_hub.controllers.namespaces.reconciler import CONTENTS, NamespaceReconciler, namespace_controller
from llmos_hub.controllers.reconciler import Controller, Queueing, Result
from llmos_hub.controllers.registry import Cluster, ClusterControllerSpec, load_specs
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.managers.namespace_objects import make_namespace, owner_of
from llmos_hub.managers.namespace_options import Binding, NamespaceOptions, Network
from llmos_hub.names import KEY_MISSING_FOR
from llmos_hub.policy import NamespaceOwner
from llmos_hub.stores.base import Store
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.fake_people import FakePeople
from tests.support.waiting import eventually

HOUR = 3600.0
ADA = NamespaceOwner("user", "ada", "2026-01-01T00:00:00Z")
OPTIONS = NamespaceOptions(bindings=[Binding(cluster_role="in-namespace", service_account="hub")])
POLICIES = ["llmos-default-deny", "llmos-engines", "llmos-names", "llmos-outside", "llmos-servers"]


class Recorded(NamespaceReconciler):
    """A reconciler that records which namespaces it has reconciled."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reconciled: set[str] = set()

    async def reconcile(self, there: Object) -> Result[Object]:
        result = await super().reconcile(there)
        self.reconciled.add(there["metadata"]["name"])
        return result

    def settled(self, cluster: FakeKubernetes) -> bool:
        """Return whether it has reconciled all namespaces and knows every object as it is now."""
        if not self.reconciled >= {name for _, name in self.namespaces}:
            return False
        informers = {CONTENTS[kind][1]: informer for kind, informer in self.contents.items()}
        for plural, informer in {"namespaces": self.namespaces, **informers}.items():
            reflector = informer._reflector
            selector = dict(part.split("=") for part in reflector._params["labelSelector"].split(","))
            stored = {
                key[1:]: obj["metadata"]["resourceVersion"]
                for key, obj in cluster.objects.items()
                if key[0] == plural and selector.items() <= obj["metadata"].get("labels", {}).items()
            }
            if stored != {key: obj["metadata"]["resourceVersion"] for key, obj in reflector.objects.items()}:
                return False
        return True


@dataclass
class Bench:
    cluster: FakeKubernetes
    api: KubernetesAPI
    leading: bool = True
    running: Controller[Object] | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def controller(self, options: NamespaceOptions = OPTIONS) -> Controller[Object]:
        with mock.patch.object(namespaces_reconciler, "NamespaceReconciler", Recorded):
            return namespace_controller(self.parts(options))

    def parts(self, options: NamespaceOptions = OPTIONS) -> Cluster:
        return Cluster(self.api, options, "llmos", leading=lambda: self.leading)

    def start(self, options: NamespaceOptions = OPTIONS) -> None:
        self.running = controller = self.controller(options)
        self.tasks = [asyncio.create_task(work) for work in (controller.follow(), controller.work())]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        for task in self.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self.tasks = []

    def put(self, owner: NamespaceOwner = ADA, name: str = "user-ada", options: NamespaceOptions = OPTIONS) -> None:
        self.cluster.put("namespaces", make_namespace(name, owner, options))

    def prepared(self, name: str = "user-ada") -> str:
        obj = self.cluster.get("namespaces", name)
        return str((obj or {"metadata": {}})["metadata"].get("annotations", {}).get(KEY_PREPARED, ""))

    async def filled(self, name: str = "user-ada") -> None:
        await self.cluster.until(lambda: self.prepared(name), f"{name} prepared")

    async def settled(self) -> None:
        """Wait until the controller has seen all objects as they are now, and has nothing to do."""
        assert self.running is not None
        queue, reconciler = self.running.queue, self.running.reconciler
        assert isinstance(reconciler, Recorded)
        await eventually(lambda: queue.idle and reconciler.settled(self.cluster), "a settled controller")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": "llmos"}})
        bench = Bench(cluster, api)
        yield bench
        await bench.stop()


async def test_a_new_namespace_is_filled_and_only_then_said_to_be_prepared(bench: Bench) -> None:
    bench.start()
    bench.put()
    await bench.filled()
    cluster = bench.cluster
    assert cluster.names("networkpolicies", "user-ada") == POLICIES
    assert cluster.names("resourcequotas", "user-ada") == ["llmos"]
    assert cluster.names("limitranges", "user-ada") == ["llmos"]
    assert cluster.names("serviceaccounts", "user-ada") == ["llmos"]
    assert cluster.names("rolebindings", "user-ada") == ["llmos:in-namespace:hub"]
    last = next(
        n for n, (_, key, _, new) in enumerate(cluster.history) if key[2] == "user-ada" and KEY_PREPARED in str(new)
    )
    filled = [n for n, (_, key, _, _) in enumerate(cluster.history) if key[1] == "user-ada"]
    assert max(filled) < last
    first = next(key for _, key, _, _ in cluster.history if key[1] == "user-ada")
    assert first == ("networkpolicies", "user-ada", "llmos-default-deny")


async def test_what_is_shared_with_everybody_is_made(bench: Bench) -> None:
    bench.start()
    await bench.filled("public")
    assert bench.cluster.names("networkpolicies", "public") == POLICIES
    assert bench.cluster.names("resourcequotas", "public") == []


async def test_what_is_as_it_should_be_is_not_written_again(bench: Bench) -> None:
    bench.start()
    bench.put()
    await bench.filled()
    await bench.filled("public")
    await bench.settled()
    await bench.stop()
    bench.cluster.writes.clear()
    bench.start()
    await bench.settled()
    assert bench.cluster.writes == {}


async def test_what_somebody_edits_or_deletes_is_put_right(bench: Bench) -> None:
    bench.start()
    bench.put()
    await bench.filled()
    cluster = bench.cluster

    def open_up(obj: dict[str, Any]) -> None:
        obj["spec"]["egress"] = [{}]

    cluster.edit("networkpolicies", "llmos-default-deny", "user-ada", open_up)
    await cluster.until(
        lambda: cluster.objects["networkpolicies", "user-ada", "llmos-default-deny"]["spec"]["egress"] == []
    )
    cluster.edit("resourcequotas", "llmos", "user-ada", lambda obj: obj["spec"]["hard"].update(pods="1000"))
    await cluster.until(lambda: cluster.objects["resourcequotas", "user-ada", "llmos"]["spec"]["hard"]["pods"] == "50")
    cluster.remove("networkpolicies", "llmos-engines", "user-ada")
    await cluster.until(lambda: "llmos-engines" in cluster.names("networkpolicies", "user-ada"))
    cluster.edit("limitranges", "llmos", "user-ada", lambda obj: obj["metadata"]["labels"].clear())
    await cluster.until(lambda: cluster.objects["limitranges", "user-ada", "llmos"]["metadata"]["labels"])
    cluster.edit(
        "namespaces", "user-ada", "", lambda obj: obj["metadata"]["labels"].pop("pod-security.kubernetes.io/enforce")
    )
    enforced = await cluster.until(
        lambda: cluster.objects["namespaces", "", "user-ada"]["metadata"]["labels"].get(
            "pod-security.kubernetes.io/enforce"
        )
    )
    assert enforced == "baseline"
    await bench.settled()
    assert cluster.names("networkpolicies", "user-ada") == POLICIES
    assert cluster.objects["networkpolicies", "user-ada", "llmos-default-deny"]["spec"]["egress"] == []
    assert cluster.objects["resourcequotas", "user-ada", "llmos"]["spec"]["hard"]["pods"] == "50"


async def test_what_is_no_longer_allowed_goes(bench: Bench) -> None:
    bench.start()
    bench.put()
    await bench.filled()
    before = bench.prepared()
    bench.cluster.put(
        "networkpolicies",
        {"metadata": {"name": "an-admins-own", "namespace": "user-ada"}, "spec": {"podSelector": {}}},
    )
    await bench.stop()
    bench.start(
        OPTIONS.model_copy(update={"network": Network(internet=False), "bindings": [], "quota": {}, "counts": {}})
    )
    await bench.cluster.until(lambda: bench.prepared() not in ("", before))
    assert "llmos-outside" not in bench.cluster.names("networkpolicies", "user-ada")
    assert bench.cluster.names("rolebindings", "user-ada") == []
    assert bench.cluster.names("resourcequotas", "user-ada") == []
    assert "an-admins-own" in bench.cluster.names("networkpolicies", "user-ada")


async def test_other_namespaces_are_left_alone(bench: Bench) -> None:
    bench.cluster.put("namespaces", {"metadata": {"name": "kube-system"}})
    bench.put(NamespaceOwner("user", "grace"), "user-grace", OPTIONS.model_copy(update={"instance": "another-release"}))
    going = make_namespace("user-gone", NamespaceOwner("user", "gone"), OPTIONS)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    bench.cluster.put("namespaces", going)
    bench.start()
    await bench.filled("public")
    await bench.settled()
    assert {key[1] for key in bench.cluster.objects if key[1]} == {"public"}


async def test_pull_secrets_are_copied(bench: Bench) -> None:
    secret = {
        "metadata": {"name": "registry", "namespace": "llmos"},
        "type": "kubernetes.io/dockerconfigjson",
        "data": {"a": "YQ=="},
    }
    bench.cluster.put("secrets", secret)
    bench.start(OPTIONS.model_copy(update={"pull_secrets": ["registry", "missing"]}))
    bench.put()
    await bench.filled()
    copied = bench.cluster.get("secrets", "registry", "user-ada")
    assert copied is not None
    assert (copied["type"], copied["data"]) == (secret["type"], secret["data"])
    account = bench.cluster.get("serviceaccounts", "llmos", "user-ada")
    assert account is not None
    assert account["imagePullSecrets"] == [{"name": "registry"}, {"name": "missing"}]


async def test_who_does_not_lead_writes_nothing(bench: Bench) -> None:
    bench.leading = False
    bench.start()
    bench.put()
    assert bench.running is not None
    running = bench.running
    await eventually(lambda: running.queue.failures(("", "user-ada")) >= 2, "attempts")
    assert bench.cluster.writes == {}
    with pytest.raises(Conflict):
        await running.reconciler._apply(make_namespace("x", ADA, OPTIONS))  # type: ignore[attr-defined]
    bench.leading = True
    await bench.filled()


async def test_it_goes_on_after_the_api_server_was_away(bench: Bench) -> None:
    bench.start()
    await bench.filled("public")
    bench.cluster.down = True
    bench.put()
    await eventually(lambda: bench.cluster.refused >= 2, "attempts")
    assert not bench.prepared(), "it can't be: nobody was reached"
    bench.cluster.down = False
    await bench.filled()
    assert bench.cluster.names("networkpolicies", "user-ada") == POLICIES


def test_an_owner_can_be_told_from_a_plain_name_where_the_annotation_is_gone() -> None:
    obj = make_namespace("user-ada", ADA, OPTIONS)
    assert owner_of(obj) == ADA
    obj["metadata"]["annotations"] = None
    assert owner_of(obj) == NamespaceOwner("user", "ada")
    obj["metadata"]["name"] = "user-ada--0123456789abcdef"
    assert owner_of(obj) is None
    assert owner_of({"metadata": {"name": "default"}}) is None


@pytest.mark.parametrize(
    ("there", "wanted", "good"),
    [
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        ({}, {"a": []}, True),
        ({"a": [{}]}, {"a": []}, False),
        ({"a": [{"x": 1, "y": 2}]}, {"a": [{"x": 1}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, False),
        ({}, {"a": {}}, True),
        ({}, {"a": {"b": 1}}, False),
        ({}, {"a": False}, True),
        ({"a": True}, {"a": False}, False),
        ({"a": "x"}, {"a": {"b": 1}}, False),
    ],
)
def test_what_covers_what(there: Any, wanted: Any, good: bool) -> None:
    assert covers(there, wanted) is good


# Owners who are gone


@dataclass
class Cleaning:
    bench: Bench
    store: Store
    people: FakePeople
    options: NamespaceOptions = field(default_factory=lambda: OPTIONS)
    now: float = 0.0
    sweep: Sweep = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Take the sweep of another process."""
        self.sweep = Sweep(self.bench.parts(self.options), self.store, self.people, clock=lambda: self.now)

    async def look(self) -> None:
        await self.sweep.look([obj for key, obj in self.bench.cluster.objects.items() if key[0] == "namespaces"])

    def annotations(self, name: str = "user-ada") -> dict[str, str]:
        obj = self.bench.cluster.get("namespaces", name)
        assert obj is not None, f"{name} is gone"
        found: dict[str, str] = obj["metadata"].get("annotations") or {}
        return found

    async def model(self, name: str = "chat") -> None:
        meta = {"name": name, "namespace": "user-ada"}
        await self.store.create(
            ModelService.parse({"kind": "ModelService", "metadata": meta, "spec": {"model": "demo://tiny"}})
        )


@pytest.fixture
def cleaning(bench: Bench, store: Store) -> Cleaning:
    bench.put()
    return Cleaning(bench, store, FakePeople({"grace": "2026-01-01T00:00:00Z"}))


async def test_a_person_who_is_gone_is_cleaned_up_after_the_grace_period(cleaning: Cleaning) -> None:
    await cleaning.model()
    await cleaning.look()
    assert cleaning.annotations()[KEY_MISSING_FOR] == "0"
    cleaning.now += 71 * HOUR
    await cleaning.look()
    assert await cleaning.store.get(ModelService, "user-ada", "chat")
    cleaning.now += 2 * HOUR
    await cleaning.look()
    with pytest.raises(NotFound):
        await cleaning.store.get(ModelService, "user-ada", "chat")
    assert cleaning.bench.cluster.get("namespaces", "user-ada") is None


async def test_only_time_that_one_process_has_seen_pass_counts(cleaning: Cleaning) -> None:
    await cleaning.model()
    await cleaning.look()
    for hours in (71, 100, 1000):  # each process begins with a clock of its own
        cleaning.restart()
        cleaning.now += hours * HOUR
        await cleaning.look()
    assert cleaning.annotations()[KEY_MISSING_FOR] == "0"
    cleaning.now += 71 * HOUR
    await cleaning.look()
    assert cleaning.annotations()[KEY_MISSING_FOR] == str(71 * 3600)
    cleaning.restart()
    await cleaning.look()
    assert await cleaning.store.get(ModelService, "user-ada", "chat")
    cleaning.now += 1 * HOUR
    await cleaning.look()
    assert cleaning.bench.cluster.get("namespaces", "user-ada") is None


async def test_a_date_that_jumps_ends_no_grace_period(cleaning: Cleaning, monkeypatch: pytest.MonkeyPatch) -> None:
    await cleaning.model()
    await cleaning.look()

    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime(2099, 1, 1, tzinfo=tz)

    for module in ("llmos.resources.base", "llmos_hub.controllers.server_sweep"):
        monkeypatch.setattr(f"{module}.datetime", Later)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    cleaning.now += 600
    await cleaning.look()
    assert cleaning.annotations()[KEY_MISSING_FOR] == "600"
    assert await cleaning.store.get(ModelService, "user-ada", "chat")


@pytest.mark.parametrize("text", ["2026-05-01T00:00:00+00:00", "-1", "1e9", "nan", "\u0663", ""])
async def test_a_count_that_is_none_begins_again(cleaning: Cleaning, text: str) -> None:
    await cleaning.look()
    cleaning.annotations()[KEY_MISSING_FOR] = text
    cleaning.now += 1000 * HOUR
    await cleaning.look()
    assert cleaning.annotations()[KEY_MISSING_FOR] == "0"


async def test_who_comes_back_finds_everything(cleaning: Cleaning) -> None:
    await cleaning.model()
    await cleaning.look()
    cleaning.people.users["ada"] = ADA.created
    cleaning.now += 30 * 24 * HOUR
    await cleaning.look()
    assert KEY_MISSING_FOR not in cleaning.annotations()
    assert await cleaning.store.get(ModelService, "user-ada", "chat")


async def test_volumes_stay_unless_the_settings_say_otherwise(cleaning: Cleaning) -> None:
    await cleaning.model()
    for name in ("home", "llmos-models"):
        cleaning.bench.cluster.put("persistentvolumeclaims", {"metadata": {"name": name, "namespace": "user-ada"}})
    await cleaning.look()
    cleaning.now += 73 * HOUR
    await cleaning.look()
    with pytest.raises(NotFound):
        await cleaning.store.get(ModelService, "user-ada", "chat")
    assert cleaning.annotations()
    assert cleaning.bench.cluster.names("persistentvolumeclaims", "user-ada") == ["home", "llmos-models"]
    cleaning.options = OPTIONS.model_copy(update={"delete_volumes": True})
    cleaning.restart()
    await cleaning.look()
    assert cleaning.bench.cluster.get("namespaces", "user-ada") is None


class Crate(Resource):
    """A made-up kind that holds data."""

    plural: ClassVar[str] = "crates"
    singular: ClassVar[str] = "crate"
    holds_data: ClassVar[bool] = True

    kind: Literal["Crate"] = "Crate"
    spec: CredentialSpec = CredentialSpec()
    status: CredentialStatus = CredentialStatus()


async def test_resources_that_hold_data_stay_too(cleaning: Cleaning, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "Crate", Crate)
    await cleaning.model()
    await cleaning.store.create(Crate.parse({"metadata": {"name": "photos", "namespace": "user-ada"}}))
    await cleaning.look()
    cleaning.now += 73 * HOUR
    await cleaning.look()
    with pytest.raises(NotFound):
        await cleaning.store.get(ModelService, "user-ada", "chat")
    assert await cleaning.store.get(Crate, "user-ada", "photos")
    assert cleaning.annotations()
    cleaning.options = OPTIONS.model_copy(update={"delete_volumes": True})
    cleaning.restart()
    await cleaning.look()
    with pytest.raises(NotFound):
        await cleaning.store.get(Crate, "user-ada", "photos")
    assert cleaning.bench.cluster.get("namespaces", "user-ada") is None


async def test_a_cache_of_models_keeps_no_namespace(cleaning: Cleaning) -> None:
    cleaning.bench.cluster.put(
        "persistentvolumeclaims", {"metadata": {"name": "llmos-models", "namespace": "user-ada"}}
    )
    await cleaning.look()
    cleaning.now += 73 * HOUR
    await cleaning.look()
    assert cleaning.bench.cluster.get("namespaces", "user-ada") is None


async def test_a_name_made_anew_is_somebody_else(cleaning: Cleaning) -> None:
    cleaning.people.users["ada"] = "2026-04-30T00:00:00Z"
    await cleaning.look()
    assert KEY_MISSING_FOR in cleaning.annotations()


async def test_when_somebody_was_made_is_noted_where_it_was_not_known(cleaning: Cleaning) -> None:
    cleaning.bench.put(NamespaceOwner("user", "grace"), "user-grace")
    await cleaning.look()
    assert cleaning.annotations("user-grace")["llmos.ai/owner-created"] == "2026-01-01T00:00:00Z"


async def test_a_hub_that_says_nothing_says_nothing_about_anyone(cleaning: Cleaning) -> None:
    cleaning.people.away = True
    with pytest.raises(Unavailable):
        await cleaning.look()
    cleaning.people.away = False
    cleaning.people.users.clear()
    await cleaning.look()
    assert KEY_MISSING_FOR not in cleaning.annotations()


async def test_groups_and_what_is_nobodys(cleaning: Cleaning) -> None:
    cleaning.people.groups.add("vision")
    cleaning.bench.put(NamespaceOwner("group", "vision"), "group-vision")
    cleaning.bench.put(NamespaceOwner("group", "nlp"), "group-nlp")
    cleaning.bench.put(NamespaceOwner("platform", "public"), "public")
    cleaning.bench.cluster.put("namespaces", {"metadata": {"name": "user-foreign", "labels": {}}})
    await cleaning.look()
    marked = {
        name for name in cleaning.bench.cluster.names("namespaces") if KEY_MISSING_FOR in cleaning.annotations(name)
    }
    assert marked == {"group-nlp", "user-ada"}
    cleaning.now += 73 * HOUR
    cleaning.bench.leading = False
    with pytest.raises(Conflict):
        await cleaning.look()
    cleaning.bench.leading = True
    cleaning.now += 73 * HOUR
    await cleaning.look()
    assert cleaning.bench.cluster.names("namespaces") == ["group-vision", "llmos", "public", "user-foreign"]


async def test_the_sweep_checks_the_releases_namespaces_while_leading(cleaning: Cleaning) -> None:
    bench = cleaning.bench
    bench.put(NamespaceOwner("user", "eve"), "user-eve", OPTIONS.model_copy(update={"instance": "another-release"}))
    sweep = Sweep(bench.parts(), cleaning.store, cleaning.people, clock=lambda: cleaning.now)
    working = asyncio.create_task(sweep.work())
    try:
        await bench.cluster.until(lambda: KEY_MISSING_FOR in cleaning.annotations(), "user-ada marked")
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    assert KEY_MISSING_FOR not in cleaning.annotations("user-eve")


async def test_it_is_one_of_the_controllers(bench: Bench) -> None:
    (spec,) = [spec for spec in load_specs() if isinstance(spec, ClusterControllerSpec)]
    assert spec.name == "Namespace"
    bench.running = controller = spec.make(Cluster(bench.api, OPTIONS, "llmos", lambda: True), Queueing(workers=2))
    controller.stand_by()
    bench.tasks = [asyncio.create_task(controller.follow())]
    bench.put()
    await eventually(lambda: controller.connected and controller.informer.get(("", "user-ada")), "a known namespace")
    assert bench.cluster.writes == {}, "it doesn't lead"
    controller.begin()
    bench.tasks.append(asyncio.create_task(controller.work()))
    await bench.filled()
