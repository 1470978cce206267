"""The API on a cluster with a group's namespace, and the permissions of members and others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx

from llmos.names import group_namespace
from llmos.resources import API_VERSION
from llmos_hub.api.app import make_app
from llmos_hub.controllers import registry
from llmos_hub.controllers.namespaces.reconciler import namespace_controller
from llmos_hub.identity import HubIdentity
from llmos_hub.kubernetes.connection import KubernetesAPI
from llmos_hub.managers.logs import LocalLogReader
from llmos_hub.managers.namespace_options import NamespaceOptions
from llmos_hub.managers.namespaces import KubernetesNamespaces
from llmos_hub.managers.settings import PlatformSettings
from llmos_hub.stores.base import Store
from llmos_hub.stores.kubernetes.namespaces import ReleaseNamespaces
from llmos_hub.stores.kubernetes.release import ReleaseStore
from llmos_hub.stores.kubernetes.store import KubernetesStore
from llmos_hub.stores.routed import RoutedStore
from tests.support.asgi import serving
from tests.support.fake_hub import FakeHub
from tests.support.fake_people import FakePeople
from tests.support.waiting import PATIENCE

__all__ = ["GroupPlatform", "check_group_namespace", "group_platform"]


@dataclass
class GroupPlatform:
    """The running API and namespace controller; `ada` and `hopper` are in the group, `grace` isn't."""

    url: str
    hub: FakeHub
    group: str

    @property
    def namespace(self) -> str:
        return group_namespace(self.group)

    @property
    def models(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/modelservices"

    @contextlib.asynccontextmanager
    async def client(self, name: str) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer token-of-{name}-0123456789"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=40, trust_env=False) as client:
            yield client

    async def status(self, name: str, method: str, path: str, **request: Any) -> int:
        """Return the HTTP status of a request by that user."""
        async with self.client(name) as client:
            return (await client.request(method, path, **request)).status_code


@contextlib.asynccontextmanager
async def group_platform(
    api: KubernetesAPI, database: Store, hub: FakeHub, directory: Path, *, group: str, release: str
) -> AsyncIterator[GroupPlatform]:
    """Run the API and the controller on a cluster; the release's own namespace has its name."""
    for name in ("ada", "grace", "hopper"):
        hub.add_user(name, groups=() if name == "grace" else (group,))
        hub.add_token(name, f"token-of-{name}-0123456789")
    options = NamespaceOptions(instance=release, public=False)
    store = RoutedStore(ReleaseStore(KubernetesStore(api), ReleaseNamespaces(api, release)), database)
    identity = HubIdentity(hub.url, hub.service_token, ttl=0.05)
    people = FakePeople(dict.fromkeys(hub.users, "2026-01-01T00:00:00Z"), {group})
    app = make_app(
        store,
        identity,
        LocalLogReader(directory),
        settings=PlatformSettings(store, {}, remembered_for=0),
        namespaces=KubernetesNamespaces(api, options, people),
    )
    controller = namespace_controller(registry.Cluster(api, options, release, leading=lambda: True))
    tasks = [asyncio.create_task(work) for work in (controller.follow(), controller.work())]
    often = mock.patch("llmos_hub.api.streams._CHECK_EVERY", 0.05)
    often.start()
    try:
        async with serving(app) as url:
            yield GroupPlatform(url, hub, group)
            app.state.services.streams.closing.set()
    finally:
        often.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await identity.close()
        await store.close()


async def check_group_namespace(platform: GroupPlatform) -> None:
    """Check that a group's namespace is created for the first member, closed to others, and lost with membership."""
    models = platform.models
    manifest = {"metadata": {"name": "chat"}, "spec": {"model": "demo://tiny", "replicas": 0}}
    space = f"/apis/{API_VERSION}/namespaces/{platform.namespace}"

    assert await platform.status("grace", "POST", models, json=manifest) == 403
    assert await platform.status("grace", "POST", space) == 403, "a stranger has it made"
    async with platform.client("ada") as ada:
        created = await ada.post(models, json=manifest)
        assert created.status_code == 201, created.text
        made = await ada.post(space)
        assert made.status_code == 200, made.text
        assert made.json()["status"] == {
            "prepared": True,
            "owner": {"kind": "group", "name": platform.group},
            "serviceAccount": "llmos",
        }
    async with platform.client("hopper") as hopper:
        names = [item["metadata"]["name"] for item in (await hopper.get(models)).json()["items"]]
        assert names == ["chat"], "what one member made is the others', too"
        patch = {"spec": {"aliases": ["talk"]}}
        media = {"content-type": "application/merge-patch+json"}
        changed = await hopper.patch(f"{models}/chat", json=patch, headers=media)
        assert changed.status_code == 200, changed.text
    for method, path in (("GET", models), ("GET", f"{models}/chat"), ("DELETE", f"{models}/chat")):
        assert await platform.status("grace", method, path) == 403, f"{method} {path} by a stranger"

    async with platform.client("hopper") as hopper, hopper.stream("GET", models, params={"watch": "1"}) as watch:
        assert watch.status_code == 200
        platform.hub.add_user("hopper")  # and no longer in the group
        async with asyncio.timeout(20):
            last = [line async for line in watch.aiter_lines()][-1]
        assert '"forbidden"' in last, "who is put out of the group sees no more"
    for method, path in (("GET", models), ("DELETE", f"{models}/chat"), ("POST", space)):
        assert await platform.status("hopper", method, path) == 403, f"{method} {path} by one who was a member"
    platform.hub.add_user("grace", groups=(platform.group,))
    async with asyncio.timeout(PATIENCE):  # who joins has the same rights, once the cached identity has expired
        while await platform.status("grace", "GET", f"{models}/chat") != 200:
            await asyncio.sleep(0.01)
    assert await platform.status("grace", "DELETE", f"{models}/chat") == 200
