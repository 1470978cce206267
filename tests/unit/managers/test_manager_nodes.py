"""Nodes: capacity, free resources, and visibility of workloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.proc import MachineMemory
from llmos.resources import ModelService
from llmos.resources.node import Node, NodeWork
from llmos.resources.workload import ReplicaStatus, Resources
from llmos_hub.engines.base import Machine
from llmos_hub.managers import nodes as nodes_module
from llmos_hub.managers.nodes import KubernetesNodes, LocalNodes, largest_machine, read_nodes, visible_to
from llmos_hub.names import SCOPE_MANAGE
from llmos_hub.policy import Caller, Rights
from llmos_hub.stores.base import Store
from tests.support.fake_kubernetes import fake_kubernetes

GI = 2**30


def node(name: str = "node1", *, ready: str = "True", **more: Any) -> dict[str, Any]:
    room = {"cpu": "3920m", "memory": f"{16 * GI // 1024}Ki", "pods": "110", **more.pop("room", {})}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/arch": "arm64", **more.pop("labels", {})}},
        "spec": more.pop("spec", {}),
        "status": {
            "allocatable": room,
            "conditions": [
                {"type": "Ready", "status": ready, "reason": "KubeletReady", "message": more.pop("message", "")},
                *more.pop("conditions", []),
            ],
        },
    }


def pod(name: str, on: str | None = "node1", namespace: str = "user-ada", **more: Any) -> dict[str, Any]:
    requests = more.get("requests", {"cpu": "500m", "memory": "1Gi"})
    spec: dict[str, Any] = {"containers": [{"resources": {"requests": requests}}], **more.get("spec", {})}
    if on:
        spec["nodeName"] = on
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": more.get("labels", {})},
        "spec": spec,
        "status": {"phase": more.get("phase", "Running")},
    }


ENGINE = {"llmos.ai/kind": "ModelService", "llmos.ai/name": "chat", "llmos.ai/part": "serve"}
FETCH = {**ENGINE, "llmos.ai/part": "fetch"}


def test_what_is_free_is_what_nobody_asked_for() -> None:
    pods = [
        pod("chat-1", labels=ENGINE),
        pod("chat-fetch", labels=FETCH, requests={"cpu": "100m"}),
        pod("jupyter-ada", labels={"component": "singleuser-server"}, requests={"memory": "2Gi"}),
        pod("coredns", namespace="kube-system", requests={"cpu": "0.1", "memory": "70Mi"}),
        pod("gateway-1", namespace="llmos", requests={}),
        pod("other", namespace="default"),
        pod("done", phase="Succeeded", requests={"cpu": "3"}),
        pod("waiting", on=None, requests={"cpu": "3"}),
    ]
    (found,) = read_nodes([node()], pods, "llmos")
    assert (found.name, found.architecture, found.roles, found.ready) == ("node1", "arm64", ["worker"], True)
    assert (found.cpus, found.memory) == (3.92, 16 * GI)
    assert found.cpus_free == pytest.approx(3.92 - 0.5 - 0.1 - 0.1 - 0.5)
    assert found.memory_free == 16 * GI - 4 * GI - 70 * 2**20
    assert found.counts == {"Download": 1, "ModelService": 1, "Other": 1, "Server": 1, "System": 2}
    assert [(work.kind, work.namespace, work.name) for work in found.running if work.kind != "System"] == [
        ("Download", "user-ada", "chat"),
        ("ModelService", "user-ada", "chat"),
        ("Other", "default", "other"),
        ("Server", "user-ada", "jupyter-ada"),
    ]


def test_init_containers_count_where_they_need_more_and_sidecars_with_the_rest() -> None:
    first = {"resources": {"requests": {"memory": "3Gi"}}}
    beside = {"resources": {"requests": {"memory": "512Mi"}}, "restartPolicy": "Always"}
    (found,) = read_nodes([node()], [pod("a", spec={"initContainers": [first]})], "llmos")
    assert found.memory_free == 13 * GI
    (found,) = read_nodes([node()], [pod("a", spec={"initContainers": [beside], "overhead": {"cpu": "250m"}})], "llmos")
    assert found.memory_free == 16 * GI - GI - GI // 2
    assert found.cpus_free == pytest.approx(3.92 - 0.75)


def test_gpus_and_their_kind() -> None:
    gpu = node(
        "gpu1",
        room={"nvidia.com/gpu": "2"},
        labels={"nvidia.com/gpu.product": "NVIDIA-L4", "node-role.kubernetes.io/gpu": ""},
    )
    limits = {"containers": [{"resources": {"limits": {"nvidia.com/gpu": "1", "memory": "8Gi"}}}]}
    (found,) = read_nodes([gpu], [pod("train", on="gpu1", spec=limits)], "llmos")
    assert (found.gpus, found.gpus_free, found.gpu_type, found.roles) == (2, 1, "NVIDIA-L4", ["gpu"])
    assert found.running[0].gpus == 1
    assert found.memory_free == 8 * GI


@pytest.mark.parametrize(
    ("obj", "ready", "message"),
    [
        (node(ready="Unknown", message="Kubelet stopped posting node status."), False, "Not ready: Kubelet stopped posting node status."),
        (node(spec={"unschedulable": True}), False, "Cordoned: no new pods are scheduled there until it is uncordoned."),
        (node(conditions=[{"type": "MemoryPressure", "status": "True"}]), True, "Short of memory: pods may be evicted."),
        ({"metadata": {"name": "new"}, "spec": {}}, False, "Not ready: it has not reported yet"),
    ],
)  # fmt: skip
def test_a_node_that_takes_nothing_says_why(obj: dict[str, Any], ready: bool, message: str) -> None:
    (found,) = read_nodes([obj], [], "llmos")
    assert (found.ready, found.message) == (ready, message)


def test_others_see_that_something_runs_but_not_whose() -> None:
    work = [NodeWork(kind="Server", namespace=f"user-{who}", name=f"jupyter-{who}") for who in ("ada", "grace")]
    nodes = [Node(name="node1", counts={"Server": 2}, running=work)]
    ada = visible_to(Rights(Caller("ada", scopes=frozenset({SCOPE_MANAGE}))), nodes)
    assert [work.name for work in ada.items[0].running] == ["jupyter-ada"]
    assert ada.items[0].counts == {"Server": 2}
    assert "grace" not in ada.model_dump_json()
    admin = visible_to(Rights(Caller("root", admin=True, scopes=frozenset({SCOPE_MANAGE}))), nodes)
    assert len(admin.items[0].running) == 2


def test_the_largest_machine_is_that_of_a_node_which_fits() -> None:
    nodes = [
        Node(name="big", cpus=63.5, memory=256 * GI),
        Node(name="l4", cpus=8, memory=32 * GI, gpus=1, gpu_type="L4"),
        Node(name="h100", cpus=32, memory=64 * GI, gpus=4, gpu_type="H100"),
    ]

    def machine(**resources: Any) -> Machine | None:
        return largest_machine(nodes, Resources.model_validate(resources))

    assert machine() == Machine(63, 256 * GI, ())
    assert machine(gpus=1) == Machine(32, 64 * GI, ("H100",) * 4)
    assert machine(gpus=1, gpuType="L4") == Machine(8, 32 * GI, ("L4",))
    assert machine(gpus=2, gpuType="L4") is None
    assert largest_machine([], Resources()) is None


async def test_a_workstation_is_one_node(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"model": "demo://tiny", "resources": {"cpu": "2", "gpus": 1}}
    for name in ("chat", "idle"):
        await store.create(
            ModelService.parse(
                {"kind": "ModelService", "metadata": {"name": name, "namespace": "user-ada"}, "spec": spec}
            )
        )
    chat = await store.get(ModelService, "user-ada", "chat")
    replicas = [ReplicaStatus(id="replica-0", phase="Ready", memory=GI)]
    await store.patch_status(
        chat.model_copy(update={"status": chat.status.model_copy(update={"replica_statuses": replicas})})
    )
    monkeypatch.setattr(nodes_module, "detect", lambda: Machine(4, 8 * GI, ("NVIDIA L4", "NVIDIA L4")))
    # of a control group whose other processes use most of it, on a machine with much more
    monkeypatch.setattr(nodes_module, "machine_memory", lambda: MachineMemory(8 * GI, 3 * GI))
    (found,) = await LocalNodes(store).all()
    assert (found.roles, found.cpus, found.memory, found.gpus, found.gpus_free) == (["workstation"], 4.0, 8 * GI, 2, 1)
    assert found.message.startswith("2 × NVIDIA L4: the installed build of llama.cpp computes on CPUs only")
    assert found.memory_free == 3 * GI
    assert [(work.name, work.memory, work.cpus, work.gpus) for work in found.running] == [("chat", GI, 2.0, 1)]


async def test_a_cluster_is_asked_once_for_all_who_ask(tmp_path: Path) -> None:
    now = 0.0
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("nodes", node())
        cluster.put("pods", pod("chat-1", labels=ENGINE))
        nodes = KubernetesNodes(api, "llmos", clock=lambda: now)
        assert [n.name for n in await nodes.all()] == ["node1"]
        await nodes.all()
        assert api.calls == {"GET": 2}
        cluster.put("nodes", node("node2"))
        now = 4.0
        assert [n.name for n in await nodes.all()] == ["node1", "node2"]
