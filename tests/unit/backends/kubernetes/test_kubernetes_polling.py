"""Memory usage is read if the cluster has metrics; otherwise that is logged once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from llmos_hub.backends.kubernetes import polling
from llmos_hub.backends.kubernetes.names import make_metadata
from llmos_hub.backends.kubernetes.polling import Polls
from llmos_hub.backends.kubernetes.settings import KubernetesSettings
from llmos_hub.kubernetes.connection import APIError, KubernetesAPI
from llmos_hub.workload import ProcessTemplate, Role, Workload, WorkloadRef

REF = WorkloadRef("ModelService", "user-ada", "chat", "u1")
ROLE = Role("replica", 1, ProcessTemplate(("serve",)))
SETTINGS = KubernetesSettings()
POD = {"metadata": make_metadata(Workload(REF, (ROLE,)), SETTINGS, "chat-a", ROLE)}


class Metrics(KubernetesAPI):
    """A cluster that answers for the metrics API."""

    def __init__(self, directory: Path) -> None:
        super().__init__(kubeconfig=directory / "none")
        self.answers: list[Any] = []
        self.asked: list[tuple[str, Any]] = []

    async def request(self, method: str, path: str, *, params: Any = None, **_: Any) -> dict[str, Any]:
        self.asked.append((f"{method} {path}", params))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"items": answer}


def usage(*containers: str) -> list[dict[str, Any]]:
    used = [{"name": "a", "usage": {"memory": memory, "cpu": "3m"}} for memory in containers]
    return [{"metadata": {"namespace": "user-ada", "name": "chat-a"}, "containers": used}]


@pytest.fixture
def metrics(tmp_path: Path) -> Metrics:
    return Metrics(tmp_path)


async def test_memory_is_summed_over_containers_and_news_is_told(metrics: Metrics) -> None:
    told: list[WorkloadRef] = []
    polls = Polls(metrics, SETTINGS, {("user-ada", "chat-a"): POD}, told.append)
    metrics.answers = [usage("100Mi", "28Mi"), usage("100Mi", "28Mi"), []]
    assert await polls.look_at_memory() == polling.MEMORY_PERIOD
    assert polls.memory == {("user-ada", "chat-a"): 128 * 2**20}
    assert told == [REF]
    await polls.look_at_memory()
    assert told == [REF], "the same again is no news"
    await polls.look_at_memory()
    assert (polls.memory, told) == ({}, [REF, REF])
    path, params = metrics.asked[0]
    assert path == "GET /apis/metrics.k8s.io/v1beta1/pods"
    assert params == {
        "labelSelector": "app.kubernetes.io/managed-by=llmos,app.kubernetes.io/part-of=llmos,llmos.ai/workload"
    }


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (APIError(404, {"message": "the server could not find the requested resource"}), "has no metrics-server"),
        (APIError(403, {"message": "pods.metrics.k8s.io is forbidden"}), "pods.metrics.k8s.io is forbidden"),
    ],
)
async def test_a_cluster_without_metrics_is_asked_seldom_and_told_of_once(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, error: APIError, said: str
) -> None:
    polls = Polls(metrics, SETTINGS, {("user-ada", "chat-a"): POD}, lambda _: None)
    metrics.answers = [error, error, error, usage("1Mi"), error]
    with caplog.at_level(logging.DEBUG, logger=polling.__name__):
        pauses = [await polls.look_at_memory() for _ in range(3)]
        assert min(pauses) >= 60
        (line,) = caplog.records
        assert said in line.getMessage()
        assert line.levelno == logging.INFO, "it is no error"
        await polls.look_at_memory()
        await polls.look_at_memory()
    assert len(caplog.records) == 3, "that it can be had again, and that it can't"
