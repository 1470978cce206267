"""Connections between all pods on a cluster that enforces NetworkPolicies: each pod tries each target.

Each target is open to somebody, so that what is closed to the others is closed by a policy and not for want of a listener.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.chart import install, ready
from tests.support.cluster import Cluster, wait_for
from tests.support.images import image
from tests.support.reachability import (
    MACHINE,
    Address,
    Prober,
    from_kernel,
    from_pod,
    listening_code,
    listening_command,
    metadata_services,
    reached,
    servers_outside,
)
from tests.support.release import IMAGES, Person, Release, installed

pytestmark = pytest.mark.timeout(600)
NEEDS = ("csi", "netpol", *IMAGES)

Targets = dict[str, list[Address]]

READS_METRICS = {"app": "reads-metrics"}
APP_PORT = 8080
"""Of something that a person starts in a notebook; the port that engines have in their pods."""
METRICS_PEER = {"namespaceSelector": {}, "podSelector": {"matchLabels": READS_METRICS}}
CLUSTER = {"api-server", "kubelets"}
ENGINES = {"adas-engine", "graces-engine"}
SERVERS = {"adas-server", "graces-server"}
WORLD = {"world", "identity-provider"}
EVERYBODY = {"proxy", "gateway"}
"""The entrances: whoever comes needs a token."""
UNRULED = {"names", "stranger", "site", "metadata"} | CLUSTER | WORLD
"""Targets that a pod reaches, too, if no policy of ours selects it."""

OPEN: dict[str, set[str]] = {
    "adas-server": {"names", "hub", "api", "adas-app"} | EVERYBODY | WORLD,
    "graces-server": {"names", "hub", "api"} | EVERYBODY | WORLD,
    "adas-engine": {"names"} | WORLD,
    "stranger": EVERYBODY | UNRULED,
    "metrics-reader": {"api-metrics", "controllers"} | EVERYBODY | UNRULED,
    "hub": {"names", "proxy-api", "api", "gateway", "api-server", "identity-provider"} | SERVERS,
    "proxy": {"names", "hub", "api", "gateway"} | SERVERS,
    "api": {"names", "hub", "valkey", "api-server", "identity-provider", "api-metrics"},  # the last in its own pod
    "controllers": {"names", "hub", "valkey", "api-server", "identity-provider"},
    "gateway": {"names", "hub", "valkey", "api-server", "identity-provider"} | ENGINES,
    "valkey": set(),
}
"""By who tries. The API server is no pod: its ports are open on all addresses, see networkPolicy.apiServerCidrs."""


@dataclass
class Scene:
    """Two people with a notebook server and a model each, and everything else that there is to reach."""

    release: Release
    ada: Person
    grace: Person
    strangers: str
    beyond: Targets
    targets: Targets = field(default_factory=dict)
    probers: dict[str, Prober] = field(default_factory=dict)

    def reaches(self, who: str) -> set[str]:
        """Names of what somebody reaches; itself aside, where no policy stands between."""
        own = {who, "proxy-api"} if who == "proxy" else {who}
        return reached(self.probers[who], {name: at for name, at in self.targets.items() if name not in own})

    def look(self) -> None:
        """Find again who is there; after an upgrade some pods are others."""
        cluster = self.release.cluster
        nodes = [_address(node) for node in cluster.get("nodes")["items"]]
        self.targets = {**self.beyond, **find_targets(self), "kubelets": [(node, 10250) for node in nodes]}
        self.probers = find_probers(self)

    def engine(self, person: Person) -> dict[str, Any]:
        """The pod of their model."""
        return self.release.pods(person.namespace, model="tiny", **{"llmos.ai/part": "serve"})[0]


@pytest.fixture(scope="module")
def scene(cluster) -> Iterator[Scene]:
    """Everything, up and listening."""
    cluster.addons("netpol")
    with installed(cluster, "net", networkPolicy={"metricsFrom": [METRICS_PEER]}) as release, ExitStack() as stack:
        people = [stack.enter_context(release.person(name)) for name in ("ada", "grace")]
        strangers = make_strangers(cluster, release)
        stack.callback(cluster.attempt, "kubectl", "delete", "namespace", strangers, "--wait=false")
        for person in people:
            out = person.kernel.run("%load_ext llmos\n%llmos serve demo://tiny", timeout=240)
            assert not out.error, out.shown
        people[0].kernel.run(listening_code(APP_PORT))
        beyond: Targets = {}
        if cluster.directory is not None:
            beyond |= stack.enter_context(servers_outside())
            beyond |= stack.enter_context(metadata_services(cluster))
        made = Scene(release, *people, strangers, beyond)
        made.look()
        yield made


def make_strangers(cluster: Cluster, release: Release) -> str:
    """A namespace as another release of LLMOS would have it, with pods of which ours knows nothing."""
    name = f"{release.namespace}-strangers"
    labels = {"app.kubernetes.io/managed-by": "llmos", "app.kubernetes.io/instance": f"not-{release.instance}"}
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "stranger", "namespace": name},
            "spec": {"type": "NodePort", "selector": {"app": "stranger"}, "ports": [{"port": 8080}]},
        },
    ]
    for pod, app in (("stranger", "stranger"), ("metrics-reader", READS_METRICS["app"])):
        container = {
            "name": "listens",
            "image": image("hub"),
            "command": listening_command("0.0.0.0", 8080),
        }
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod, "namespace": name, "labels": {"app": app}},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
            }
        )
    cluster.apply(*objects)
    cluster.kubectl("wait", "-n", name, "pod", "--all", "--for=condition=Ready", "--timeout=120s", timeout=130)
    return name


def find_targets(scene: Scene) -> Targets:
    """Pods themselves, and the Services in front of them."""
    cluster, release = scene.release.cluster, scene.release

    def service(name: str, namespace: str, port: int) -> Address:
        return cluster.get("service", name, "-n", namespace)["spec"]["clusterIP"], port

    def component(name: str, port: int) -> list[Address]:
        return [(pod["status"]["podIP"], port) for pod in staying(release, name)]

    def server(person: Person) -> list[Address]:
        pods = release.pods(person.namespace, kind="Server")
        return [(pod["status"]["podIP"], 8888) for pod in pods]

    def engine(person: Person) -> list[Address]:
        return [(scene.engine(person)["status"]["podIP"], 8080)]

    own = release.namespace
    node = _address(cluster.get("nodes")["items"][0])
    open_port = cluster.get("service", "stranger", "-n", scene.strangers)["spec"]["ports"][0]["nodePort"]
    stranger = cluster.get("pod", "stranger", "-n", scene.strangers)["status"]["podIP"]
    names = cluster.get("pods", "-n", "kube-system", "-l", "k8s-app=kube-dns")["items"]
    server_addresses = cluster.get("endpointslice", "kubernetes", "-n", "default")
    return {
        "hub": [*component("hub", 8081), service("llmos-hub", own, 8081)],
        "proxy": [*component("proxy", 8000), service("llmos-proxy", own, 80)],
        "proxy-api": [*component("proxy", 8001), service("llmos-proxy-api", own, 8001)],
        "api": [*component("api", 8080), service("llmos-api", own, 80)],
        "api-metrics": component("api", 9090),
        "gateway": [*component("gateway", 8080), service("llmos-gateway", own, 80)],
        "controllers": component("controllers", 8080),
        "valkey": component("valkey", 6379),
        "adas-server": server(scene.ada),
        "graces-server": server(scene.grace),
        "adas-app": [(host, APP_PORT) for host, _ in server(scene.ada)],
        "adas-engine": engine(scene.ada),
        "graces-engine": engine(scene.grace),
        "stranger": [(stranger, 8080), service("stranger", scene.strangers, 8080), (node, open_port)],
        "names": [*((pod["status"]["podIP"], 53) for pod in names), service("kube-dns", "kube-system", 53)],
        "api-server": [
            service("kubernetes", "default", 443),
            *(
                (address, server_addresses["ports"][0]["port"])
                for endpoint in server_addresses["endpoints"]
                for address in endpoint["addresses"]
            ),
        ],
    }


def find_probers(scene: Scene) -> dict[str, Prober]:
    """Return the pods that try: people's notebooks, and the first pod of every other part."""
    cluster, release = scene.release.cluster, scene.release
    found = {"adas-server": from_kernel(scene.ada.kernel), "graces-server": from_kernel(scene.grace.kernel)}
    found["adas-engine"] = from_pod(cluster, scene.ada.namespace, scene.engine(scene.ada)["metadata"]["name"])
    for name in ("stranger", "metrics-reader"):
        found[name] = from_pod(cluster, scene.strangers, name)
    for name in ("hub", "proxy", "api", "controllers", "gateway", "valkey"):
        found[name] = from_pod(cluster, release.namespace, staying(release, name)[0]["metadata"]["name"])
    return found


def staying(release: Release, component: str) -> list[dict[str, Any]]:
    """The pods of a component but those that an upgrade has just replaced."""
    return [pod for pod in release.pods(component=component) if "deletionTimestamp" not in pod["metadata"]]


def _address(node: dict[str, Any]) -> str:
    return next(item["address"] for item in node["status"]["addresses"] if item["type"] == "InternalIP")


# What holds


def expected(scene: Scene, who: str) -> set[str]:
    """Return the targets, of those that exist, that somebody may reach."""
    return OPEN[who] & set(scene.targets) - {who}


def test_everything_is_open_to_somebody(scene):
    assert set(scene.targets) == set().union(*OPEN.values()) & set(scene.targets)


@pytest.mark.parametrize("who", OPEN)
def test_what_each_reaches_and_nothing_else(scene, who):
    assert scene.reaches(who) == expected(scene, who)


def test_a_notebook_finds_the_platform_by_name(scene):
    host = f"llmos-hub.{scene.release.namespace}.svc"
    address = scene.targets["hub"][-1][0]
    out = scene.ada.kernel.run(f"import socket; print(socket.gethostbyname({host!r}))")
    assert out.text.strip() == address


def test_what_is_set_anew_holds_within_seconds_and_replaces_no_model(scene):
    """Neither the world outside for people, nor the entrances for strangers."""
    if not scene.beyond:
        pytest.skip("a server in the world outside is made here for our own cluster only")
    release = scene.release
    models = [scene.engine(person)["metadata"]["uid"] for person in (scene.ada, scene.grace)]
    machines = [{"ipBlock": {"cidr": f"{host}/32"}} for host in (MACHINE, *(at for at, _ in scene.targets["kubelets"]))]
    policy = {**release.values["networkPolicy"], "ingressFrom": [METRICS_PEER, *machines]}
    users = {**release.values["users"], "network": {"internet": False}}
    try:
        print(
            f"\nclosed {upgrade_until(scene, without=WORLD, users=users, networkPolicy=policy):.1f} s after helm returned"
        )
        scene.look()
        for who in ("adas-server", "graces-server", "adas-engine"):
            assert scene.reaches(who) == OPEN[who] - WORLD
        assert scene.reaches("stranger") == expected(scene, "stranger") - EVERYBODY
        assert scene.reaches("metrics-reader") == expected(scene, "metrics-reader")
    finally:
        print(f"open again {upgrade_until(scene, without=set()):.1f} s after helm returned")
    scene.look()
    assert scene.reaches("adas-server") == OPEN["adas-server"]
    assert [scene.engine(person)["metadata"]["uid"] for person in (scene.ada, scene.grace)] == models


def upgrade_until(scene: Scene, *, without: set[str], **changed: Any) -> float:
    """Upgrade, and wait until people's pods reach the world outside but for that; the seconds that it took."""
    release = scene.release
    install(release.cluster, release.name, release.namespace, {**release.values, **changed}, verb="upgrade")
    began = time.monotonic()
    world = {name: scene.targets[name] for name in WORLD}

    def holds() -> bool:
        return all(reached(scene.probers[who], world) == WORLD - without for who in ("adas-server", "adas-engine"))

    wait_for(holds, "the policies of people's namespaces follow the setting", timeout=90)
    took = time.monotonic() - began
    ready(release.cluster, release.namespace)
    return took
