"""A JupyterHub in a pod that starts servers with LLMOSKubeSpawner, and the controller for namespaces.

The Hub has only the permissions that the spawner's documentation lists, which proves that they suffice. Its proxy runs
in the same pod.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from llmos_hub.controllers import registry
from llmos_hub.controllers.namespaces.reconciler import namespace_controller
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.managers.namespace_options import Binding, NamespaceOptions, Network, Peer
from tests.support.cluster import Cluster, wait_for
from tests.support.images import image

__all__ = ["HUB_ROLE", "SPAWNER_ROLE", "HubPod", "NamespaceControllerThread", "WritableHomes"]

HUB_ROLE = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["create", "get"]},
    {"apiGroups": [""], "resources": ["pods", "events"], "verbs": ["list", "watch"]},
]
"""Permissions in the whole cluster."""
SPAWNER_ROLE = [
    {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "delete"]},
    {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["create", "get", "list"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "update", "delete"]},
]
"""Permissions in users' namespaces, where the controllers bind them."""

CONFIG = """
import json, os
from llmos_hub.jupyterhub_config import Tokens, configure
settings = json.loads(os.environ["TEST_SETTINGS"])
c.JupyterHub.ip = "0.0.0.0"
c.JupyterHub.port = 8000
c.JupyterHub.hub_ip = "0.0.0.0"
c.JupyterHub.hub_connect_url = f"http://{os.environ['POD_IP']}:8081"
c.JupyterHub.db_url = "sqlite:////data/hub.sqlite"
c.JupyterHub.cookie_secret_file = "/data/cookie_secret"
c.JupyterHub.cleanup_servers = False
c.ConfigurableHTTPProxy.pid_file = "/tmp/proxy.pid"  # gone with the container: a pid in it may be anybody's in the next
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.spawner_class = "llmos_spawners.kubernetes.LLMOSKubeSpawner"
c.JupyterHub.services = [{"name": "test", "api_token": settings["token"], "admin": True}]
c.JupyterHub.load_roles = [{"name": "test", "services": ["test"],
    "scopes": ["admin:users", "admin:servers", "tokens", "access:servers", "read:hub"]}]
c.JupyterHub.init_spawners_timeout = 30
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}  # the test listens to the progress of what takes longer
spawner = c.LLMOSKubeSpawner
spawner.image = settings["image"]
spawner.image_pull_policy = "IfNotPresent"
spawner.instance = settings["instance"]
spawner.openai_base_url = "http://llmos-gateway/v1"
spawner.llmos_url = "http://llmos-api"
spawner.storage_capacity = "400Mi"
spawner.poll_interval = 5
spawner.sizes = settings["sizes"]
spawner.images = settings["images"]
spawner.gpus = [{"name": "one", "title": "One GPU", "resource": "nvidia.com/gpu"}]
configure(c, api_url="http://llmos-api", gateway_url="http://llmos-gateway",
    tokens=Tokens(llmos="a" * 64, llm="b" * 64))
"""


class NamespaceControllerThread:
    """LLMOS' own controller for users' namespaces, on its own event loop."""

    def __init__(self, cluster: Cluster, options: NamespaceOptions, release: str) -> None:
        self._cluster, self._options, self._release = cluster, options, release
        self._ready, self._loop, self._stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._main()))

    async def _main(self) -> None:
        api = KubernetesAPI(kubeconfig=self._cluster.kubeconfig)
        controller = namespace_controller(registry.Cluster(api, self._options, self._release, leading=lambda: True))
        tasks = [asyncio.create_task(controller.follow()), asyncio.create_task(controller.work())]
        self._ready.set()
        try:
            await self._stop.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await api.close()

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        self._loop.close()


@dataclass
class HubPod:
    """A Hub in the cluster, with access to it.

    Attributes
    ----------
    namespace
        Namespace of the release, and prefix of users' names.
    hub_image
        Name of its image: ``hub`` or ``hub-5``.
    """

    cluster: Cluster
    namespace: str
    hub_image: str
    sizes: list[dict[str, Any]]
    images: list[dict[str, Any]]
    token: str = ""
    client: httpx.Client | None = None
    _forward: subprocess.Popen[str] | None = None

    @property
    def http(self) -> httpx.Client:
        assert self.client is not None
        return self.client

    def options(self, quota: dict[str, str]) -> NamespaceOptions:
        """Return the options for namespaces of this Hub's users."""
        hub = {"app.kubernetes.io/component": "hub", "app.kubernetes.io/instance": self.namespace}
        return NamespaceOptions(
            instance=self.namespace,
            quota=quota,
            bindings=[Binding(cluster_role=f"{self.namespace}-spawner", service_account="hub")],
            network=Network(hub=Peer(labels=hub, ports=[8081]), proxy=Peer(labels=hub, ports=[8000])),
        )

    def objects(self) -> list[dict[str, Any]]:
        ns, name = self.namespace, "hub"
        labels = {"app.kubernetes.io/component": "hub", "app.kubernetes.io/instance": ns}
        self.token = self.token or secrets.token_hex(32)
        settings = {
            "token": self.token,
            "instance": ns,
            "image": image("notebook"),
            "sizes": self.sizes,
            "images": self.images,
        }

        def role(suffix: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
            meta = {"name": f"{ns}-{suffix}"}
            return {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": meta,
                "rules": rules,
            }

        return [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": ns}},
            role("hub", HUB_ROLE),
            role("spawner", SPAWNER_ROLE),
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRoleBinding",
                "metadata": {"name": f"{ns}-hub"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{ns}-hub"},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": ns}],
            },
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": ns, "labels": labels},
                "spec": {
                    "serviceAccountName": name,
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000},
                    "containers": [
                        {
                            "name": "hub",
                            "image": image(self.hub_image),
                            # an emptyDir survives the container, not the pod: after a kill a new Hub starts on the old
                            # database
                            "command": [
                                "tini",
                                "--",
                                "sh",
                                "-c",
                                'printf "%s" "$TEST_CONFIG" >/data/config.py; exec jupyterhub -f /data/config.py',
                            ],
                            "workingDir": "/data",
                            "env": [
                                {"name": "TEST_CONFIG", "value": CONFIG},
                                {"name": "TEST_SETTINGS", "value": json.dumps(settings)},
                                {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                                {"name": "HOME", "value": "/data"},
                            ],
                            "readinessProbe": {"httpGet": {"path": "/hub/health", "port": 8000}, "periodSeconds": 1},
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        }
                    ],
                    "volumes": [{"name": "data", "emptyDir": {}}],
                },
            },
        ]

    @contextlib.contextmanager
    def running(self) -> Iterator[HubPod]:
        """Start it; at the end it and its users' namespaces are deleted."""
        self.cluster.apply(*self.objects())
        try:
            self.connect()
            yield self
        finally:
            self.disconnect()
            selector = f"app.kubernetes.io/instance={self.namespace}"
            self.cluster.attempt("kubectl", "delete", "namespace", "-l", selector, "--wait=false")
            self.cluster.attempt("kubectl", "delete", "clusterrole,clusterrolebinding", f"{self.namespace}-hub")
            self.cluster.attempt("kubectl", "delete", "clusterrole", f"{self.namespace}-spawner")

    def connect(self) -> None:
        """Forward a port and wait until the Hub responds on it."""
        self.disconnect()
        waited = self.cluster.attempt(
            *("kubectl", "-n", self.namespace, "wait", "--for=condition=Ready", "pod/hub", "--timeout=90s")
        )
        assert waited.returncode == 0, f"{waited.stderr}\n{self.logs()}"
        kubectl = shutil.which("kubectl", path=self.cluster.environment["PATH"])
        assert kubectl is not None
        command = [kubectl, "-n", self.namespace, "port-forward", "pod/hub", ":8000"]
        self._forward = subprocess.Popen(
            command, env=self.cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._forward.stdout is not None
        line = self._forward.stdout.readline()
        port = re.search(r":(\d+) ->", line)
        assert port, line
        headers = {"Authorization": f"token {self.token}"}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port[1]}", headers=headers, timeout=30)
        wait_for(self._answers, "the Hub answers", timeout=60)

    def _answers(self) -> bool:
        try:
            return self.http.get("/hub/api/").status_code == 200
        except httpx.HTTPError:
            return False

    def disconnect(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None
        if self._forward is not None:
            self._forward.terminate()
            self._forward.wait(10)
            assert self._forward.stdout is not None
            self._forward.stdout.close()
            self._forward = None

    def kill(self) -> None:
        """Kill the Hub like a lost node would, and wait for the next one on the same database."""
        self.disconnect()
        pod = self.cluster.get("-n", self.namespace, "pod", "hub")
        before = pod["status"]["containerStatuses"][0]["restartCount"]
        # pid 1 can't be killed from inside; tini ends when its child ends
        script = (
            "import os, signal, pathlib\n"
            "for p in pathlib.Path('/proc').iterdir():\n"
            "    if p.name.isdigit() and b'jupyterhub' in (p / 'cmdline').read_bytes() and int(p.name) != os.getpid():\n"
            "        os.kill(int(p.name), signal.SIGKILL)\n"
        )
        killed = self.cluster.attempt(
            "kubectl", "-n", self.namespace, "exec", "hub", "--", "/opt/llmos/bin/python", "-c", script
        )

        def again() -> bool:
            status = self.cluster.get("-n", self.namespace, "pod", "hub")["status"]["containerStatuses"][0]
            return bool(status["restartCount"] > before and status["ready"])

        try:
            wait_for(again, f"the Hub is started again ({killed.stderr})", timeout=60, pause=0.5)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None
        self.connect()

    # People and servers

    def user(self, name: str) -> str:
        """Add a user; return the full name."""
        full = f"{self.namespace}-{name}"
        answer = self.http.post(f"/hub/api/users/{full}")
        assert answer.status_code in (201, 409), answer.text
        return full

    def start(self, user: str, server: str = "", **options: Any) -> httpx.Response:
        """Request a server."""
        path = f"/hub/api/users/{user}/servers/{server}" if server else f"/hub/api/users/{user}/server"
        return self.http.post(path, json=options)

    def progress(self, user: str, server: str = "", *, timeout: float = 120, until: str = "") -> list[dict[str, Any]]:
        """Return all progress messages until the start is over, or until one contains `until`."""
        path = (
            f"/hub/api/users/{user}/servers/{server}/progress" if server else f"/hub/api/users/{user}/server/progress"
        )
        heard: list[dict[str, Any]] = []
        deadline = time.monotonic() + timeout
        with self.http.stream("GET", path, timeout=timeout) as lines:
            assert lines.status_code == 200, lines.read()
            for line in lines.iter_lines():
                if not line.startswith("data:"):
                    assert time.monotonic() < deadline, heard
                    continue
                heard.append(json.loads(line.removeprefix("data:")))
                if until and until in heard[-1].get("message", ""):
                    break
        return heard

    def refusal(self, user: str, server: str = "", **options: Any) -> str:
        """Return the message of a start that fails, at once or later."""
        answer = self.start(user, server, **options)
        if answer.status_code >= 400:
            assert answer.status_code < 500 or "message" in answer.json(), answer.text
            return str(answer.json()["message"])
        heard = self.progress(user, server)
        assert heard[-1].get("failed"), heard
        return str(heard[-1]["message"])

    def stop(self, user: str, server: str = "") -> None:
        """Stop a server and wait until it is stopped."""
        path = f"/hub/api/users/{user}/servers/{server}" if server else f"/hub/api/users/{user}/server"
        wait_for(lambda: self.http.delete(path).status_code in (204, 404), "the server stops", timeout=60, pause=0.5)

    def whoami(self, token: str) -> httpx.Response:
        """Return the Hub's response about a token's owner."""
        return self.http.get("/hub/api/user", headers={"Authorization": f"token {token}"})

    def logs(self) -> str:
        return self.cluster.attempt("kubectl", "-n", self.namespace, "logs", "hub", "--tail=200").stdout


class WritableHomes:
    """A thread that makes homes writable: the test cluster's host paths belong to root and don't support fsGroup."""

    def __init__(self, hub: HubPod) -> None:
        self._hub, self._stop = hub, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.wait(0.3):
            found = self._hub.cluster.attempt("kubectl", "get", "pv", "-o", "json").stdout
            for volume in json.loads(found or '{"items": []}')["items"]:
                claim, path = volume["spec"].get("claimRef", {}), volume["spec"].get("hostPath", {}).get("path")
                if path and claim.get("namespace", "").startswith(f"user-{self._hub.namespace}"):
                    with contextlib.suppress(OSError):
                        Path(path).chmod(0o777)

    def __enter__(self) -> Self:
        if self._hub.cluster.directory is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(30)
