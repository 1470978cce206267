"""The chart on a real cluster: installation, access from outside, and JSON Schemas of all kinds of the cluster."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster, wait_for
from tests.support.helm import CHART
from tests.support.images import REGISTRY, TAG

__all__ = [
    "install",
    "open_host_paths",
    "port_forward",
    "ready",
    "values_for",
    "write_schemas",
]


def values_for(**values: Any) -> dict[str, Any]:
    """Return values with the test cluster's images."""
    return {"images": {"registry": REGISTRY, "tag": TAG}, **values}


def install(
    cluster: Cluster, release: str, namespace: str, values: Mapping[str, Any], *options: str, verb: str = "install"
) -> str:
    """Run ``helm install`` or ``upgrade`` and return its output."""
    command = ["helm", verb, release, str(CHART), "--namespace", namespace, "--values", "-", *options]
    return cluster.run(*command, stdin=json.dumps(values), timeout=600)


def open_host_paths(cluster: Cluster, namespace: str) -> None:
    """Let pods without root write to volumes of the built-in host path provisioner, which are owned by root.

    Real storage changes the group of a volume as pods request (fsGroup), or is writable for all.
    """
    classes = cluster.get("storageclass")["items"]
    if not any(item["provisioner"] == "kubernetes.io/host-path" for item in classes):
        return
    labels = {"app": "open-host-paths"}
    command = "while true; do chmod 777 /volumes/* 2>/dev/null; sleep 0.5; done"
    container = {
        "name": "chmod",
        "image": "registry.local/busybox:1",
        "command": ["sh", "-c", command],
        "volumeMounts": [{"name": "volumes", "mountPath": "/volumes"}],
    }
    host_path = {"path": "/tmp/hostpath_pv", "type": "DirectoryOrCreate"}  # the provisioner's directory
    spec = {
        "containers": [container],
        "volumes": [{"name": "volumes", "hostPath": host_path}],
        "terminationGracePeriodSeconds": 0,
    }
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "open-host-paths", "namespace": namespace},
            "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}},
        }
    )


@contextlib.contextmanager
def port_forward(cluster: Cluster, namespace: str, service: str, port: int = 80) -> Iterator[str]:
    """Yield an address on this machine that leads to a Service."""
    command = ["kubectl", "-n", namespace, "port-forward", f"service/{service}", f":{port}"]
    process = subprocess.Popen(
        command, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", line)
        assert found, f"{' '.join(command)}: {line}"
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        process.terminate()
        process.communicate(timeout=10)


def ready(cluster: Cluster, namespace: str, *, timeout: float = 300) -> None:
    """Wait until all workloads of a release are ready."""

    def all_ready() -> bool:
        items = cluster.get("deployments,statefulsets", "-n", namespace)["items"]
        assert items
        for item in items:
            status, wanted = item["status"], item["spec"]["replicas"]
            current = status.get("updatedReplicas", 0) == wanted and status.get("readyReplicas", 0) == wanted
            assert current, f"{item['metadata']['name']}: {status.get('readyReplicas', 0)} of {wanted} ready"
            assert status.get("observedGeneration") == item["metadata"]["generation"]
        return True

    wait_for(all_ready, f"the release in {namespace}", timeout=timeout, pause=1.0)


# Schemas


def write_schemas(cluster: Cluster, directory: Path) -> str:
    """Write a strict JSON Schema for each kind in the API server's OpenAPI; return kubeconform's pattern for them."""
    definitions = json.loads(cluster.kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    for name, definition in definitions.items():
        _tighten(name, definition)
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            group = kind["group"] or kind["version"]  # kubeconform uses the part before the slash
            file = directory / f"{group}-{kind['version']}-{kind['kind'].lower()}.json"
            if not file.exists():
                file.write_text(
                    json.dumps({"$ref": f"#/definitions/{name}", "definitions": _reached(name, definitions)})
                )
    return f"{directory}/{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}-{{{{.ResourceKind}}}}.json"


def _tighten(name: str, definition: dict[str, Any]) -> None:
    """Disallow unknown fields; allow numbers where the API server does although its OpenAPI has strings."""
    if name.endswith("api.resource.Quantity"):
        definition.update(type=["string", "number"])
    elif name.endswith("util.intstr.IntOrString"):
        definition.update(type=["string", "integer"])
    if definition.get("properties") and "x-kubernetes-preserve-unknown-fields" not in definition:
        definition.setdefault("additionalProperties", False)


def _reached(name: str, definitions: Mapping[str, Any]) -> dict[str, Any]:
    """Return the definitions that one refers to, directly or indirectly."""
    found: dict[str, Any] = {}
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current not in found:
            found[current] = definitions[current]
            waiting += re.findall(r'"#/definitions/([^"]+)"', json.dumps(definitions[current]))
    return found
