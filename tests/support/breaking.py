"""Faults in a cluster and their repair: nodes, processes in pods, the API server, etcd's history."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.cluster import SCRIPTS, Cluster, wait_for

__all__ = ["compact", "control_plane", "kill", "ready_nodes", "restart_api_server", "without"]


def _own(cluster: Cluster) -> Any:
    assert cluster.directory is not None, "machines and the control plane can be broken in our own cluster alone"
    return cluster.directory


def control_plane(cluster: Cluster) -> str:
    """Return the node that runs the API server."""
    _own(cluster)
    return "node1"


def ready_nodes(cluster: Cluster) -> list[str]:
    """Return the ready nodes."""
    return [
        node["metadata"]["name"]
        for node in cluster.get("nodes")["items"]
        if any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"]["conditions"])
    ]


@contextmanager
def without(cluster: Cluster, node: str) -> Iterator[None]:
    """Cut a node's power during the block; afterwards wait until the cluster is complete again."""
    directory = _own(cluster)
    nodes = len(list(directory.glob("state/node*")))
    try:
        # network first: processes killed with their network up still close connections, a machine without power doesn't
        cluster.run("ip", "link", "set", f"k8sv{node.removeprefix('node')}", "down")
        cluster.run(SCRIPTS / "down.sh", node)
        yield
    finally:
        cluster.run(SCRIPTS / "up.sh", str(nodes), timeout=300)

        def whole() -> bool:
            ready = ready_nodes(cluster)
            assert len(ready) == nodes, f"ready: {', '.join(ready)}"
            for item in cluster.get("daemonsets", "-A")["items"]:
                status = item["status"]
                wanted = status["desiredNumberScheduled"]
                assert status.get("numberReady", 0) == wanted == nodes or wanted == 0, item["metadata"]["name"]
            return True

        wait_for(whole, "all nodes with what runs on each", timeout=120, pause=0.5)


def kill(cluster: Cluster, pod: dict[str, Any]) -> None:
    """Kill the process of a pod's first container with SIGKILL; in a cluster that isn't ours delete the pod."""
    meta = pod["metadata"]
    if cluster.directory is None:
        cluster.kubectl("delete", "pod", meta["name"], "-n", meta["namespace"], "--grace-period=0", "--force")
        return
    container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    socket = cluster.directory / "state" / pod["spec"]["nodeName"] / "run" / "containerd.sock"
    cluster.run("ctr", "-a", socket, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", container)


def restart_api_server(cluster: Cluster, after: float = 0.0) -> None:
    """Kill the API server, start it again after that many seconds and wait until it is ready."""
    _own(cluster)
    cluster.run(SCRIPTS / "restart-apiserver.sh", str(after))


def compact(cluster: Cluster) -> None:
    """Make etcd discard its history."""
    pid = (_own(cluster) / "state" / "node1" / "box.pid").read_text().strip()

    def etcd(call: str, body: dict[str, Any]) -> dict[str, Any]:
        url = f"http://127.0.0.1:2379/v3/kv/{call}"
        words = ("nsenter", "-n", "-t", pid, "curl", "-sf", url, "-d", json.dumps(body))
        return json.loads(cluster.run(*words))

    key = base64.b64encode(b"/registry").decode()
    revision = etcd("range", {"key": key, "limit": 1})["header"]["revision"]
    etcd("compaction", {"revision": revision, "physical": True})
