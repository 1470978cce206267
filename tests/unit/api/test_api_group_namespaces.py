"""A group's namespace in a cluster: accessible only to current members."""

from __future__ import annotations

from pathlib import Path

from llmos_hub.stores.base import Store
from tests.support.fake_hub import FakeHub
from tests.support.fake_kubernetes import fake_kubernetes
from tests.support.group_namespaces import check_group_namespace, group_platform


async def test_members_have_it_made_and_share_it_and_nobody_else(
    store: Store, fake_hub: FakeHub, tmp_path: Path
) -> None:
    async with fake_kubernetes(tmp_path) as (cluster, api):
        cluster.put("namespaces", {"metadata": {"name": "llmos"}})
        async with group_platform(api, store, fake_hub, tmp_path, group="vision", release="llmos") as platform:
            await check_group_namespace(platform)
        obj = cluster.get("namespaces", "group-vision")
        assert obj is not None
        assert obj["metadata"]["labels"]["llmos.ai/owner-kind"] == "group"
        deleted = cluster.get("modelservices", "chat", "group-vision")
        assert deleted is not None, "its finalizer is the model controller's, which doesn't run here"
        assert deleted["metadata"]["deletionTimestamp"]
        assert "llmos-default-deny" in cluster.names("networkpolicies", "group-vision")
