"""The Secrets of workloads, which are watched only in the namespaces of workloads."""

from __future__ import annotations

import asyncio

from llmos_hub.backends.kubernetes import KubernetesBackend
from llmos_hub.workload import Role, Workload, WorkloadRef
from tests.support.fake_kubernetes import fake_kubernetes
from tests.support.kubernetes_backend import serving, settings_for

NAMESPACE = "user-ada"
WANTED = Workload(
    WorkloadRef("ModelService", NAMESPACE, "chat", "u1", "serve"),
    (Role("replica", 1, serving(secret_env={"KEY": "k"})),),
)


async def test_secrets_are_followed_with_no_right_to_all(tmp_path):
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        cluster.readers = {NAMESPACE}
        backend = KubernetesBackend(api, settings_for("llmos"))
        await backend.start()
        try:
            await backend.apply(WANTED)
            (name,) = cluster.names("secrets", NAMESPACE)
            cluster.remove("secrets", name, NAMESPACE)
            await cluster.until(lambda: cluster.names("secrets", NAMESPACE) == [name], "the Secret made again")
            await backend.delete(WANTED.ref)
            assert cluster.names("secrets", NAMESPACE) == []
        finally:
            await backend.close()


async def test_a_restart_writes_nothing_where_nothing_has_changed(tmp_path):
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        cluster.readers = {NAMESPACE}
        for restarted in (False, True):
            backend = KubernetesBackend(api, settings_for("llmos"))
            await backend.start()
            before = cluster.revision
            await backend.apply(WANTED)
            await backend.close()
            if restarted:
                assert cluster.revision == before


async def test_a_namespace_whose_right_is_gone_keeps_no_workload(tmp_path):
    """The right ends with the namespace, before the Secrets in it are deleted."""
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        cluster.readers = {NAMESPACE}
        backend = KubernetesBackend(api, settings_for("llmos"))
        await backend.start()
        changes = backend.changes()
        try:
            await backend.apply(WANTED)
            await backend.close()
            cluster.readers = set()
            backend = KubernetesBackend(api, settings_for("llmos"))
            await backend.start()
            cluster.remove("namespaces", NAMESPACE)
            changes = backend.changes()
            async with asyncio.timeout(10):
                while await backend.refs():
                    await anext(changes)
            assert await backend.observe(WANTED.ref) is None
        finally:
            await backend.close()
