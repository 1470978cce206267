"""People's namespaces on a real cluster: made on first need, filled, repaired, cleaned."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import Conflict, NotFound
from llmos.names import user_namespace
from llmos.resources import ModelService
from llmos_hub.controllers import registry
from llmos_hub.controllers.namespace_sweep import Sweep
from llmos_hub.controllers.namespaces.reconciler import namespace_controller
from llmos_hub.controllers.reconciler import Controller
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.managers.namespace_options import Binding, NamespaceOptions
from llmos_hub.managers.namespaces import KubernetesNamespaces
from llmos_hub.managers.nodes import KubernetesNodes
from llmos_hub.names import KEY_MISSING_FOR, SCOPE_MANAGE
from llmos_hub.policy import Caller, Rights
from llmos_hub.stores.kubernetes.store import KubernetesStore
from tests.support.cluster import Cluster
from tests.support.fake_people import FakePeople

ALONE = "sees and marks the namespaces of all"
CREATED = "2026-01-01T00:00:00.000000Z"


@dataclass
class Platform:
    """The controller of one release, and a person who is new to it."""

    cluster: Cluster
    api: KubernetesAPI
    release: str
    options: NamespaceOptions
    people: FakePeople
    rights: Rights
    controller: Controller[Any]

    @property
    def namespace(self) -> str:
        return self.rights.caller.namespace

    @property
    def namespaces(self) -> KubernetesNamespaces:
        return KubernetesNamespaces(self.api, self.options, self.people)

    def kubectl(self, *words: str) -> str:
        return self.cluster.kubectl("-n", self.namespace, *words)

    def get(self, *words: str) -> Any:
        return self.cluster.get("-n", self.namespace, *words)

    async def until(self, holds: Callable[[], Any], what: str, within: float = 20.0) -> float:
        """Return the seconds it took."""
        began = time.monotonic()
        while time.monotonic() - began < within:
            with contextlib.suppress(AssertionError):
                if await asyncio.to_thread(holds):
                    return time.monotonic() - began
            await asyncio.sleep(0.1)
        message = f"{what}: not within {within:.0f} s"
        raise AssertionError(message)


@pytest.fixture
async def platform(cluster: Cluster, api: KubernetesAPI) -> AsyncIterator[Platform]:
    release = cluster.namespace("k5")
    name = f"k5-{uuid.uuid4().hex[:8]}"
    options = NamespaceOptions(
        instance=release,
        public=False,
        quota={"pods": "2", "requests.memory": "1Gi"},
        counts={"count/modelservices.llmos.ai": "1", "count/secrets": "500"},
        bindings=[Binding(cluster_role="view", service_account="hub")],
    )
    controller = namespace_controller(registry.Cluster(api, options, release, leading=lambda: True))
    rights = Rights(Caller(name, scopes=frozenset({SCOPE_MANAGE})))
    people = FakePeople({name: CREATED, "somebody": CREATED})
    platform = Platform(cluster, api, release, options, people, rights, controller)
    tasks = [asyncio.create_task(work) for work in (controller.follow(), controller.work())]
    try:
        yield platform
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        cluster.attempt("kubectl", "delete", "namespace", platform.namespace, "--ignore-not-found", "--wait=false")


async def test_a_namespace_is_made_on_first_need_and_filled_before_pods_start(platform: Platform) -> None:
    began = time.monotonic()
    state = await platform.namespaces.ensure(platform.rights, platform.namespace, prepared=True)
    print(f"\nmade and prepared in {time.monotonic() - began:.2f} s")
    assert (state.created, state.prepared, state.service_account) == (True, True, "llmos")
    meta = platform.cluster.get("namespace", platform.namespace)["metadata"]
    assert meta["labels"]["app.kubernetes.io/managed-by"] == "llmos"
    assert meta["labels"]["llmos.ai/owner-kind"] == "user"
    assert meta["annotations"]["llmos.ai/owner"] == platform.rights.caller.name
    assert meta["annotations"]["llmos.ai/owner-created"] == CREATED
    names = {item["metadata"]["name"] for item in platform.get("networkpolicies")["items"]}
    assert names == {"llmos-default-deny", "llmos-names", "llmos-servers", "llmos-engines", "llmos-outside"}
    hard = platform.get("resourcequota", "llmos")["spec"]["hard"]
    assert hard == {"pods": "2", "requests.memory": "1Gi", "count/modelservices.llmos.ai": "1", "count/secrets": "500"}
    assert platform.get("serviceaccount", "llmos")["automountServiceAccountToken"] is False
    account = f"system:serviceaccount:{platform.release}:hub"
    can = platform.cluster.attempt(
        "kubectl", "-n", platform.namespace, "auth", "can-i", "list", "pods", "--as", account
    )
    assert can.stdout.strip() == "yes"
    elsewhere = platform.cluster.attempt("kubectl", "-n", "default", "auth", "can-i", "list", "pods", "--as", account)
    assert elsewhere.stdout.strip() == "no"
    own = f"system:serviceaccount:{platform.namespace}:llmos"
    nothing = platform.cluster.attempt("kubectl", "-n", platform.namespace, "auth", "can-i", "get", "pods", "--as", own)
    assert nothing.stdout.strip() == "no"


async def test_nobody_fills_the_cluster_s_database(platform: Platform) -> None:
    await platform.namespaces.ensure(platform.rights, platform.namespace, prepared=True)
    await platform.until(lambda: platform.get("resourcequota", "llmos").get("status", {}).get("used"), "the quota")

    def make(name: str) -> str:
        body = {"apiVersion": "llmos.ai/v1alpha1", "kind": "ModelService", "metadata": {"name": name}}
        text = json.dumps({**body, "spec": {"model": "demo://tiny"}})
        return platform.cluster.attempt("kubectl", "-n", platform.namespace, "create", "-f", "-", stdin=text).stderr

    assert make("one") == ""
    assert "exceeded quota: llmos, requested: count/modelservices.llmos.ai=1" in make("two")


async def test_the_cluster_holds_pods_to_it(platform: Platform) -> None:
    await platform.namespaces.ensure(platform.rights, platform.namespace, prepared=True)

    def pod(name: str, **spec: Any) -> str:
        container = {
            "name": "a",
            "image": "registry.local/none:1",
            "imagePullPolicy": "Never",
            **spec.pop("container", {}),
        }
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {
                "serviceAccountName": "llmos",
                "nodeSelector": {"llmos.ai/test": "none"},
                "containers": [container],
                **spec,
            },
        }
        done = platform.cluster.attempt(
            "kubectl", "-n", platform.namespace, "create", "-f", "-", stdin=json.dumps(body)
        )
        return done.stderr or done.stdout

    # the quota's controller has to have counted once
    await platform.until(lambda: platform.get("resourcequota", "llmos")["status"].get("used"), "the quota's count")
    assert "created" in pod("plain")
    assert platform.get("pod", "plain")["spec"]["containers"][0]["resources"]["requests"] == {
        "cpu": "100m",
        "memory": "128Mi",
    }
    assert "violates PodSecurity" in pod("privileged", container={"securityContext": {"privileged": True}})
    assert "violates PodSecurity" in pod("host", hostNetwork=True)
    assert "exceeded quota: llmos" in pod("large", container={"resources": {"requests": {"memory": "2Gi"}}})


async def test_what_somebody_edits_is_put_right(platform: Platform) -> None:
    await platform.namespaces.ensure(platform.rights, platform.namespace, prepared=True)
    took = []
    platform.kubectl("patch", "networkpolicy", "llmos-default-deny", "--type=merge", "-p", '{"spec":{"egress":[{}]}}')
    took.append(
        await platform.until(
            lambda: "egress" not in platform.get("networkpolicy", "llmos-default-deny")["spec"], "the policy"
        )
    )
    platform.kubectl("patch", "resourcequota", "llmos", "--type=merge", "-p", '{"spec":{"hard":{"pods":"1000"}}}')
    took.append(
        await platform.until(lambda: platform.get("resourcequota", "llmos")["spec"]["hard"]["pods"] == "2", "the quota")
    )
    platform.kubectl("delete", "networkpolicy", "llmos-engines")
    took.append(await platform.until(lambda: platform.get("networkpolicy", "llmos-engines"), "what was deleted"))
    platform.kubectl("label", "limitrange", "llmos", "app.kubernetes.io/managed-by-")
    took.append(
        await platform.until(
            lambda: "app.kubernetes.io/managed-by" in platform.get("limitrange", "llmos")["metadata"]["labels"],
            "a label",
        )
    )
    print(f"\nput right after {', '.join(f'{seconds:.1f}' for seconds in took)} s")
    assert max(took) < 20, "what is changed by hand does not last"
    assert platform.get("networkpolicy", "llmos-default-deny")["spec"]["policyTypes"] == ["Ingress", "Egress"]
    hard = platform.get("resourcequota", "llmos")["spec"]["hard"]
    assert hard == {**platform.options.quota, **platform.options.counts}


async def test_what_is_as_it_should_be_is_applied_no_more(platform: Platform) -> None:
    """The comparison knows what a real API server makes of our objects."""
    await platform.namespaces.ensure(platform.rights, platform.namespace, prepared=True)
    await asyncio.sleep(2.0)
    before = platform.api.calls.get("PATCH", 0)
    for _ in range(3):
        await platform.controller.reconciler.reconcile(platform.cluster.get("namespace", platform.namespace))
    assert platform.api.calls.get("PATCH", 0) == before


async def test_it_goes_with_its_owner_but_not_before_and_not_with_volumes(
    platform: Platform, api: KubernetesAPI, tmp_path: Path
) -> None:
    await platform.namespaces.ensure(platform.rights, platform.namespace, prepared=True)
    store = KubernetesStore(api)
    meta = {"name": "chat", "namespace": platform.namespace}
    await store.create(
        ModelService.parse({"kind": "ModelService", "metadata": meta, "spec": {"model": "demo://tiny", "replicas": 0}})
    )
    claim = tmp_path / "claim.json"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, "storageClassName": "none"}
    claim.write_text(
        json.dumps({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "home"}, "spec": spec})
    )
    platform.kubectl("create", "-f", str(claim))
    now = 0.0
    parts = registry.Cluster(api, platform.options, "llmos", leading=lambda: True)
    sweep = Sweep(parts, store, platform.people, clock=lambda: now)

    async def look() -> None:
        await sweep.look([platform.cluster.get("namespace", platform.namespace)])

    await look()
    assert KEY_MISSING_FOR not in platform.cluster.get("namespace", platform.namespace)["metadata"]["annotations"]
    del platform.people.users[platform.rights.caller.name]
    await look()
    assert KEY_MISSING_FOR in platform.cluster.get("namespace", platform.namespace)["metadata"]["annotations"]
    await store.get(ModelService, platform.namespace, "chat")
    now += 100 * 3600
    await look()
    with pytest.raises(NotFound):
        await store.get(ModelService, platform.namespace, "chat")
    assert platform.get("pvc", "home")
    platform.kubectl("delete", "pvc", "home")
    now += 600
    await look()
    await platform.until(
        lambda: platform.cluster.attempt("kubectl", "get", "namespace", platform.namespace).returncode != 0,
        "the namespace gone",
        60,
    )


async def test_a_namespace_of_the_clusters_own_is_refused(platform: Platform) -> None:
    platform.cluster.kubectl("create", "namespace", platform.namespace)
    with pytest.raises(Conflict, match="is not LLMOS'"):
        await platform.namespaces.ensure(platform.rights, platform.namespace)
    assert platform.get("networkpolicies")["items"] == []
    assert platform.namespace == user_namespace(platform.rights.caller.name)


async def test_nodes_of_a_real_cluster(cluster: Cluster, api: KubernetesAPI) -> None:
    nodes = await KubernetesNodes(api, "kube-system").all()
    assert [node.name for node in nodes] == sorted(item["metadata"]["name"] for item in cluster.get("nodes")["items"])
    for node in nodes:
        assert node.ready, node.message
        assert 0 < node.cpus_free <= node.cpus
        assert 0 < node.memory_free <= node.memory
        assert node.architecture in ("amd64", "arm64")
    names = {(work.namespace, work.kind) for node in nodes for work in node.running}
    assert ("kube-system", "System") in names
