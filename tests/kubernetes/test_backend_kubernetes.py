"""The Kubernetes backend keeps the contract of all backends, with real pods."""

from __future__ import annotations

import uuid

import pytest

from llmos_hub.backends.base import Backend
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.kubernetes.connection import path_of
from llmos_hub.workload import Mount, ProcessTemplate, ReplicaState, WorkloadRef
from tests.support import backend_contract
from tests.support.backend_contract import REPORT, BackendContract, Programs, ready, until, workload
from tests.support.kubernetes_backend import CLAIM, HEAD, HEALTH, WORKER, Placed, script, serving, settings_for

NEEDS = ("csi",)


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_contract, "PATIENCE", 90.0)


@pytest.fixture
def release() -> str:
    """A release of the test's own: it sees no other's workloads."""
    return f"t-{uuid.uuid4().hex[:8]}"


@pytest.fixture
async def backend(api, namespace, release):
    placed = Placed(KubernetesBackend(api, settings_for(release)), api, namespace)
    await placed.start()
    yield placed
    await placed.close(stop=True)


@pytest.fixture
async def programs(api, cluster, namespace, release):
    made = []
    # a cluster that isn't ours has a default class
    ours = {"storageClassName": "csi-shared"} if cluster.directory is not None else {}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}, **ours}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": spec}
    await api.request("POST", path_of("v1", "persistentvolumeclaims", namespace), body=claim)

    async def restart(_: Backend, __: WorkloadRef, replica: ReplicaState) -> None:
        await api.request("DELETE", path_of("v1", "pods", namespace, replica.id))

    async def successor(before: Placed) -> Placed:
        await before.close()
        after = Placed(KubernetesBackend(api, settings_for(release)), api, namespace)
        made.append(after)
        await after.start()
        return after

    yield Programs(
        serving=serving,
        unready=script("sleep 3600", readiness=HEALTH),
        crashing=script("echo last words; exit 3", readiness=HEALTH),
        job=lambda code: script(f"echo working; exit {code}", completes=True),
        reporting=script("; ".join(f"echo '{line}'" for line in REPORT), completes=True),
        missing=ProcessTemplate(("llmos-no-such-program",), grace=1.0),
        successor=successor,
        head=HEAD,
        worker=WORKER,
        restart=restart,
        shell=lambda text, mount: script(text, completes=True, mounts={"data": mount}),
        mount=Mount(CLAIM, "/data"),
    )
    for placed in made:
        await placed.close(stop=True)


class TestContract(BackendContract):
    """All of it but this: of pods that are too many, a Deployment chooses itself which go, so after scaling down
    the one that was there first need not be the one that is left.
    """

    endpoints = ("http://",)

    async def test_scales_and_keeps_what_runs(self, backend: Backend, programs: Programs) -> None:
        wanted = workload(programs.serving("a"), count=1)
        await backend.apply(wanted)
        first = (await until(backend, wanted.ref, ready(1))).replicas[0]
        await backend.apply(workload(programs.serving("a"), count=3))
        seen = await until(backend, wanted.ref, ready(3))
        assert seen.replicas[0].pid == first.pid
        assert [r.index for r in seen.replicas] == [0, 1, 2]
        await backend.apply(workload(programs.serving("a"), count=1))
        left = await until(backend, wanted.ref, ready(1))
        assert left.replicas[0].pid in {r.pid for r in seen.replicas}
        await backend.apply(workload(programs.serving("a"), count=0))
        seen = await until(backend, wanted.ref, ready(0))
        assert seen.replicas == ()
        assert list(await backend.refs()) == [wanted.ref], "scaled to nothing is not deleted"
