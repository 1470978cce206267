"""The Secrets of workloads, which are watched only in the namespaces that have any."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from llmos_hub.backends.kubernetes import watching
from llmos_hub.backends.kubernetes.backend import KubernetesBackend
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.workload import Role, Workload, WorkloadRef
from tests.support.fake_kubernetes import FakeKubernetes, fake_kubernetes
from tests.support.kubernetes_backend import serving, settings_for

NAMESPACE = "user-ada"
WANTED = Workload(
    WorkloadRef("ModelService", NAMESPACE, "chat", "u1", "serve"),
    (Role("replica", 1, serving(secret_env={"KEY": "k"})),),
)


@contextlib.asynccontextmanager
async def running(api: KubernetesAPI) -> AsyncIterator[KubernetesBackend]:
    backend = KubernetesBackend(api, settings_for("llmos"))
    await backend.start()
    try:
        yield backend
    finally:
        await backend.close()


@contextlib.asynccontextmanager
async def readable_namespace(tmp_path: Path) -> AsyncIterator[tuple[FakeKubernetes, KubernetesAPI]]:
    """Yield a cluster in which Secrets may be read in one namespace alone."""
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": NAMESPACE}})
        cluster.readers = {NAMESPACE}
        yield cluster, api


async def test_secrets_are_followed_with_no_right_to_all(tmp_path):
    async with readable_namespace(tmp_path) as (cluster, api), running(api) as backend:
        await backend.apply(WANTED)
        (name,) = cluster.names("secrets", NAMESPACE)
        cluster.remove("secrets", name, NAMESPACE)
        await cluster.until(lambda: cluster.names("secrets", NAMESPACE) == [name], "the Secret made again")
        await backend.delete(WANTED.ref)
        assert cluster.names("secrets", NAMESPACE) == []


async def test_a_restart_writes_nothing_where_nothing_has_changed(tmp_path):
    async with readable_namespace(tmp_path) as (cluster, api):
        for restarted in (False, True):
            async with running(api) as backend:
                before = cluster.revision
                await backend.apply(WANTED)
            if restarted:
                assert cluster.revision == before


async def test_a_namespace_whose_right_is_gone_keeps_no_workload(tmp_path, monkeypatch):
    """The right ends with the namespace, before the Secrets in it are deleted."""
    monkeypatch.setattr(watching, "_SETTLE", 0.2)
    async with readable_namespace(tmp_path) as (cluster, api):
        async with running(api) as backend:
            await backend.apply(WANTED)
        cluster.readers = set()
        async with running(api) as backend:
            changes = backend.changes()
            cluster.remove("namespaces", NAMESPACE)
            async with asyncio.timeout(30):
                while await backend.refs():
                    await anext(changes)
            assert await backend.observe(WANTED.ref) is None


async def test_a_secret_that_another_process_no_longer_needed_is_removed(tmp_path):
    """The process that would have removed it ended before the new pods ran."""
    plain = replace(WANTED, roles=(Role("replica", 1, serving()),))
    async with readable_namespace(tmp_path) as (cluster, api):
        for wanted in (WANTED, plain):
            async with running(api) as backend:
                await backend.apply(wanted)
        assert len(cluster.names("secrets", NAMESPACE)) == 1, "pods of the earlier template may run"
        async with running(api) as backend:
            await backend.delete(plain.ref)
        assert cluster.names("secrets", NAMESPACE) == []


async def test_the_secret_of_another_process_is_known(tmp_path):
    """Standby controllers take over without asking again."""
    async with readable_namespace(tmp_path) as (cluster, api), running(api) as standby:
        async with running(api) as leader:
            await leader.apply(WANTED)
        async with asyncio.timeout(30):
            changes = standby.changes()
            while WANTED.ref not in await standby.refs():
                await anext(changes)
        await asyncio.wait_for(standby._secrets._followed[NAMESPACE][0].synced.wait(), 30)
        before = cluster.revision
        await standby.apply(WANTED)
        assert cluster.revision == before
