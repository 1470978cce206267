"""A release of the chart on a real cluster, used like its users do."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx

import llmos
from llmos.names import slug
from tests.support.chart import install, ready, values_for
from tests.support.cluster import Cluster, wait_for
from tests.support.helm import merge_values
from tests.support.people import HubClient, Kernel

__all__ = ["Person", "Release", "installed"]

ADMIN_PASSWORD = "correct-horse-battery"
IMAGES = ("hub", "notebook", "engine-cpu")


@dataclass(frozen=True)
class Person:
    """A user who is logged in, with a running server."""

    name: str
    password: str
    token: str
    namespace: str
    page: httpx.Client
    kernel: Kernel


@dataclass
class Release(HubClient):
    """An installed release, or one to be installed.

    Hub and gateway are accessed at node ports, as a load balancer in front of the cluster would.
    """

    cluster: Cluster
    namespace: str
    values: dict[str, Any] = field(default_factory=dict)
    name: str = "llmos"
    start_timeout = 180.0

    # Life

    @property
    def instance(self) -> str:
        """Its identifier in the cluster, a label of the namespaces that it created."""
        return f"{self.namespace}.{self.name}"  # a test's namespace has a dash in its name

    def install(self, *options: str, verb: str = "install", **changed: Any) -> None:
        """Run ``helm install`` and wait until all is ready; `changed` replaces whole sections of the values."""
        install(self.cluster, self.name, self.namespace, {**self.values, **changed}, *options, verb=verb)
        self.wait()

    def wait(self) -> None:
        """Wait until everything is ready and reachable through the Hub's proxy."""
        if not self.values.get("hub", {}).get("enabled", True):
            return  # until the other Hub is configured, it lets no request in, and nothing gets ready
        ready(self.cluster, self.namespace)
        wait_for(self._answers, f"API and gateway of {self.namespace} behind the proxy", timeout=60, pause=0.5)

    def _answers(self) -> bool:
        """Return whether the proxy has all routes; the Hub adds them after its start."""
        try:
            paths = ("/hub/health", "/services/llmos/health", "/services/llm/v1/models")
            return [httpx.get(self.hub_url + path, timeout=5).status_code for path in paths] == [200, 200, 401]
        except httpx.HTTPError:
            return False

    def uninstall(self) -> None:
        """Uninstall the release and its users' namespaces; models first, while the controllers run."""
        owned = f"app.kubernetes.io/managed-by=llmos,app.kubernetes.io/instance={self.instance}"
        names = self.cluster.attempt("kubectl", "get", "namespaces", "-l", owned, "-o", "name").stdout.split()
        for name in (name.removeprefix("namespace/") for name in names):
            done = self.cluster.attempt(
                "kubectl", "delete", "modelservices", "--all", "-n", name, "--timeout=60s", timeout=90
            )
            if done.returncode:  # the controllers don't run: the release may be broken
                remove = '{"metadata": {"finalizers": null}}'
                for left in self.cluster.attempt(
                    "kubectl", "get", "modelservices", "-n", name, "-o", "name"
                ).stdout.split():
                    self.cluster.attempt("kubectl", "patch", left, "-n", name, "--type=merge", "-p", remove)
        self.cluster.attempt("kubectl", "delete", "namespace", "-l", owned, "--wait=false")
        self.cluster.attempt("helm", "uninstall", self.name, "-n", self.namespace, "--wait", timeout=180)

    # Addresses and secrets

    def node_port(self, service: str) -> str:
        """Return the address of a Service from outside the cluster."""
        found = self.cluster.get("service", f"{self.name}-{service}", "-n", self.namespace)
        addresses = self.cluster.get("nodes")["items"][0]["status"]["addresses"]
        host = next(item["address"] for item in addresses if item["type"] == "InternalIP")
        return f"http://{host}:{found['spec']['ports'][0]['nodePort']}"

    @cached_property
    def hub_url(self) -> str:
        return self.node_port("proxy")

    @cached_property
    def gateway_url(self) -> str:
        return self.node_port("gateway")

    @property
    def api_url(self) -> str:
        return f"{self.hub_url}/services/llmos"

    def secret(self) -> dict[str, str]:
        """Return the content of the chart's own Secret."""
        data = self.cluster.get("secret", self.name, "-n", self.namespace)["data"]
        return {key: base64.b64decode(value).decode() for key, value in data.items()}

    @cached_property
    def admin_token(self) -> str:
        """The first admin's token, after a log-in with the one-time password, which only allows to choose another."""
        with httpx.Client(base_url=self.hub_url, timeout=30, follow_redirects=True) as client:
            page = self.log_in(client, "admin", self.secret()["admin-password"])
            return self.first_admin_token(client, page)

    def first_admin_token(self, client: httpx.Client, page: httpx.Response) -> str:
        """Choose a password after a log-in with a one-time password, then create a token like the token page."""
        self.choose_password(client, page, ADMIN_PASSWORD)
        answer = client.get("/hub/token")
        assert answer.url.path == "/hub/token", answer.text
        token = client.cookies.get("_xsrf", path="/hub/") or ""
        made = client.post("/hub/api/users/admin/tokens", json={"note": "test"}, headers={"X-XSRFToken": token})
        assert made.status_code == 201, made.text
        return str(made.json()["token"])

    # What people do

    @contextmanager
    def client(self, token: str) -> Iterator[llmos.Client]:
        """Yield an SDK client outside the cluster."""
        with llmos.Client(
            url=self.api_url, token=token, gateway_url=f"{self.gateway_url}/v1", gateway_token=token
        ) as client:
            yield client

    @contextmanager
    def person(self, name: str) -> Iterator[Person]:
        """Yield a new user with a running server and an open kernel in it; the server is stopped at the end.

        Users' namespaces belong to the whole cluster, so each release adds a suffix to its users' names: ``ada``
        becomes ``ada-1a2b3c4d``.
        """
        name = f"{name}-{self.namespace.rsplit('-', 1)[-1]}"
        password = self.add_user(name)
        token = self.token(name)
        self.start_server(name, token)
        try:
            with self.browser(name, password) as page, self.kernel(page, name) as kernel:
                yield Person(name, password, token, f"user-{slug(name)}", page, kernel)
        finally:
            if name in [item["name"] for item in self.hub("GET", "/users").json()]:
                self.stop_server(name, token)

    # What runs

    def pods(self, namespace: str | None = None, **labels: str) -> list[dict[str, Any]]:
        """Return the pods with these labels (see `_LABELS`), by default in the release's own namespace."""
        selector = ",".join(f"{_LABELS.get(key, key)}={value}" for key, value in labels.items())
        return list(self.cluster.get("pods", "-n", namespace or self.namespace, "-l", selector)["items"])

    def gone(self, namespace: str, *kinds: str, timeout: float = 90.0, **labels: str) -> None:
        """Wait until a namespace has no objects of these kinds with these labels."""
        selector = ",".join(f"{_LABELS.get(key, key)}={value}" for key, value in labels.items())

        def none() -> bool:
            found = self.cluster.get(",".join(kinds), "-n", namespace, "-l", selector)["items"]
            names = [f"{item['kind']}/{item['metadata']['name']}" for item in found]
            assert not names, f"left: {', '.join(names)}"
            return True

        wait_for(none, f"nothing left in {namespace}", timeout=timeout, pause=0.5)


_LABELS = {
    "component": "app.kubernetes.io/component",
    "instance": "app.kubernetes.io/instance",
    "kind": "llmos.ai/kind",
    "model": "llmos.ai/name",
}


def _storage(cluster: Cluster) -> dict[str, Any]:
    """Return values for our own cluster's storage classes, which support fsGroup; none for another cluster."""
    if cluster.directory is None:
        return {}
    cluster.addons("csi")
    return {
        "hub": {"db": {"storage": {"storageClass": "csi-block"}}},
        "valkey": {"storage": {"storageClass": "csi-block"}},
        "users": {
            "home": {"storageClass": "csi-block", "size": "500Mi"},
            "models": {"storageClass": "csi-shared", "size": "2Gi"},
        },
    }


@contextmanager
def installed(cluster: Cluster, prefix: str, **values: Any) -> Iterator[Release]:
    """Install a release in its own namespace, with `values` over the test's; uninstall it completely at the end."""
    cluster.images(*IMAGES)
    ports = {"service": {"type": "NodePort"}}
    base = merge_values(values_for(proxy=ports, gateway=ports), _storage(cluster))
    release = Release(cluster, cluster.namespace(prefix), merge_values(base, values))
    try:
        release.install()
        yield release
    finally:
        release.uninstall()
