"""Changes that people and machines make to a workload's objects are undone; the objects go with their resource."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.workload import Role, Workload, WorkloadRef
from tests.support.backend_contract import ready, until
from tests.support.chart import write_schemas
from tests.support.kubernetes_backend import serving, settings_for, with_pod

PATIENCE = 90.0
GOLDEN = Path(__file__).parents[1] / "unit/backends/kubernetes/golden"


@pytest.fixture
def settings():
    return settings_for(f"t-{uuid.uuid4().hex[:8]}")


@pytest.fixture
async def backend(api, settings):
    made = KubernetesBackend(api, settings)
    await made.start()
    yield made
    await made.close(stop=True)


def wanted(namespace: str, *, count: int = 2, uid: str = "u1", **fields: object) -> Workload:
    ref = WorkloadRef("ModelService", namespace, "chat", uid)
    return Workload(ref, (Role("replica", count, serving(**fields)),))


async def eventually(condition, timeout=PATIENCE):
    """Return whether the condition becomes true in time."""
    try:
        async with asyncio.timeout(timeout):
            while not condition():
                await asyncio.sleep(0.1)
    except TimeoutError:
        return False
    return True


async def test_what_is_edited_by_hand_is_changed_back(backend, cluster, namespace):
    workload = wanted(namespace)
    await backend.apply(workload)
    before = await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    name = workload.ref.id
    cluster.kubectl("scale", f"deployment/{name}", "--replicas=4", "-n", namespace)
    cluster.kubectl("patch", "networkpolicy", name, "-n", namespace, "--type=merge", "-p", '{"spec":{"ingress":[{}]}}')
    cluster.kubectl("label", "service", name, "-n", namespace, "llmos.ai/part=other", "--overwrite")
    assert await eventually(lambda: cluster.get("deployment", name, "-n", namespace)["spec"]["replicas"] == 2)
    assert await eventually(lambda: cluster.get("networkpolicy", name, "-n", namespace)["spec"]["ingress"][0] != {})
    assert await eventually(
        lambda: cluster.get("service", name, "-n", namespace)["metadata"]["labels"]["llmos.ai/part"] == "serve"
    )
    after = await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    assert {r.id for r in after.replicas} & {r.id for r in before.replicas}


async def test_what_is_deleted_by_hand_is_made_again(backend, cluster, namespace):
    workload = wanted(namespace, secret_env={"TOKEN": "t"})
    await backend.apply(workload)
    await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    kinds = ("networkpolicy", "service", "pdb", "secret", "deployment")
    old = {kind: cluster.get(kind, workload.ref.id, "-n", namespace)["metadata"]["uid"] for kind in kinds}
    for kind in kinds:
        cluster.kubectl("delete", kind, workload.ref.id, "-n", namespace)

    def again(kind):
        found = cluster.get(kind, "-n", namespace)["items"]
        return any(o["metadata"]["name"] == workload.ref.id and o["metadata"]["uid"] != old[kind] for o in found)

    for kind in kinds:
        assert await eventually(lambda kind=kind: again(kind)), f"no other {kind} was made"
    after = await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    assert all(replica.endpoint for replica in after.replicas)


async def test_what_others_add_is_left_alone(backend, cluster, namespace):
    workload = wanted(namespace, count=1)
    await backend.apply(workload)
    await until(backend, workload.ref, ready(1), timeout=PATIENCE)
    cluster.kubectl("annotate", f"deployment/{workload.ref.id}", "-n", namespace, "example.org/note=mine")
    await backend.apply(replace(workload, labels={"news": "1"}))
    seen = cluster.get("deployment", workload.ref.id, "-n", namespace)
    assert seen["metadata"]["annotations"]["example.org/note"] == "mine"
    assert json.loads(seen["metadata"]["annotations"]["llmos.ai/labels"]) == {"news": "1"}
    assert cluster.get("rs", "-n", namespace)["items"][0]["metadata"]["generation"] == 1, "no pod was made anew"


async def test_one_that_stands_by_repairs_nothing(api, cluster, settings, namespace):
    leading = True
    backend = KubernetesBackend(api, settings, leads=lambda: leading)
    await backend.start()
    try:
        workload = wanted(namespace, count=1)
        await backend.apply(workload)
        await until(backend, workload.ref, ready(1), timeout=PATIENCE)
        leading = False
        cluster.kubectl("scale", f"deployment/{workload.ref.id}", "--replicas=2", "-n", namespace)
        await until(backend, workload.ref, ready(2), timeout=PATIENCE)
        leading = True
        assert cluster.get("deployment", workload.ref.id, "-n", namespace)["spec"]["replicas"] == 2
        await backend.apply(workload)
        await until(backend, workload.ref, ready(1), timeout=PATIENCE)
    finally:
        await backend.close(stop=True)


async def test_the_same_again_costs_no_request(backend, api, namespace):
    workload = wanted(namespace)
    await backend.apply(workload)
    await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    before = dict(api.calls)
    for _ in range(5):
        await backend.apply(workload)
    assert api.calls.get("PATCH") == before.get("PATCH")
    assert before["PATCH"] == 4, "one request for each of NetworkPolicy, Service, PodDisruptionBudget, Deployment"


async def test_a_pod_that_is_killed_comes_back(backend, cluster, namespace):
    workload = wanted(namespace)
    await backend.apply(workload)
    before = await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    gone = before.replicas[0].id
    cluster.kubectl("delete", "pod", gone, "-n", namespace, "--wait=false")
    going = await until(backend, workload.ref, lambda o: gone not in {r.id for r in o.replicas if r.endpoint})
    assert len([r for r in going.replicas if r.endpoint]) >= 1, "one that is on its way out gets no requests"
    after = await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    assert gone not in {r.id for r in after.replicas}


async def test_all_goes_with_the_resource(api, cluster, namespace):
    manifest = {
        "apiVersion": "llmos.ai/v1alpha1",
        "kind": "ModelService",
        "metadata": {"name": "chat", "namespace": namespace},
        "spec": {"model": "demo://tiny"},
    }
    cluster.apply(manifest)
    uid = cluster.get("modelservice", "chat", "-n", namespace)["metadata"]["uid"]
    backend = KubernetesBackend(api, settings_for(f"t-{uuid.uuid4().hex[:8]}", owned=True))
    await backend.start()
    try:
        workload = wanted(namespace, uid=uid)
        await backend.apply(workload)
        await until(backend, workload.ref, ready(2), timeout=PATIENCE)
        await backend.close()
        cluster.kubectl("delete", "modelservice", "chat", "-n", namespace)
        kinds = "deployments,replicasets,pods,services,networkpolicies,poddisruptionbudgets"
        assert await eventually(lambda: not cluster.get(kinds, "-n", namespace)["items"]), "something is left"
    finally:
        await backend.close()


async def test_a_template_of_the_resources_own(backend, cluster, namespace):
    overrides = {
        "metadata": {"labels": {"example.org/team": "vision"}},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [
                {"name": "engine", "env": [{"name": "NAME", "value": "other"}, {"name": "TMPDIR", "$patch": "delete"}]}
            ],
        },
    }
    workload = wanted(namespace, count=1)
    role = workload.roles[0]
    await backend.apply(
        replace(workload, roles=(replace(role, template=with_pod(role.template, overrides=overrides)),))
    )
    await until(backend, workload.ref, ready(1), timeout=PATIENCE)
    (pod,) = cluster.get("pods", "-n", namespace)["items"]
    assert pod["metadata"]["labels"]["example.org/team"] == "vision"
    env = {variable["name"]: variable["value"] for variable in pod["spec"]["containers"][0]["env"]}
    assert env == {"NAME": "other", "HOME": "/tmp"}


@pytest.mark.parametrize("case", sorted(path.stem for path in GOLDEN.glob("*.yaml") if path.stem != "several-hosts"))
def test_the_objects_that_are_written_down_are_accepted(cluster, namespace, case):
    for obj in yaml.safe_load_all((GOLDEN / f"{case}.yaml").read_text()):
        obj["metadata"]["namespace"] = namespace
        done = cluster.attempt(
            "kubectl", "apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-",
            stdin=json.dumps(obj),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "serverside-applied" in done.stdout


def test_the_objects_that_are_written_down_are_valid(cluster, tmp_path):
    schemas = write_schemas(cluster, tmp_path)
    words = ["kubeconform", "-strict", "-summary", "-schema-location", schemas, "-skip", "LeaderWorkerSet"]
    out = cluster.run(*words, *sorted(GOLDEN.glob("*.yaml")))
    assert "Invalid: 0, Errors: 0" in out, out


def test_workloads_over_several_machines_are_accepted(cluster, namespace):
    """Skipped unless the extension is installed."""
    if cluster.attempt("kubectl", "get", "crd", "leaderworkersets.leaderworkerset.x-k8s.io").returncode:
        pytest.skip("LeaderWorkerSet is not installed in this cluster")
    for obj in yaml.safe_load_all((GOLDEN / "several-hosts.yaml").read_text()):
        obj["metadata"]["namespace"] = namespace
        done = cluster.attempt(
            "kubectl", "apply", "--server-side", "--dry-run=server", "-f", "-", stdin=json.dumps(obj)
        )
        assert done.returncode == 0, done.stderr
        assert "serverside-applied" in done.stdout
