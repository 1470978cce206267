"""Effects on people when parts of the platform, of the cluster, or a whole machine die; every figure is printed."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

import llmos
from llmos.resources import ModelService
from tests.support.breaking import compact, control_plane, kill, ready_nodes, restart_api_server, without
from tests.support.cluster import Cluster, wait_for
from tests.support.looping import Loop, chat, stream_chat
from tests.support.people import Kernel, wait_until
from tests.support.release import IMAGES, Person, Release, installed

ALONE = "breaks machines and the control plane"
pytestmark = pytest.mark.timeout(400)
NEEDS = ("csi", *IMAGES)

LEASE = 15.0
"""Seconds: `controllers.leaseSeconds`."""


@pytest.fixture(scope="module")
def own(cluster: Cluster) -> Cluster:
    """Our own cluster, whose machines and control plane can be broken."""
    if cluster.directory is None:
        pytest.skip("machines and the control plane of another's cluster are not ours to break")
    return cluster


@dataclass(frozen=True)
class Places:
    """The nodes of the parts that must live, and the node that dies: it has no only pod of the control plane or DNS."""

    steady: str
    victim: str


@pytest.fixture(scope="module")
def places(cluster: Cluster) -> Places:
    names = ready_nodes(cluster)
    if cluster.directory is None:
        return Places(names[0], names[-1])
    dns = cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    needed = {control_plane(cluster), *(pod["spec"].get("nodeName") for pod in dns)}
    return Places(control_plane(cluster), next(name for name in reversed(names) if name not in needed))


@pytest.fixture(scope="module")
def release(cluster: Cluster, places: Places) -> Iterator[Release]:
    pinned = {"nodeSelector": {"kubernetes.io/hostname": places.steady}}
    with installed(
        cluster,
        "fail",
        hub=pinned,
        proxy=pinned,
        api=pinned,
        valkey=pinned,
        gateway={"replicas": 3},
        controllers={"leaseSeconds": LEASE},
        culler={"enabled": False},
    ) as made:
        yield made


@pytest.fixture(scope="module")
def ada(release: Release) -> Iterator[Person]:
    with release.person("ada") as person:
        yield person


@pytest.fixture(scope="module")
def client(release: Release, ada: Person) -> Iterator[llmos.Client]:
    with release.client(ada.token) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(client: llmos.Client) -> str:
    """A model with one replica that answers."""
    client.serve("demo://tiny", name="chat", timeout=240)
    return "chat"


@pytest.fixture
def ask(release: Release, ada: Person, model: str) -> Callable[[httpx.Client], None]:
    return chat(release.gateway_url, ada.token, model)


def only(release: Release, component: str) -> dict[str, Any]:
    """The one pod of a component."""
    (pod,) = release.pods(component=component)
    return pod


def restarts(release: Release) -> dict[str, int]:
    """Return the number of restarts of each pod of the release."""
    return {
        pod["metadata"]["name"]: pod["status"]["containerStatuses"][0]["restartCount"]
        for pod in release.pods(**{"app.kubernetes.io/instance": release.name})
        if pod["status"].get("containerStatuses")
    }


def since(began: float, condition: Callable[[], Any], what: str, timeout: float = 120.0) -> float:
    """Seconds from `began` until a condition holds."""

    def holds() -> bool:
        try:
            return bool(condition())
        except (httpx.HTTPError, llmos.LLMOSError):
            return False

    wait_until(holds, timeout, what)
    return time.monotonic() - began


def answers(page: httpx.Client, path: str) -> bool:
    answer = page.get(path)
    return answer.status_code == 200 and "/login" not in answer.url.path


@contextlib.contextmanager
def open_again(kernel: Kernel) -> Iterator[Kernel]:
    """The same kernel by a new websocket, as a page opens one when the old one broke."""
    kernel.__exit__(None, None, None)
    kernel.__enter__()
    yield kernel


# The platform's own pods


def test_the_proxy_is_killed(release: Release, ada: Person, client: llmos.Client, ask: Any) -> None:
    ada.kernel.run("x = 'before the proxy died'")
    with Loop(ask) as loop:
        kill(release.cluster, only(release, "proxy"))
        killed = time.monotonic()
        hub = since(killed, lambda: answers(ada.page, "/hub/home"), "the Hub's pages")
        server = since(killed, lambda: answers(ada.page, f"/user/{ada.name}/api/status"), "the notebook server")
        api = since(killed, lambda: client.modelservices.get("chat"), "the API")
    print(f"\nproxy killed: Hub's pages after {hub:.1f} s, notebook server {server:.1f} s, API {api:.1f} s")
    print(f"models by the gateway meanwhile: {loop.words(killed)}")
    assert max(hub, server, api) < 45
    assert not loop.errors
    with open_again(ada.kernel) as kernel:
        assert kernel.run("print(x)").text == "before the proxy died\n"


SETTING = "api-max-resources-per-namespace"
"""The setting that is read back: a value in Valkey."""


def test_valkey_is_killed(release: Release, ask: Any) -> None:
    sent = acknowledged = 10_000
    failed = 0
    with release.client(release.admin_token) as admin, Loop(ask) as loop:

        def write() -> int:
            nonlocal sent
            sent += 1
            admin.settings.apply({"kind": "Setting", "metadata": {"name": SETTING}, "spec": {"value": str(sent)}})
            return sent

        for _ in range(50):
            acknowledged = write()
        kill(release.cluster, only(release, "valkey"))
        killed = time.monotonic()
        kept = since(killed, lambda: admin.settings.get(SETTING), "Valkey", timeout=90)
        found = int(admin.settings.get(SETTING).spec.value or 0)
        assert found >= acknowledged, "what was acknowledged is there"
        took = None
        while took is None:
            assert time.monotonic() - killed < 90
            try:
                acknowledged = write()
                took = time.monotonic() - killed
            except llmos.LLMOSError:
                failed += 1
        assert admin.settings.get(SETTING).spec.value == str(acknowledged)
        admin.settings.delete(SETTING)
    print(f"\nValkey killed: settings are read after {kept:.1f} s, written after {took:.1f} s; {failed} writes refused")
    print(f"models by the gateway meanwhile: {loop.words(killed)}")
    assert took < 60
    assert not loop.errors


def test_the_hub_is_killed_while_somebody_works(release: Release, ada: Person, client: llmos.Client, ask: Any) -> None:
    with open_again(ada.kernel) as kernel:
        kernel.run("x = 41")
        key = kernel.run("import os; print(os.environ['OPENAI_API_KEY'])").text.strip()
        with httpx.Client(base_url=release.hub_url, cookies=ada.page.cookies, timeout=30) as tab:

            def read(_: httpx.Client) -> None:
                answer = tab.get(f"/user/{ada.name}/api/contents")
                assert answer.status_code == 200, f"{answer.status_code} {answer.text}"

            read(tab)
            with Loop(ask) as loop, Loop(read) as pages:
                kill(release.cluster, only(release, "hub"))
                killed = time.monotonic()
                cells = 0
                back = None
                while back is None:
                    assert kernel.run("x += 1; print(x)").text == f"{42 + cells}\n"
                    cells += 1
                    assert time.monotonic() - killed < 120
                    with contextlib.suppress(httpx.HTTPError):
                        back = time.monotonic() - killed if answers(ada.page, "/hub/home") else None
                api = since(killed, lambda: client.modelservices.get("chat"), "the API")
        assert kernel.run("x += 1; print(x)").text == f"{42 + cells}\n", "the same websocket"
    print(f"\nhub killed: its pages after {back:.1f} s, the API {api:.1f} s; {cells} cells ran meanwhile")
    print(f"the notebook server by the proxy meanwhile: {pages.words(killed)}")
    print(f"models by the gateway meanwhile: {loop.words(killed)}")
    assert back < 60
    assert not pages.errors
    assert not loop.errors

    models = f"{release.gateway_url}/v1/models"
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(models, headers=headers, timeout=30).status_code == 200
    release.stop_server(ada.name, ada.token)
    revoked = since(
        time.monotonic(),
        lambda: httpx.get(models, headers=headers, timeout=30).status_code == 401,
        "the key of the stopped server is refused",
        timeout=30,
    )
    print(f"the stopped server's key was refused {revoked:.1f} s after the stop")
    release.gone(ada.namespace, "pods", "secrets", kind="Server")


def test_gateways_go_one_by_one_under_streams(release: Release, ada: Person, model: str) -> None:
    pods = release.pods(component="gateway")
    assert len(pods) == 3
    begun = time.monotonic()
    streams = stream_chat(release.gateway_url, ada.token, model)
    with Loop(streams, clients=3) as loop, Loop(streams, clients=2, fresh=True) as fresh:
        for pod in pods:
            meta = pod["metadata"]
            release.cluster.kubectl("delete", "pod", meta["name"], "-n", meta["namespace"], "--wait=false")

            def replaced(uid: str = meta["uid"]) -> bool:
                now = release.pods(component="gateway")
                ready = [
                    p
                    for p in now
                    if not p["metadata"].get("deletionTimestamp")
                    and any(c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", ()))
                ]
                return len(ready) == 3 and uid not in {p["metadata"]["uid"] for p in now}

            wait_for(replaced, "the next gateway", timeout=90, pause=0.5)
    print(f"\n3 gateways replaced in {time.monotonic() - begun:.0f} s; streams: {loop.words(begun)}")
    print(f"with a connection for each: {fresh.words(begun)}")
    assert not loop.errors
    assert not fresh.errors


# The controllers


def leader(release: Release) -> str:
    """The process that leads: its pod, and what tells it from one that ran there before."""
    lease = release.cluster.get("lease", f"{release.name}-controllers", "-n", release.namespace)
    return str(lease["spec"]["holderIdentity"])


def test_the_leading_controllers_are_killed(release: Release, ada: Person, client: llmos.Client) -> None:
    before = leader(release)
    pods = {pod["metadata"]["name"]: pod for pod in release.pods(component="controllers")}
    names = [f"many-{number}" for number in range(10)]

    def create(number: int) -> None:
        spec = {"model": "demo://tiny", "replicas": 1 if number % 5 == 0 else 0}
        client.modelservices.create({"kind": "ModelService", "metadata": {"name": names[number]}, "spec": spec})

    for number in range(5):
        create(number)
    kill(release.cluster, pods[before.split("_")[0]])
    killed = time.monotonic()
    for number in range(5, 10):
        create(number)
    led = since(killed, lambda: leader(release) not in ("", before), "another leader", timeout=60)

    def settled() -> bool:
        items = client.modelservices.list()
        found = {item.metadata.name: item for item in items if item.metadata.name in names}
        assert set(found) == set(names)
        return all(
            item.status.observed_generation == item.metadata.generation
            and item.status.phase == ("Ready" if item.spec.replicas else "Paused")
            for item in found.values()
        )

    done = since(killed, settled, "all services are reconciled", timeout=120)

    def made() -> dict[str, tuple[str, int]]:
        items = release.cluster.get("deployments", "-n", ada.namespace, "-l", "llmos.ai/kind=ModelService")["items"]
        return {
            item["metadata"]["labels"]["llmos.ai/name"]: (item["metadata"]["uid"], item["metadata"]["generation"])
            for item in items
        }

    first = made()
    pods_first = {pod["metadata"]["uid"] for pod in release.pods(ada.namespace, kind="ModelService")}
    time.sleep(5)
    assert made() == first, "nothing is made or changed again"
    assert {pod["metadata"]["uid"] for pod in release.pods(ada.namespace, kind="ModelService")} == pods_first
    print(f"\nleader killed: {leader(release)} led after {led:.1f} s (lease {LEASE:.0f} s), all 10 done {done:.1f} s")
    assert led < LEASE + 8
    assert {name: generation for name, (_, generation) in first.items() if name in names and generation > 1} == {}
    for name in names:
        client.modelservices.delete(name)
    for name in names:
        client.modelservices.wait_deleted(name, timeout=90)


# The control plane


def test_the_api_server_is_killed(own: Cluster, release: Release, ada: Person, client: llmos.Client, ask: Any) -> None:
    before = restarts(release)
    uids = {item.metadata.uid for item in client.modelservices.list()}
    with Loop(ask, clients=2) as loop:
        time.sleep(1)
        killed = time.monotonic()
        restart_api_server(own, after=3)
        up = time.monotonic() - killed
        changed = time.monotonic()
        since(changed, lambda: client.modelservices.scale("chat", 2), "a change is taken")
        taken = time.monotonic() - changed
        done = since(changed, lambda: client.modelservices.get("chat").status.ready_replicas == 2, "the second replica")
    print(f"\nAPI server away for {up:.1f} s: {loop.words(killed)}")
    print(f"a change was taken {taken:.1f} s and carried out {done:.1f} s after it was back")
    assert not loop.errors
    assert done < 60
    assert {item.metadata.uid for item in client.modelservices.list()} == uids
    after = restarts(release)
    assert after == before, "nobody died of it"


def test_etcd_is_compacted(own: Cluster, release: Release, ada: Person, client: llmos.Client, ask: Any) -> None:
    before = restarts(release)
    with Loop(ask) as loop:
        compacted = time.monotonic()
        for replicas in (1, 2):
            compact(own)
            client.modelservices.scale("chat", replicas)
            compact(own)
            took = since(
                time.monotonic(),
                lambda wanted=replicas: client.modelservices.get("chat").status.ready_replicas == wanted,
                f"{replicas} replicas",
                timeout=60,
            )
            print(f"\netcd compacted before and after a change: carried out after {took:.1f} s")
    print(loop.words(compacted))
    assert not loop.errors
    assert restarts(release) == before


# A machine


@pytest.fixture
def steady_gateway(release: Release, places: Places) -> Iterator[str]:
    """The address of those gateways that live: a load balancer that knows at once which do."""
    for pod in release.pods(component="gateway"):
        if pod["spec"]["nodeName"] != places.victim:
            name = pod["metadata"]["name"]
            release.cluster.kubectl("label", "pod", name, "-n", release.namespace, "llmos.test/steady=yes")
    meta = {"name": f"{release.name}-steady", "namespace": release.namespace}
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    spec = {"type": "NodePort", "selector": {"llmos.test/steady": "yes"}, "ports": ports}
    release.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    yield release.node_port("steady")
    release.cluster.kubectl("delete", "service", meta["name"], "-n", release.namespace)


def test_a_machine_is_lost_under_three_replicas(
    own: Cluster, release: Release, places: Places, ada: Person, client: llmos.Client, model: str, steady_gateway: str
) -> None:
    client.modelservices.scale(model, 3)

    def running() -> list[dict[str, Any]]:
        status = client.modelservices.get(model).status
        pods = {pod["metadata"]["name"]: pod for pod in release.pods(ada.namespace, kind="ModelService", model=model)}
        return [pods[endpoint.replica] for endpoint in status.endpoints if endpoint.replica in pods]

    wait_for(lambda: len(running()) == 3, "three replicas", timeout=90, pause=0.5)
    nodes = sorted(pod["spec"]["nodeName"] for pod in running())
    assert len(set(nodes)) == 3, f"replicas are spread over the nodes, not on {nodes}"
    lost = {pod["metadata"]["uid"] for pod in running() if pod["spec"]["nodeName"] == places.victim}
    gateways = [pod["spec"]["nodeName"] for pod in release.pods(component="gateway")]

    short = httpx.Timeout(15, connect=2)
    with (
        Loop(chat(steady_gateway, ada.token, model), clients=4) as loop,
        Loop(stream_chat(steady_gateway, ada.token, model, 40), clients=2) as streams,
        Loop(chat(release.gateway_url, ada.token, model), clients=2, fresh=True, timeout=short) as any_gateway,
    ):
        time.sleep(3)
        killed = time.monotonic()
        with without(own, places.victim):
            gone = since(killed, lambda: len(running()) < 3, "its replica leaves the ready ones")

            def whole() -> bool:
                now = running()
                return len(now) == 3 and not lost & {pod["metadata"]["uid"] for pod in now}

            whole_again = since(killed, whole, "three replicas again", timeout=180)
            assert places.victim not in {pod["spec"]["nodeName"] for pod in running()}
    print(f"\n{places.victim} lost its power: the replica left after {gone:.1f} s, 3/3 again after {whole_again:.1f} s")
    print(f"answers by living gateways: {loop.words(killed)}")
    print(f"streams by living gateways: {streams.words(killed)}")
    print(f"any gateway, a connection each, {gateways.count(places.victim)} of 3 dead: {any_gateway.words(killed)}")
    assert not loop.errors, loop.errors
    assert loop.slowest < 12
    assert len(streams.errors) <= 2, "only those whose answer had begun"
    assert streams.healed(killed) < 12
    assert whole_again < 120
    assert any_gateway.healed(killed) < 60
    wait_for(lambda: isinstance(client.modelservices.get(model), ModelService), "the API", timeout=30)
