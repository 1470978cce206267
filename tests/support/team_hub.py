"""A team's existing Hub, configured by values like Zero to JupyterHub's chart.

It has the same names, labels, services, permissions and NetworkPolicies, the same keys in its values, and the same
order of configuration. It runs JupyterHub 5.5, the version of that chart, and none of LLMOS' packages is in its image.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tests.support.cluster import Cluster, wait_for
from tests.support.helm import merge_values
from tests.support.images import image
from tests.support.people import HubClient

__all__ = ["PASSWORD", "TeamHub"]

PASSWORD = "the-team-has-one-password"
CONFIG = (Path(__file__).parent / "team_hub_config.py").read_text()
# LLMOS' packages in the image that is used here; they are hidden, since a team's Hub doesn't have them
_PACKAGES = "/opt/llmos/lib/python3.11/site-packages"
_HIDDEN = ("llmos", "llmos_hub", "llmos_spawners", f"llmos-{version('llmos')}.dist-info")


@dataclass
class TeamHub(HubClient):
    """A release in its own namespace.

    Attributes
    ----------
    values
        The team's own values.
    """

    cluster: Cluster
    namespace: str
    values: dict[str, Any]
    _live: dict[str, Any] = field(default_factory=dict)
    start_timeout = 180.0

    def upgrade(self, *files: Mapping[str, Any]) -> None:
        """Run the equivalent of ``helm upgrade`` with the team's values and more files; the Hub is restarted."""
        self._live = merge_values(_DEFAULTS, self.values)
        for file in files:
            self._live = merge_values(self._live, file)
        self.cluster.apply(*self.objects())
        words = ("-n", self.namespace, "rollout", "status", "deployment/hub", "deployment/proxy", "--timeout=400s")
        done = self.cluster.attempt("kubectl", *words, timeout=420)
        assert done.returncode == 0, f"{done.stderr}\n{self.log()}"
        wait_for(lambda: self.hub("GET", "/").status_code == 200, "the Hub answers", timeout=60)

    # Addresses

    @cached_property
    def hub_url(self) -> str:
        service = self.cluster.get("service", "proxy-public", "-n", self.namespace)
        addresses = self.cluster.get("nodes")["items"][0]["status"]["addresses"]
        host = next(item["address"] for item in addresses if item["type"] == "InternalIP")
        return f"http://{host}:{service['spec']['ports'][0]['nodePort']}"

    @property
    def admin_token(self) -> str:
        return str(self.values["hub"]["services"]["operator"]["apiToken"])

    def log(self) -> str:
        """Return the Hub's log since its start."""
        return self.cluster.attempt("kubectl", "-n", self.namespace, "logs", "deployment/hub").stdout

    def server_pod(self, user: str, namespace: str = "") -> dict[str, Any] | None:
        """Return the pod of a user's default server."""
        found = self.cluster.get(
            *("pods", "-n", namespace or self.namespace, "-l", f"hub.jupyter.org/username={user}")
        )["items"]
        return found[0] if found else None

    # Objects

    def objects(self) -> list[dict[str, Any]]:
        """Return all objects except users' servers."""
        values = {**self._live, "Release": {"Name": "team", "Namespace": self.namespace}}
        config = {"values.yaml": yaml.safe_dump(values), "jupyterhub_config.py": CONFIG}
        meta = {"name": "hub", "namespace": self.namespace}
        pods = ["pods", "persistentvolumeclaims", "secrets", "services"]
        return [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "Role",
                "metadata": meta,
                "rules": [
                    {"apiGroups": [""], "resources": pods, "verbs": ["get", "watch", "list", "create", "delete"]},
                    {"apiGroups": [""], "resources": ["events"], "verbs": ["get", "watch", "list"]},
                ],
            },
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": meta,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "hub"},
                "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": self.namespace}],
            },
            {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": config},
            self._claim(),
            *(self._service(*words) for words in _SERVICES),
            self._deployment("hub", self._hub_pod(hashlib.sha256(json.dumps(config).encode()).hexdigest())),
            self._deployment("proxy", self._proxy_pod()),
            *self._policies(),
        ]

    def _claim(self) -> dict[str, Any]:
        spec: dict[str, Any] = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "200Mi"}}}
        if storage_class := self._live["singleuser"]["storage"]["dynamic"].get("storageClass"):
            spec["storageClassName"] = storage_class
        meta = {"name": "hub-db-dir", "namespace": self.namespace}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}

    def _service(self, name: str, component: str, port: int, target: int, type_: str) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "type": type_,
                "selector": _labels(component),
                "ports": [{"name": "http", "port": port, "targetPort": target}],
            },
        }

    def _deployment(self, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        labels = {**_labels(name), **_ACCESS[name]}
        annotations = spec.pop("annotations", {})
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.namespace, "labels": labels},
            "spec": {
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": _labels(name)},
                "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec},
            },
        }

    def _hub_pod(self, checksum: str) -> dict[str, Any]:
        hub = self._live["hub"]
        env = [
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "POD_NAMESPACE", "value": self.namespace},
            {"name": "CONFIGPROXY_AUTH_TOKEN", "value": self.values["proxy"]["secretToken"]},
            {"name": "HOME", "value": "/tmp"},
        ]
        for name, value in hub["extraEnv"].items():
            env.append({"name": name, **(value if isinstance(value, dict) else {"value": value})})
        container = {
            "name": "hub",
            "image": image("hub-5"),
            "args": ["/opt/llmos/bin/jupyterhub", "--config", "/etc/jupyterhub/jupyterhub_config.py", "--upgrade-db"],
            "workingDir": "/srv/jupyterhub",
            "env": env,
            "ports": [{"name": "http", "containerPort": 8081}],
            "readinessProbe": {"httpGet": {"path": "/hub/health", "port": "http"}, "periodSeconds": 1},
            "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "allowPrivilegeEscalation": False},
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/jupyterhub"},
                {"name": "db", "mountPath": "/srv/jupyterhub"},
                *({"name": "nothing", "mountPath": f"{_PACKAGES}/{name}", "subPath": name} for name in _HIDDEN),
                *hub["extraVolumeMounts"],
            ],
        }
        return {
            "annotations": {"checksum/config": checksum},
            "serviceAccountName": "hub",
            "securityContext": {"fsGroup": 1000},
            "initContainers": hub["initContainers"],
            "containers": [container],
            "volumes": [
                {"name": "config", "secret": {"secretName": "hub"}},
                {"name": "db", "persistentVolumeClaim": {"claimName": "hub-db-dir"}},
                {"name": "nothing", "emptyDir": {}},
                *hub["extraVolumes"],
            ],
        }

    def _proxy_pod(self) -> dict[str, Any]:
        command = ["/opt/llmos/bin/python", "-P", "-m", "llmos_hub.supervisor.container", "proxy"]
        to_hub = ["--default-target=http://hub:8081", "--error-target=http://hub:8081/hub/error"]
        container = {
            "name": "chp",
            "image": image("hub"),
            "command": [*command, "--ip=0.0.0.0", "--port=8000", "--api-ip=0.0.0.0", "--api-port=8001", *to_hub],
            "env": [{"name": "CONFIGPROXY_AUTH_TOKEN", "value": self.values["proxy"]["secretToken"]}],
            "readinessProbe": {"httpGet": {"path": "/_chp_healthz", "port": 8000}, "periodSeconds": 1},
        }
        return {"containers": [container], "terminationGracePeriodSeconds": 5}

    def _policies(self) -> list[dict[str, Any]]:
        """Return the NetworkPolicies: access by the pods' labels, in this namespace only."""
        from_labelled = {
            who: [{"podSelector": {"matchLabels": {f"hub.jupyter.org/network-access-{who}": "true"}}}]
            for who in ("hub", "proxy-api", "singleuser")
        }
        to_hub = {"to": [{"podSelector": {"matchLabels": _labels("hub")}}], "ports": [{"port": 8081}]}
        to_proxy = {"to": [{"podSelector": {"matchLabels": _labels("proxy")}}], "ports": [{"port": 8000}]}
        dns = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
        private = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]
        outside = {"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": private}}]}
        rules: dict[str, tuple[list[Any], list[Any]]] = {
            "hub": (
                [
                    {"from": from_labelled["hub"], "ports": [{"port": 8081}]},
                    *self._live["hub"]["networkPolicy"]["ingress"],
                ],
                [{}],
            ),
            "proxy": (
                [{"ports": [{"port": 8000}]}, {"from": from_labelled["proxy-api"], "ports": [{"port": 8001}]}],
                [{}],
            ),
            "singleuser-server": (
                [{"from": from_labelled["singleuser"], "ports": [{"port": 8888}]}],
                [to_hub, to_proxy, dns, outside, *self._live["singleuser"]["networkPolicy"]["egress"]],
            ),
        }
        return [
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "podSelector": {"matchLabels": _labels(name)},
                    "policyTypes": ["Ingress", "Egress"],
                    "ingress": ingress,
                    "egress": egress,
                },
            }
            for name, (ingress, egress) in rules.items()
        ]


def _labels(component: str) -> dict[str, str]:
    return {"app": "jupyterhub", "component": component, "release": "team"}


_SERVICES = (
    ("hub", "hub", 8081, 8081, "ClusterIP"),
    ("proxy-api", "proxy", 8001, 8001, "ClusterIP"),
    ("proxy-public", "proxy", 80, 8000, "NodePort"),
)
_ACCESS = {
    "hub": {
        "hub.jupyter.org/network-access-proxy-api": "true",
        "hub.jupyter.org/network-access-proxy-http": "true",
        "hub.jupyter.org/network-access-singleuser": "true",
    },
    "proxy": {
        "hub.jupyter.org/network-access-hub": "true",
        "hub.jupyter.org/network-access-singleuser": "true",
    },
}
_DEFAULTS: dict[str, Any] = {
    "hub": {
        "initContainers": [],
        "extraVolumes": [],
        "extraVolumeMounts": [],
        "extraEnv": {},
        "extraConfig": {},
        "networkPolicy": {"ingress": []},
    },
    "singleuser": {
        "cloudMetadata": {"blockWithIptables": True},
        "storage": {"homeMountPath": "/home/jovyan", "capacity": "300Mi", "dynamic": {}},
        "networkPolicy": {"egress": []},
    },
}
