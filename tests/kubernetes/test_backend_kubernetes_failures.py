"""Faults of pods as real clusters report them, in words; and those that end by themselves."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace

import pytest

from llmos.errors import BackendFailed, Invalid
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.workload import PodOptions, ProcessTemplate, Role, Workload, WorkloadRef
from tests.support.backend_contract import phase, ready, until
from tests.support.kubernetes_backend import HEALTH, IMAGE, script, serving, settings_for, with_pod

PATIENCE = 90.0
MIB = 2**20


@pytest.fixture
def settings():
    return settings_for(f"t-{uuid.uuid4().hex[:8]}")


@pytest.fixture
async def backend(api, settings):
    made = KubernetesBackend(api, settings)
    await made.start()
    yield made
    await made.close(stop=True)


def wanted(namespace: str, template: ProcessTemplate, *, count: int = 1, name: str = "chat") -> Workload:
    return Workload(WorkloadRef("ModelService", namespace, name, "u1"), (Role("replica", count, template),))


async def seen(backend, workload, reason):
    """The first replica with that reason."""
    observation = await until(
        backend, workload.ref, lambda o: any(r.reason == reason for r in o.replicas), timeout=PATIENCE
    )
    return next(r for r in observation.replicas if r.reason == reason)


async def test_no_machine_has_the_memory(backend, namespace):
    workload = wanted(namespace, serving(memory_request=2**50))
    await backend.apply(workload)
    replica = await seen(backend, workload, "InsufficientMemory")
    assert replica.phase == "Waiting"
    assert replica.message.startswith("chat needs 1024 TiB of memory and none of ")
    assert "llmos set chat --memory" in replica.message
    await backend.apply(wanted(namespace, serving()))
    await until(backend, workload.ref, ready(1), timeout=PATIENCE)


async def test_no_machine_has_a_gpu(backend, namespace):
    workload = wanted(namespace, with_pod(serving(), gpus=1))
    await backend.apply(workload)
    replica = await seen(backend, workload, "InsufficientGPU")
    assert replica.message.startswith("chat waits for a GPU: none of ")


async def test_no_machine_is_of_the_kind(backend, namespace):
    template = with_pod(serving(), overrides={"spec": {"nodeSelector": {"disk": "none-has-it"}}})
    workload = wanted(namespace, template)
    await backend.apply(workload)
    replica = await seen(backend, workload, "Unschedulable")
    assert "of another kind than nodeSelector asks for" in replica.message


async def test_an_image_that_is_not_there(backend, namespace):
    overrides = {"spec": {"containers": [{"name": "engine", "image": "registry.local/no-such:1"}]}}
    workload = wanted(namespace, with_pod(serving(), overrides=overrides))
    await backend.apply(workload)
    replica = await seen(backend, workload, "ImagePull")
    assert replica.phase == "Waiting"
    assert replica.message.startswith("chat can't start: its image registry.local/no-such:1 can't be fetched: ")


async def test_out_of_memory_is_told_in_numbers(backend, namespace):
    eat = "echo hungry; x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"
    workload = wanted(namespace, script(eat, memory_limit=64 * MIB, readiness=HEALTH))
    await backend.apply(workload)
    replica = await seen(backend, workload, "OutOfMemory")
    assert replica.message == (
        "chat ran out of memory: used 64 MiB of 64 MiB. Give it more: llmos set chat --memory 128Mi"
    )
    assert replica.exit_code == 137
    assert replica.memory_limit == 64 * MIB


async def test_never_ready_in_time(backend, namespace):
    workload = wanted(namespace, script("sleep 3600", readiness=HEALTH, startup_timeout=3.0))
    await backend.apply(workload)
    replica = await seen(backend, workload, "StartupTimeout")
    assert "was not ready within 3 s of its start" in replica.message
    assert "GET /health gave" in replica.message
    assert replica.restarts >= 1


async def test_ready_and_then_not(backend, namespace):
    text = "echo ok > /tmp/health; (sleep 6; rm /tmp/health) & exec httpd -f -p {port} -h /tmp"
    workload = wanted(namespace, script(text, readiness=HEALTH))
    await backend.apply(workload)
    await until(backend, workload.ref, ready(1), timeout=PATIENCE)
    (replica,) = (await until(backend, workload.ref, phase("NotReady"), timeout=PATIENCE)).replicas
    assert replica.reason == "Unhealthy"
    assert replica.endpoint is None
    saying = await until(backend, workload.ref, lambda o: "404" in o.replicas[0].message, timeout=PATIENCE)
    assert saying.replicas[0].message.startswith("chat runs but is not ready: HTTP probe failed with statuscode: 404")


async def test_a_quota_that_bounds_cores_and_memory_is_met(backend, cluster, namespace):
    """A download and an engine in a namespace whose quota wants every container to state its limits."""
    hard = {"limits.cpu": "8", "limits.memory": "8Gi", "requests.cpu": "4", "requests.memory": "8Gi"}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "quota", "namespace": namespace},
            "spec": {"hard": hard},
        }
    )
    model = wanted(namespace, serving(memory_limit=64 * MIB, init=(script("true"),)))
    fetch = Workload(replace(model.ref, part="fetch"), (Role("fetch", 1, script("true", completes=True)),))
    await backend.apply(fetch)
    await until(backend, fetch.ref, phase("Succeeded"), timeout=PATIENCE)
    await backend.apply(model)
    await until(backend, model.ref, ready(1), timeout=PATIENCE)
    nameless = wanted(namespace, serving(), name="more")
    await backend.apply(nameless)
    assert "llmos set more --memory 2Gi" in (await seen(backend, nameless, "Refused")).message


async def test_over_the_quota_until_something_stops(backend, cluster, namespace):
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "quota", "namespace": namespace},
            "spec": {"hard": {"limits.memory": "100Mi"}},
        }
    )
    first = wanted(namespace, serving(memory_limit=64 * MIB), name="first")
    second = wanted(namespace, serving(memory_limit=64 * MIB), name="second")
    await backend.apply(first)
    await until(backend, first.ref, ready(1), timeout=PATIENCE)
    await backend.apply(second)
    replica = await seen(backend, second, "QuotaExceeded")
    assert replica.phase == "Waiting"
    assert "64 MiB of 100 MiB memory are in use and 64 MiB more were asked for" in replica.message
    job = replace(
        second,
        ref=replace(second.ref, part="fetch"),
        roles=(Role("fetch", 1, script("true", completes=True, memory_limit=64 * MIB)),),
    )
    await backend.apply(job)
    assert (await seen(backend, job, "QuotaExceeded")).role == "fetch"
    await backend.delete(first.ref)
    await until(backend, second.ref, ready(1), timeout=PATIENCE * 1.3)


async def test_a_template_that_the_cluster_refuses(backend, namespace):
    template = with_pod(
        serving(), overrides={"spec": {"containers": [{"name": "engine", "imagePullPolicy": "Sometimes"}]}}
    )
    with pytest.raises(Invalid, match="the cluster refuses its Deployment") as refusal:
        await backend.apply(wanted(namespace, template))
    assert "imagePullPolicy" in str(refusal.value)


async def test_a_namespace_that_is_not_there(backend):
    with pytest.raises(BackendFailed, match="there is no namespace t-no-such"):
        await backend.apply(wanted("t-no-such", serving()))


async def test_a_volume_that_nobody_makes(api, cluster, namespace):
    settings = settings_for(f"t-{uuid.uuid4().hex[:8]}", models={"storageClass": "no-such-class"})
    backend = KubernetesBackend(api, settings)
    await backend.start()
    try:
        workload = wanted(namespace, serving(env={"MODEL": "/models/a.gguf"}))
        await backend.apply(workload)
        replica = await seen(backend, workload, "Volume")
        assert replica.message.startswith("chat waits for its model volume: ")
        assert cluster.get("pvc", "llmos-models", "-n", namespace)["spec"]["accessModes"] == ["ReadWriteMany"]
    finally:
        await backend.close(stop=True)


async def test_what_comes_before_fails_and_is_told(backend, namespace):
    before = script("echo nothing there; exit 7", pod=PodOptions(image="fetch"))
    workload = wanted(namespace, serving(init=(before,)))
    await backend.apply(workload)
    replica = await seen(backend, workload, "Crashed")
    assert "fetching its model failed: exit code 7" in replica.message
    assert list(replica.last_log_lines) == ["nothing there"]
    assert [line async for line in backend.logs(workload.ref)] == ["nothing there"]


async def test_how_far_a_download_is(backend, namespace):
    line = '{"type": "progress", "file": "a.gguf", "done": 1200000, "total": 2500000, "rate": 58000000}'
    before = script(f"echo '{line}'; sleep 8", pod=PodOptions(image="fetch"))
    workload = wanted(namespace, serving(init=(before,)))
    await backend.apply(workload)
    observation = await until(
        backend, workload.ref, lambda o: any("1.2 MB" in r.message for r in o.replicas), timeout=PATIENCE
    )
    assert observation.replicas[0].message == "chat is fetching its model: a.gguf, 1.2 MB of 2.5 MB at 58 MB/s."
    await until(backend, workload.ref, ready(1), timeout=PATIENCE)


async def test_secrets_reach_the_process_and_no_pod_spec(backend, cluster, namespace):
    text = 'echo "$TOKEN $BEFORE"; echo ok > /tmp/health; exec httpd -f -p {port} -h /tmp'
    before = script('echo "$HF_TOKEN" > /tmp/before', secret_env={"HF_TOKEN": "hf-1"})
    template = script(text, readiness=HEALTH, secret_env={"TOKEN": "s3cret $(HOME)"}, init=(before,))
    workload = wanted(namespace, template)
    await backend.apply(workload)
    await until(backend, workload.ref, ready(1), timeout=PATIENCE)
    assert [line async for line in backend.logs(workload.ref)] == ["s3cret $(HOME) "]
    assert "s3cret" not in cluster.kubectl("get", "pods,deployments", "-n", namespace, "-o", "yaml")
    changed = wanted(namespace, serving())
    await backend.apply(changed)
    await until(backend, workload.ref, ready(1), timeout=PATIENCE)
    await backend.apply(changed)
    async with asyncio.timeout(PATIENCE):
        while cluster.get("secrets", "-n", namespace)["items"]:
            await asyncio.sleep(0.2)


async def test_processes_are_kept_in(backend, namespace):
    text = "id -u; touch /x 2>/dev/null || echo read-only; ls /var/run/secrets/kubernetes.io 2>/dev/null || echo no token; grep NoNewPrivs /proc/self/status; grep CapEff /proc/self/status"
    workload = replace(wanted(namespace, script(text, completes=True)))
    await backend.apply(workload)
    await until(backend, workload.ref, phase("Succeeded"), timeout=PATIENCE)
    lines = [line.replace("\t", " ") async for line in backend.logs(workload.ref)]
    assert lines == ["1000", "read-only", "no token", "NoNewPrivs: 1", "CapEff: 0000000000000000"]


async def test_image_and_registry_by_setting(api, cluster, namespace):
    settings = settings_for(
        f"t-{uuid.uuid4().hex[:8]}", images={"": {"image": IMAGE.partition("/")[2]}}, registry="registry.local/"
    )
    backend = KubernetesBackend(api, settings)
    await backend.start()
    try:
        workload = wanted(namespace, serving())
        await backend.apply(workload)
        seen = await until(backend, workload.ref, ready(1), timeout=PATIENCE)
        (replica,) = seen.replicas
        (container,) = cluster.get("pod", replica.id, "-n", namespace)["spec"]["containers"]
        assert container["image"] == IMAGE
    finally:
        await backend.close(stop=True)


async def test_a_job_that_succeeds_is_never_said_to_have_crashed(backend, namespace):
    """Between the end of its container and that of its pod, too."""
    workload = wanted(namespace, script("echo done", completes=True))
    seen = []
    changes = backend.changes()

    async def record():
        async for ref in changes:
            if ref == workload.ref and (observation := await backend.observe(ref)) is not None:
                seen.extend(observation.replicas)

    recording = asyncio.create_task(record())
    try:
        await backend.apply(workload)
        await until(backend, workload.ref, phase("Succeeded"), timeout=PATIENCE)
    finally:
        recording.cancel()
        await asyncio.gather(recording, return_exceptions=True)
    assert seen
    assert {state.reason for state in seen} == {""}, [state.message for state in seen]
    assert {state.phase for state in seen} <= {"Starting", "Succeeded"}
