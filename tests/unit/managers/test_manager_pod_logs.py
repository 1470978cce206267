"""Logs in a cluster: those of the engine's pods, or before these exist, the download's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmos.errors import NotFound
from llmos.resources import ModelService
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.managers.pod_logs import PodLogReader
from llmos_hub.stores.base import Store
from llmos_hub.workload import WorkloadRef
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes


@dataclass
class Bench:
    cluster: FakeKubernetes
    api: KubernetesAPI
    reader: PodLogReader
    service: ModelService

    def pod(self, part: str, name: str, log: str) -> None:
        role = "replica" if part == "serve" else part
        container = "engine" if part == "serve" else part
        ref = WorkloadRef("ModelService", "user-ada", "chat", self.service.metadata.uid or "", part)
        labels = {"llmos.ai/workload": ref.id, "llmos.ai/role": role, "llmos.ai/part": part}
        status = {"name": container, "restartCount": 0, "state": {"running": {}}}
        self.cluster.put(
            "pods",
            {
                "metadata": {"name": name, "namespace": "user-ada", "labels": labels},
                "spec": {"containers": [{"name": container}]},
                "status": {"phase": "Running", "containerStatuses": [status]},
            },
        )
        self.cluster.logs["user-ada", name] = log

    async def lines(self, **more: Any) -> list[str]:
        options = {"replica": None, "tail": None, "follow": False, **more}
        async with self.reader.lines(self.service, **options) as lines:
            return [line async for line in lines]


@pytest.fixture
async def bench(tmp_path: Path, store: Store) -> AsyncIterator[Bench]:
    meta = {"name": "chat", "namespace": "user-ada"}
    service = await store.create(
        ModelService.parse({"kind": "ModelService", "metadata": meta, "spec": {"model": "demo://tiny"}})
    )
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": "user-ada"}})
        yield Bench(cluster, api, PodLogReader(api, store), service)


async def test_the_download_is_shown_until_the_engine_has_pods(bench: Bench) -> None:
    with pytest.raises(NotFound, match="Nothing has run for chat yet, so there is no log"):
        await bench.lines()
    bench.pod("fetch", "chat-fetch-1", "fetching\nfetched\n")
    assert await bench.lines() == ["fetching", "fetched"]
    bench.pod("serve", "chat-serve-1", "loading\nready\n")
    bench.pod("serve", "chat-serve-2", "also ready\n")
    assert sorted(await bench.lines()) == ["also ready", "loading", "ready"]
    assert await bench.lines(replica="chat-serve-2") == ["also ready"]
    with pytest.raises(NotFound):
        await bench.lines(replica="chat-serve-3")
