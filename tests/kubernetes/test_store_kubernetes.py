"""The contract suite on a real API server, and what is particular to a cluster."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest

from llmos.errors import Conflict, Expired, Forbidden, Insufficient, NotFound, Unavailable
from llmos.resources import Credential, ModelService, Resource
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI, path_of
from llmos_hub.stores import open_store
from llmos_hub.stores.base import ADDED, BOOKMARK, MODIFIED, Listing, Page, Store, WatchEvent
from llmos_hub.stores.kubernetes.store import KubernetesStore
from llmos_hub.stores.routed import RoutedStore
from tests.support.breaking import compact
from tests.support.cluster import Cluster, wait_for
from tests.support.store_contract import ADA, GRACE, HOLD, StoreContract, follow, model, next_change
from tests.support.tcp_proxy import TCPProxy

ALONE = "counts writes and lists all namespaces"
R = TypeVar("R", bound=Resource)
PLACES = (ADA, GRACE, None)
"""The suite's namespaces; None for what belongs to the whole platform."""


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> Iterator[None]:
    """The namespaces; another run of the suite on the same cluster would get in its way."""
    there = {item["metadata"]["name"] for item in cluster.get("namespaces")["items"]}
    made = [name for name in (ADA, GRACE) if name not in there]
    for name in made:
        cluster.kubectl("create", "namespace", name)
    yield
    if made:
        cluster.kubectl("delete", "namespace", "--wait=false", *made)


@pytest.fixture
async def cluster_store(places: None, cluster: Cluster) -> AsyncIterator[KubernetesStore]:
    """An empty store in the cluster."""
    opened = KubernetesStore(KubernetesAPI(kubeconfig=cluster.kubeconfig))
    try:
        await empty(opened)
        yield opened
        await empty(opened)
    finally:
        await opened.close()


class OwnPlaces(RoutedStore):
    """A store that has all to itself, as the suite expects it, on a cluster where others have things of their own."""

    async def list(self, kind: type[R], namespace: str | None = None, **more: Any) -> Listing[R]:
        found = await super().list(kind, namespace, **more)
        return Listing([item for item in found.items if item.metadata.namespace in PLACES], found.resource_version)

    async def page(self, kind: type[R], namespace: str | None = None, **more: Any) -> Page[R]:
        found = await super().page(kind, namespace, **more)
        items = [item for item in found.items if item.metadata.namespace in PLACES]
        return Page(items, found.resource_version, found.token)

    @contextlib.asynccontextmanager
    async def watch(
        self, kind: type[R], namespace: str | None = None, **more: Any
    ) -> AsyncIterator[AsyncIterator[WatchEvent[R]]]:
        async with super().watch(kind, namespace, **more) as events:
            yield Own(events)


class Own:
    """The events of one's own places; a cancelled wait loses nothing here either."""

    def __init__(self, events: AsyncIterator[WatchEvent[Any]]) -> None:
        self._events = events

    def __aiter__(self) -> Own:
        return self

    async def __anext__(self) -> WatchEvent[Any]:
        while True:
            event = await anext(self._events)
            if event.resource is None or event.resource.metadata.namespace in PLACES:
                return event


@pytest.fixture
async def store(cluster_store: KubernetesStore, redis_url: str, encryption_key: str) -> AsyncIterator[Store]:
    """The same, with Settings in a real Valkey."""
    database = open_store(redis_url, encryption_key)
    try:
        yield OwnPlaces(cluster_store, database)
    finally:
        await database.close()


async def empty(store: Store) -> None:
    for kind in (ModelService, Credential):
        for namespace in (ADA, GRACE):
            for found in (await store.list(kind, namespace)).items:
                resource = found
                if resource.metadata.finalizers:
                    resource.metadata.finalizers = []
                    resource.metadata.resource_version = None
                    resource = await store.update(resource)
                if resource.metadata.deletion_timestamp is None:
                    await store.delete(kind, namespace, resource.metadata.name)


class TestKubernetesStore(StoreContract):
    """On a real API server."""


# -- what is asked of the server


async def test_a_write_that_carries_its_version_is_one_request(cluster_store: KubernetesStore) -> None:
    api = cluster_store._api
    new = model()
    new.metadata.finalizers = [HOLD]
    await cluster_store.create(new)
    deleted = await cluster_store.delete(ModelService, ADA, new.metadata.name)
    before = dict(api.calls)
    deleted.status.phase = "Deleting"
    deleted = await cluster_store.patch_status(deleted)
    deleted.metadata.finalizers = []
    await cluster_store.update(deleted)
    assert api.calls == {**before, "PATCH": before.get("PATCH", 0) + 2}


async def test_what_others_keep_in_metadata_is_left_alone(cluster_store: KubernetesStore, api: KubernetesAPI) -> None:
    created = await cluster_store.create(model())
    path = path_of("llmos.ai/v1alpha1", "modelservices", ADA, "chat")
    real = await api.request("GET", path_of("v1", "serviceaccounts", ADA, "default"))
    owner = {"apiVersion": "v1", "kind": "ServiceAccount", "name": "default", "uid": real["metadata"]["uid"]}
    body = {"metadata": {"ownerReferences": [owner]}}
    await api.request("PATCH", path, body=body, content_type="application/merge-patch+json")
    created.metadata.resource_version = None
    created.metadata.labels = {"a": "b"}
    await cluster_store.update(created)
    assert (await api.request("GET", path))["metadata"]["ownerReferences"] == [owner]


async def test_a_list_is_read_in_pages(cluster_store: KubernetesStore, api: KubernetesAPI) -> None:
    for number in range(5):
        await cluster_store.create(model(f"m{number}"))
    path = path_of("llmos.ai/v1alpha1", "modelservices", ADA)
    pages = [page async for page in api.list_pages(path, page=2)]
    assert [len(page["items"]) for page in pages] == [2, 2, 1]
    assert {page["metadata"]["resourceVersion"] for page in pages} == {pages[0]["metadata"]["resourceVersion"]}


# -- watches


async def test_a_version_the_server_forgot_is_expired(cluster_store: KubernetesStore) -> None:
    for version in ("0", "1"):
        with pytest.raises(Expired, match="List again"):
            async with cluster_store.watch(ModelService, resource_version=version) as events:
                await anext(events)


async def test_a_version_the_server_never_was_at_is_expired(cluster_store: KubernetesStore) -> None:
    """As it is when its database was restored from a backup: without a word it would say nothing for days."""
    now = int((await cluster_store.list(ModelService)).resource_version)
    async with cluster_store.watch(ModelService, resource_version=str(now + 10**9)) as events:
        with pytest.raises(Expired):
            await asyncio.wait_for(anext(events), 20)


async def test_a_quiet_watch_says_where_it_is(places: None, cluster: Cluster) -> None:
    store = KubernetesStore(KubernetesAPI(kubeconfig=cluster.kubeconfig), bookmark_interval=0.1)
    try:
        start = (await store.list(ModelService)).resource_version
        async with store.watch(ModelService, "user-nobody", resource_version=start) as events:
            event = await anext(events)
            assert (event.type, event.resource) == (BOOKMARK, None)
            assert int(event.resource_version) >= int(start)
    finally:
        await store.close()


async def test_closing_the_store_ends_its_watches(places: None, cluster: Cluster) -> None:
    store = KubernetesStore(KubernetesAPI(kubeconfig=cluster.kubeconfig))
    start = (await store.list(ModelService)).resource_version
    async with store.watch(ModelService, "user-nobody", resource_version=start) as events:
        waiting = asyncio.create_task(next_change(events))
        await asyncio.sleep(0.1)
        await store.close()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await anext(events)


async def test_a_watch_survives_a_compaction_and_a_list_does_too(
    cluster: Cluster, cluster_store: KubernetesStore, api: KubernetesAPI
) -> None:
    if cluster.directory is None:
        pytest.skip("etcd can't be reached in another's cluster")
    for number in range(4):
        await cluster_store.create(model(f"m{number}"))
    start = (await cluster_store.list(ModelService)).resource_version
    path = path_of("llmos.ai/v1alpha1", "modelservices", ADA)
    async with cluster_store.watch(ModelService, ADA, resource_version=start) as events:
        pages = api.list_pages(path, page=2)
        first = await anext(pages)
        await cluster_store.create(model("later"))
        await asyncio.to_thread(compact, cluster)
        assert await follow(events, 1) == [(ADDED, "later")]
        await cluster_store.create(model("latest"))
        assert await follow(events, 1) == [(ADDED, "latest")]
        # the server may still have the list in its own memory; if it doesn't it says so, and the store begins anew
        with contextlib.suppress(APIError):
            rest = [page async for page in pages]
            names = [item["metadata"]["name"] for page in (first, *rest) for item in page["items"]]
            assert names == ["m0", "m1", "m2", "m3"]
    assert len((await cluster_store.list(ModelService, ADA)).items) == 6


# -- a server that is away


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[TCPProxy]:
    """A way to the API server that can be broken."""
    address = urlsplit(config_of(cluster)["clusters"][0]["cluster"]["server"])
    assert address.hostname is not None
    async with TCPProxy(address.hostname, address.port or 443) as running:
        yield running


def config_of(cluster: Cluster) -> dict[str, Any]:
    return json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))


@pytest.fixture
def through_proxy(cluster: Cluster, proxy: TCPProxy, tmp_path: Path) -> Path:
    """A kubeconfig that leads through it."""
    config = config_of(cluster)
    target = config["clusters"][0]["cluster"]
    target["tls-server-name"] = urlsplit(target["server"]).hostname
    target["server"] = f"https://127.0.0.1:{proxy.port}"
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    return path


async def test_a_watch_goes_on_over_broken_connections(
    cluster_store: KubernetesStore, proxy: TCPProxy, through_proxy: Path
) -> None:
    watching = KubernetesStore(KubernetesAPI(kubeconfig=through_proxy))
    try:
        start = (await watching.list(ModelService)).resource_version
        async with watching.watch(ModelService, ADA, resource_version=start) as events:
            await cluster_store.create(model("a"))
            assert await follow(events, 1) == [(ADDED, "a")]
            proxy.refusing = True
            proxy.cut()
            await cluster_store.create(model("b"))
            await cluster_store.apply(model("a", replicas=2))
            await asyncio.sleep(0.5)
            proxy.refusing = False
            assert await follow(events, 2) == [(ADDED, "b"), (MODIFIED, "a")]
    finally:
        await watching.close()


async def test_a_server_that_stays_away_is_unavailable(places: None, proxy: TCPProxy, through_proxy: Path) -> None:
    store = KubernetesStore(KubernetesAPI(kubeconfig=through_proxy, timeout=1.0), watch_patience=1.0)
    try:
        assert await store.healthy()
        start = (await store.list(ModelService)).resource_version
        async with store.watch(ModelService, "user-nobody", resource_version=start) as events:
            proxy.refusing = True
            proxy.cut()
            began = time.monotonic()
            with pytest.raises(Unavailable, match="API server at https"):
                await store.get(ModelService, ADA, "chat")
            with pytest.raises(Unavailable):
                await store.create(model())
            assert not await store.healthy()
            with pytest.raises(Unavailable):
                await next_change(events)
            assert time.monotonic() - began < 15
    finally:
        await store.close()


# -- namespaces, rights, quotas


async def test_a_namespace_that_is_not_there_is_named(cluster_store: KubernetesStore) -> None:
    with pytest.raises(NotFound, match='There is no namespace "user-nobody" in the cluster'):
        await cluster_store.create(model(namespace="user-nobody"))
    with pytest.raises(NotFound, match='no namespace "user-nobody"'):
        await cluster_store.apply(Credential.parse({"metadata": {"name": "x", "namespace": "user-nobody"}}))


async def test_a_namespace_that_goes_takes_nothing_new(
    cluster: Cluster, namespace: str, cluster_store: KubernetesStore
) -> None:
    held = await cluster_store.create(model("held", namespace, finalizers=[HOLD]))
    try:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false")
        with pytest.raises(Conflict, match="is being deleted"):
            await cluster_store.create(model("new", namespace))
        await cluster_store.record(held, "Normal", "Late", "nobody will read it")  # and no error
    finally:
        held.metadata.resource_version, held.metadata.finalizers = None, []
        await cluster_store.update(held)


async def test_a_used_up_quota_is_said(cluster: Cluster, namespace: str, cluster_store: KubernetesStore) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"secrets": "0"}}}
    cluster.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(quota))
    wait_for(lambda: cluster.get("-n", namespace, "resourcequota", "q").get("status", {}).get("used"), "the quota")
    with pytest.raises(Insufficient, match="quota of the namespace"):
        await cluster_store.create(Credential.parse({"metadata": {"name": "x", "namespace": namespace}}))


async def test_what_the_service_account_may_not_is_forbidden(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    cluster.kubectl("-n", namespace, "create", "serviceaccount", "gateway")
    words = ("role", "reader", "--verb=get,list,watch", "--resource=modelservices.llmos.ai")
    cluster.kubectl("-n", namespace, "create", *words)
    words = ("rolebinding", "reader", "--role=reader", f"--serviceaccount={namespace}:gateway")
    cluster.kubectl("-n", namespace, "create", *words)
    config = config_of(cluster)
    token = cluster.kubectl("-n", namespace, "create", "token", "gateway").strip()
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    store = KubernetesStore(KubernetesAPI(kubeconfig=path))
    try:
        assert (await store.list(ModelService, namespace)).items == []
        with pytest.raises(Forbidden, match="doesn't let this process touch credentials"):
            await store.list(Credential, namespace)
        with pytest.raises(Forbidden):
            async with store.watch(Credential, namespace, resource_version="1") as events:
                await anext(events)
        config["users"][0]["user"] = {"token": "not-a-token"}
    finally:
        await store.close()
    path.write_text(json.dumps(config))
    stranger = KubernetesStore(KubernetesAPI(kubeconfig=path))
    try:
        with pytest.raises(Unavailable, match="does not accept this process's credentials"):
            await stranger.list(ModelService, namespace)
    finally:
        await stranger.close()


# -- Secrets


async def test_a_credential_is_a_secret(cluster: Cluster, cluster_store: KubernetesStore) -> None:
    manifest = {
        "metadata": {"name": "hub", "namespace": ADA, "labels": {"team": "blue"}, "finalizers": [HOLD]},
        "spec": {"data": {"HF_TOKEN": "hf_ä"}},
    }
    created = await cluster_store.create(Credential.parse(manifest))
    assert created.metadata.labels == {"team": "blue"}
    assert created.metadata.annotations == {}
    secret = cluster.get("-n", ADA, "secret", "hub")
    assert secret["type"] == "llmos.ai/credential"
    assert "team" not in secret["metadata"]["labels"], "what somebody else's controllers might go by"
    assert base64.b64decode(secret["data"]["HF_TOKEN"]).decode() == "hf_ä"
    found = await cluster_store.list(Credential, ADA, labels={"team": "blue"})
    assert [item.metadata.name for item in found.items] == ["hub"]


async def test_secrets_of_others_are_none_of_ours(cluster: Cluster, cluster_store: KubernetesStore) -> None:
    cluster.kubectl("-n", ADA, "create", "secret", "generic", "others", "--from-literal=a=b")
    try:
        start = await cluster_store.list(Credential, ADA)
        assert start.items == []
        with pytest.raises(NotFound):
            await cluster_store.get(Credential, ADA, "others")
        async with cluster_store.watch(Credential, ADA, resource_version=start.resource_version) as events:
            cluster.kubectl("-n", ADA, "label", "secret", "others", "llmos.ai/kind=Credential")
            with pytest.raises(NotFound):  # a label is not enough: it could be put on a server's tokens
                await cluster_store.get(Credential, ADA, "others")
            await cluster_store.create(Credential.parse({"metadata": {"name": "own", "namespace": ADA}}))
            event = await next_change(events)
        assert event.type == ADDED
        assert event.resource is not None
        assert event.resource.metadata.name == "own"
    finally:
        cluster.kubectl("-n", ADA, "delete", "secret", "others")


async def test_what_this_version_cannot_read_is_seen(cluster: Cluster, cluster_store: KubernetesStore) -> None:
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "llmos.ai/credential",
            "metadata": {"name": "binary", "namespace": ADA, "labels": {"llmos.ai/kind": "Credential"}},
            "data": {"KEY": base64.b64encode(b"\xff\xfe").decode()},
        }
    )
    (found,) = (await cluster_store.list(Credential, ADA)).items
    assert "spec.data" in found.unread
    assert (found.spec.data, found.status.keys) == ({}, ["KEY"])
    assert cluster_store.unreadable == 1
    await cluster_store.delete(Credential, ADA, "binary", uid=found.metadata.uid)


async def test_a_model_service_with_a_template_that_cannot_be_read(
    cluster: Cluster, cluster_store: KubernetesStore, api: KubernetesAPI
) -> None:
    """The server takes it, since what is in it is not in the definition."""
    path = path_of("llmos.ai/v1alpha1", "modelservices", ADA)
    spec = {"model": "demo://tiny", "template": {"spec": {"hostPID": True}}}
    body = {"apiVersion": "llmos.ai/v1alpha1", "kind": "ModelService", "metadata": {"name": "odd"}, "spec": spec}
    start = (await cluster_store.list(ModelService, ADA)).resource_version
    async with cluster_store.watch(ModelService, ADA, resource_version=start) as events:
        await api.request("POST", path, body=body)
        event = await next_change(events)
    assert event.resource is not None
    read = event.resource
    assert "hostPID" in read.unread
    read.metadata.finalizers = [HOLD]
    read = await cluster_store.update(read)
    read.status.phase = "Failed"
    read = await cluster_store.patch_status(read)
    there = await api.request("GET", f"{path}/odd")
    assert there["spec"]["template"] == spec["template"]
    assert there["status"]["phase"] == "Failed"
    read = await cluster_store.delete(ModelService, ADA, "odd", uid=read.metadata.uid)
    assert read.metadata.deletion_timestamp
    read.metadata.finalizers, read.metadata.resource_version = [], None
    await cluster_store.update(read)
    with pytest.raises(NotFound):
        await cluster_store.get(ModelService, ADA, "odd")


# -- events


async def test_events_are_the_cluster_s_own(
    cluster: Cluster, cluster_store: KubernetesStore, api: KubernetesAPI
) -> None:
    resource = await cluster_store.create(model())
    await cluster_store.record(resource, "Warning", "OutOfMemory", "chat ran out of memory.")
    await cluster_store.record(resource, "Warning", "OutOfMemory", "chat ran out of memory.")
    described = cluster.kubectl("-n", ADA, "describe", "modelservice", "chat")
    assert "OutOfMemory" in described
    assert "(x2 over" in described
    other = KubernetesStore(api)  # another process, which was started later and has seen none of it
    resource.metadata.creation_timestamp -= timedelta(hours=1)
    await other.record(resource, "Warning", "OutOfMemory", "chat ran out of memory.")
    await other.record(resource, "Normal", "Started", "x" * 5000)
    await cluster_store.record(resource, "Warning", "OutOfMemory", "chat ran out of memory.")
    events = await cluster_store.events(ModelService, ADA, "chat")
    assert [(e.reason, e.count) for e in events] == [("OutOfMemory", 3), ("Started", 1), ("OutOfMemory", 1)]
    assert len(events[1].message) == 4096


async def test_others_events_about_it_are_told_too(cluster: Cluster, cluster_store: KubernetesStore) -> None:
    resource = await cluster_store.create(model())
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "by-hand", "namespace": ADA},
            "involvedObject": {
                "apiVersion": "llmos.ai/v1alpha1",
                "kind": "ModelService",
                "namespace": ADA,
                "name": "chat",
                "uid": resource.metadata.uid,
            },
            "type": "Normal",
            "reason": "Noted",
            "message": "by another",
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:01:00Z",
            "count": 4,
        }
    )
    [event] = await cluster_store.events(ModelService, ADA, "chat")
    assert (event.reason, event.count, (event.last - event.first).total_seconds()) == ("Noted", 4, 60)
