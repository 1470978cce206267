"""A new controllers process leaves alone what is as it should be, and puts right what was changed meanwhile."""

from __future__ import annotations

import uuid

import pytest

from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.workload import Role, Workload, WorkloadRef
from tests.support.backend_contract import ready, until
from tests.support.kubernetes_backend import script, serving, settings_for

PATIENCE = 90.0


@pytest.fixture
async def anew(cluster, namespace):
    """Backends, one after the other, each with a connection of its own; the workload is one that has everything."""
    settings = settings_for(f"t-{uuid.uuid4().hex[:8]}")
    ref = WorkloadRef("ModelService", namespace, "chat", "u1")
    fetch = script("true", secret_env={"HF_TOKEN": "t"}, env={"EMPTY": ""})
    template = serving(
        secret_env={"KEY": "k"},
        cpus=0.5,
        memory_limit=2**27,
        memory_request=2**26,
        init=(fetch,),
        env={"NAME": "a", "EMPTY": ""},
    )
    workload = Workload(ref, (Role("replica", 2, template),))
    opened: list[tuple[KubernetesBackend, KubernetesAPI]] = []

    async def start() -> tuple[KubernetesBackend, KubernetesAPI, Workload]:
        for backend, _ in opened[-1:]:
            await backend.close()
        api = KubernetesAPI(kubeconfig=cluster.kubeconfig)
        backend = KubernetesBackend(api, settings)
        opened.append((backend, api))
        await backend.start()
        return backend, api, workload

    yield start
    await opened[-1][0].close(stop=True)
    for _, api in opened:
        await api.close()


async def test_what_is_as_it_should_be_is_not_applied_again(anew):
    backend, _, workload = await anew()
    await backend.apply(workload)
    await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    backend, api, workload = await anew()
    await backend.apply(workload)
    assert set(api.calls) == {"GET"}
    await until(backend, workload.ref, ready(2), timeout=PATIENCE)


async def test_what_was_changed_while_nobody_looked_is_put_right(anew, cluster, namespace):
    backend, _, workload = await anew()
    await backend.apply(workload)
    await until(backend, workload.ref, ready(2), timeout=PATIENCE)
    await backend.close()
    name = workload.ref.id
    cluster.kubectl("scale", f"deployment/{name}", "--replicas=1", "-n", namespace)
    cluster.kubectl("set", "env", f"deployment/{name}", "-n", namespace, "NAME=other")
    backend, api, workload = await anew()
    await backend.apply(workload)
    assert api.calls["PATCH"] == 1  # the others of its objects are as they were
    spec = cluster.get("deployment", name, "-n", namespace)["spec"]
    environment = {each["name"]: each.get("value") for each in spec["template"]["spec"]["containers"][0]["env"]}
    assert (spec["replicas"], environment["NAME"]) == (2, "a")
