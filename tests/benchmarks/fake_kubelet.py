"""Machines that aren't there: each pod that the scheduler gives them is running and ready at once.

``python -m tests.benchmarks.fake_kubelet KUBECONFIG NODES``
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

import uvloop

from llmos.errors import LLMOSError
from llmos_hub.controllers.workqueue import WorkQueue
from llmos_hub.kubernetes.connection import MERGE_PATCH, APIError, KubernetesAPI, path_of

WORKERS = 8
_CAPACITY = {"cpu": "4000", "memory": "64Ti", "pods": "20000", "ephemeral-storage": "64Ti"}


async def make_nodes(api: KubernetesAPI, count: int) -> None:
    """Machines with room for everything."""
    for number in range(count):
        name = f"node{number}"
        await api.request("POST", path_of("v1", "nodes"), body={"apiVersion": "v1", "kind": "Node",
                          "metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}}})  # fmt: skip
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "there is none"}
        status = {"capacity": _CAPACITY, "allocatable": _CAPACITY, "conditions": [ready]}
        path = path_of("v1", "nodes", None, name, "status")
        await api.request("PATCH", path, body={"status": status}, content_type=MERGE_PATCH)


def make_status(pod: dict[str, Any], number: int) -> dict[str, Any]:
    """That of a pod in which everything went well."""
    address = f"10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    since = pod["metadata"]["creationTimestamp"]

    def container(spec: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        return {"name": spec["name"], "image": spec["image"], "imageID": "", "restartCount": 0, "ready": True,
                "started": "running" in state, "state": state}  # fmt: skip

    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": since, "finishedAt": since}}
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": since,
        "conditions": [{"type": name, "status": "True", "lastTransitionTime": since} for name in conditions],
        "containerStatuses": [container(c, {"running": {"startedAt": since}}) for c in pod["spec"]["containers"]],
        "initContainerStatuses": [container(c, ended) for c in pod["spec"].get("initContainers") or ()],
    }


class Kubelets:
    """All of them."""

    def __init__(self, api: KubernetesAPI) -> None:
        self._api = api
        self._pods: dict[tuple[str, str], dict[str, Any]] = {}
        self._queue: WorkQueue[tuple[str, str]] = WorkQueue()
        self._numbers = iter(range(1, 1 << 24))

    async def run(self) -> None:
        """Follow the pods and make them run."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())
            group.create_task(self._follow())

    async def _follow(self) -> None:
        path, params = path_of("v1", "pods"), {"fieldSelector": "spec.nodeName!="}
        while True:
            with contextlib.suppress(APIError, LLMOSError):
                async with self._api.lines(path, params=params | {"watch": "1", "resourceVersion": "0"}) as lines:
                    async for line in lines:
                        self._take(json.loads(line))

    def _take(self, event: dict[str, Any]) -> None:
        pod = event["object"]
        if event["type"] in ("ADDED", "MODIFIED"):
            key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
            if pod["metadata"].get("deletionTimestamp") or pod["status"].get("phase") == "Pending":
                self._pods[key] = pod
                self._queue.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._queue.get()
            if (pod := self._pods.pop(key, None)) is not None:
                with contextlib.suppress(APIError, LLMOSError):  # it is gone, or comes again
                    await self._bring_on(pod)
            self._queue.done(key)

    async def _bring_on(self, pod: dict[str, Any]) -> None:
        meta = pod["metadata"]
        if meta.get("deletionTimestamp"):
            path = path_of("v1", "pods", meta["namespace"], meta["name"])
            await self._api.request("DELETE", path, body={"gracePeriodSeconds": 0})
            return
        path = path_of("v1", "pods", meta["namespace"], meta["name"], "status")
        body = {"status": make_status(pod, next(self._numbers))}
        await self._api.request("PATCH", path, body=body, content_type=MERGE_PATCH)


async def main(kubeconfig: str, nodes: int) -> None:
    api = KubernetesAPI(kubeconfig=kubeconfig, timeout=30)
    try:
        await make_nodes(api, nodes)
        await Kubelets(api).run()
    finally:
        await api.close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
